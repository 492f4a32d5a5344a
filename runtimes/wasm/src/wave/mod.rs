//! Values of the component model as text (WAVE, WebAssembly Value Encoding), as `wasmtime run --invoke` takes and prints them:
//! `42`, `"text"`, `[1, 2]`, `{name: "x", size: 3}`, `some(1)`, `ok`, `{flag-a, flag-b}`, `case(1)`.

mod read;
mod write;

pub(crate) use read::read;
pub(crate) use write::{named, signature, unwritable, write};

/// Words that are no names, unless there is a % before them.
fn is_keyword(word: &str) -> bool {
    ["true", "false", "some", "none", "ok", "err", "inf", "nan"].contains(&word)
}
