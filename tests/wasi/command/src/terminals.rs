//! `wasi:cli/terminal-*`.

use wasip2::cli::terminal_stderr::get_terminal_stderr;
use wasip2::cli::terminal_stdin::get_terminal_stdin;
use wasip2::cli::terminal_stdout::get_terminal_stdout;

fn there() -> [bool; 3] {
    [get_terminal_stdin().is_some(), get_terminal_stdout().is_some(), get_terminal_stderr().is_some()]
}

pub(crate) fn none() {
    assert_eq!(there(), [false; 3]);
}

/// It is run with a terminal.
pub(crate) fn all() {
    assert_eq!(there(), [true; 3]);
}
