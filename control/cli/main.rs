//! `wherry`: one binary, a file a command. Here control, node and runtimes are joined; nowhere else.

mod completion;
mod data_dir;
mod image;
mod limits;
mod parts;
mod up;
mod version;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The trees of requests are many small pieces that live briefly: glibc spent a quarter of a write's processor time on them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs WebAssembly and containers side by side, as Pods, behind the Kubernetes API.
///
/// Start a cluster with `wherry up`, then use kubectl as you always do.
#[derive(Debug, Parser)]
#[command(name = "wherry", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    #[command(subcommand)]
    Image(image::Image),
    Version(version::Version),
    Completion(completion::Completion),
}

/// Prints to standard output. A reader that has gone away (`wherry image ls | head`) wants no more, which is no failure.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn run() -> anyhow::Result<()> {
    // Not for users, so not among the commands: the agent starts them. They begin as a single thread.
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(wherry_network::HELPER_COMMAND) => {
            return Ok(wherry_network::helper_main(&words.next().unwrap_or_default())?);
        }
        Some(wherry_host::HOST_COMMAND) => return Ok(wherry_host::host_main(words)?),
        Some(wherry_network::POD_INIT_COMMAND) => return Ok(wherry_network::pod_init_main()?),
        _ => {}
    }
    match Arguments::parse().command {
        Command::Up(up) => up.run(),
        Command::Image(image) => image.run(),
        Command::Version(version) => version.run(),
        Command::Completion(completion) => completion.run(),
    }
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("WHERRY_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
