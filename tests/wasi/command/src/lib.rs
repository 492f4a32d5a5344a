//! A command component of WASI 0.2. Its first argument names one of [`CASES`]; it succeeds where all that the case checks is so,
//! and says on stderr what is not. Without an argument it prints their names.
//! `hoard` is no case: it takes all that it can get.
//!
//! Mounts: `/data` can be written to, `/fixed` cannot and holds `kept` ("kept").

mod files;
mod hoard;
mod paths;
mod process;
mod streams;
mod tcp;
mod terminals;
mod udp;

use wasip2::cli::{environment, stderr, stdout};

const CASES: &[(&str, fn())] = &[
    ("environment", process::environment),
    ("clocks", process::clocks),
    ("random", process::random),
    ("exit", process::exit),
    ("exit-with-code", process::exit_with_code),
    ("no-terminals", terminals::none),
    ("terminals", terminals::all),
    ("stdio", streams::stdio),
    ("poll", streams::poll),
    ("input", streams::input),
    ("output", streams::output),
    ("splice", streams::splice),
    ("content", files::content),
    ("descriptor", files::descriptor),
    ("times", files::times),
    ("same", files::same),
    ("directory", files::directory),
    ("open", paths::open),
    ("tree", paths::tree),
    ("links", paths::links),
    ("fixed", paths::fixed),
    ("fifo", paths::fifo),
    ("names", udp::names),
    ("udp", udp::exchange),
    ("udp-options", udp::options),
    ("tcp", tcp::exchange),
    ("tcp-errors", tcp::errors),
    ("tcp-options", tcp::options),
];

struct Guest;
wasip2::cli::command::export!(Guest);

impl wasip2::exports::cli::run::Guest for Guest {
    fn run() -> Result<(), ()> {
        std::panic::set_hook(Box::new(|panic| {
            let _ = stderr::get_stderr().blocking_write_and_flush(format!("{panic}\n").as_bytes());
        }));
        let Some(case) = environment::get_arguments().get(1).cloned() else {
            let names: String = CASES.iter().map(|(name, _)| format!("{name}\n")).collect();
            return stdout::get_stdout().blocking_write_and_flush(names.as_bytes()).map_err(drop);
        };
        if case == "hoard" {
            hoard::all();
            return Ok(());
        }
        let Some((_, run)) = CASES.iter().find(|(name, _)| *name == case) else { panic!("there is no case {case:?}") };
        run();
        Ok(())
    }
}
