//! Unmodified kubectl, in each version that the tests use.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// A kubectl of one version against one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
    namespace: Option<String>,
    environment: Vec<(String, String)>,
}

/// What a kubectl command said.
#[derive(Clone, Debug)]
pub struct Output {
    /// Whether it exited 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    /// The kubectls to test with: those that `WHERRY_KUBECTLS` names (colon-separated; tests/run.sh sets it), else the one in PATH.
    #[must_use]
    pub fn binaries() -> Vec<PathBuf> {
        match std::env::var_os("WHERRY_KUBECTLS") {
            Some(list) => std::env::split_paths(&list).collect(),
            None => vec![PathBuf::from("kubectl")],
        }
    }

    pub(crate) fn new(binary: PathBuf, kubeconfig: &Path) -> Self {
        Self { binary, kubeconfig: kubeconfig.to_owned(), namespace: None, environment: Vec::new() }
    }

    /// The same kubectl with another namespace than `default`.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// The same kubectl with an environment variable.
    #[must_use]
    pub fn with_variable(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.environment.push((name.to_owned(), value.to_owned()));
        other
    }

    /// A command that has not run yet; `kubectl` caches lie beside the kubeconfig.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        let cache = self.kubeconfig.with_extension("cache");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(cache);
        if let Some(namespace) = &self.namespace {
            command.arg("--namespace").arg(namespace);
        }
        command.args(arguments).envs(self.environment.iter().cloned());
        command
    }

    /// Runs a command line (words are split at spaces; quote nothing), with at most a minute.
    pub fn run(&self, line: &str) -> anyhow::Result<Output> {
        self.feed(line, "")
    }

    /// As [`run`](Self::run), with a text on standard input.
    pub fn feed(&self, line: &str, input: &str) -> anyhow::Result<Output> {
        self.arguments(&line.split_whitespace().collect::<Vec<_>>(), input)
    }

    /// Runs a command of separate arguments.
    pub fn arguments(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new("timeout");
        let inner = self.command(arguments);
        command.arg("90").arg(inner.get_program()).args(inner.get_args()).envs(self.environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", self.binary.display()))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        // From a thread of its own: kubectl may answer before it has read all.
        let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        drop(feeder.join());
        Ok(Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, line: &str) -> anyhow::Result<String> {
        checked(line, self.run(line)?)
    }

    /// As [`ok`](Self::ok), with a text on standard input.
    pub fn ok_with(&self, line: &str, input: &str) -> anyhow::Result<String> {
        checked(line, self.feed(line, input)?)
    }

    /// Applies manifests.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.ok_with("apply -f -", manifests)
    }

    /// `get ... -o json`.
    pub fn json(&self, what: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ok(&format!("{what} -o json"))?)?)
    }

    /// `kubectl wait` with a limit; `line` is all that follows the word. A failure says what the namespace's Pods wait for.
    pub fn wait(&self, line: &str, limit: Duration) -> anyhow::Result<()> {
        let waited = self.ok(&format!("wait --timeout={}s {line}", limit.as_secs()));
        waited
            .map(drop)
            .with_context(|| self.run("get pods,events -o wide").map(|seen| seen.stdout).unwrap_or_default())
    }
}

fn checked(line: &str, output: Output) -> anyhow::Result<String> {
    if output.success {
        return Ok(output.stdout);
    }
    bail!("kubectl {line}\n{}{}", output.stdout, output.stderr)
}
