//! `wherry`: one binary, a file a command. Here control, node and runtimes are joined; nowhere else.

mod completion;
mod data_dir;
mod image;
mod parts;
mod up;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

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
    /// Holds the network of a node without root; started by `wherry up`.
    #[command(name = wherry_network::HELPER_COMMAND, hide = true)]
    Helper {
        /// What to set up, JSON.
        config: String,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("WHERRY_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match Arguments::parse().command {
        Command::Up(up) => up.run(),
        Command::Image(image) => image.run(),
        Command::Version(version) => version.run(),
        Command::Completion(completion) => completion.run(),
        // Stays a single thread until it is inside its namespace.
        Command::Helper { config } => wherry_network::helper_main(&config).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
