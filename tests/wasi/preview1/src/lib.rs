//! A command module of WASI preview 1. Its first argument names one of [`CASES`]; it exits with 0 where all that the case
//! checks is so, and says on stderr what is not. Without an argument it prints their names.
//! `hoard` is no case: it takes all that it can get.
//!
//! Mounts: `/data` can be written to, `/fixed` cannot and holds `kept` ("kept").

mod abi;
mod files;
mod hoard;
mod paths;
mod process;
mod streams;
mod sys;

const CASES: &[(&str, fn())] = &[
    ("arguments", process::arguments),
    ("environment", process::environment),
    ("clocks", process::clocks),
    ("random", process::random),
    ("yield", process::yields),
    ("exit", process::exit),
    ("signals", process::signals),
    ("stdio", streams::stdio),
    ("poll", streams::poll),
    ("sockets", streams::sockets),
    ("preopens", files::preopens),
    ("content", files::content),
    ("descriptor", files::descriptor),
    ("times", files::times),
    ("renumber", files::renumber),
    ("directory", files::directory),
    ("open", paths::open),
    ("tree", paths::tree),
    ("links", paths::links),
    ("fixed", paths::fixed),
    ("fifo", paths::fifo),
];

#[unsafe(no_mangle)]
extern "C" fn _start() {
    std::panic::set_hook(Box::new(|panic| sys::print(2, &format!("{panic}\n"))));
    let Some(case) = sys::arguments().get(1).cloned() else {
        return CASES.iter().for_each(|(name, _)| sys::print(1, &format!("{name}\n")));
    };
    if case == "hoard" {
        return hoard::all();
    }
    let Some((_, run)) = CASES.iter().find(|(name, _)| *name == case) else { panic!("there is no case {case:?}") };
    run();
}
