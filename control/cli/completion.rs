//! `wherry completion SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print the completion script of a shell.
///
/// For bash: `source <(wherry completion bash)`; for zsh and fish, see where they look for completions.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell to complete for.
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Arguments::command(), "wherry", &mut script);
        crate::say(&String::from_utf8_lossy(&script))?;
        Ok(())
    }
}
