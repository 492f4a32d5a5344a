//! The child of these tests: a host, as `wherry` has it, and one that tries what a host must not do.

mod attempts;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome: Result<(), Box<dyn std::error::Error>> = match words.next().as_deref() {
        Some(wherry_host::HOST_COMMAND) => wherry_host::host_main(words).map_err(Into::into),
        Some("try") => attempts::attempt(&words.next().unwrap_or_default()),
        _ => Err("wasm-host or try".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
