//! How a container came to its end, as its [`Exit`] will say.

use std::time::SystemTime;

use wasmtime_wasi::I32Exit;
use wherry_runtime::Exit;

use crate::memory::OutOfMemory;

/// The longest message of an exit; a Wasm backtrace of a deep recursion is longer.
const MESSAGE_BYTES: usize = 4096;

/// Why a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It said so: its `main` returned or it called exit.
    Code(i32),
    /// It trapped; the text has the Wasm backtrace.
    Trap(String),
    /// It wanted more memory than it may have.
    OutOfMemory(String),
    /// [`Signal::Kill`](wherry_runtime::Signal::Kill).
    Killed,
    /// [`Signal::Term`](wherry_runtime::Signal::Term), to what cannot hear it.
    Terminated,
    /// `^C` was typed.
    Interrupted,
    /// All of the node's instances are taken.
    NoRoom(String),
    /// Our side failed it.
    Host(String),
}

impl Ending {
    /// What an error out of a guest's call means.
    pub(crate) fn of(error: &wasmtime::Error) -> Self {
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            return Self::Code(whole(*code));
        }
        if let Some(oom) = error.downcast_ref::<OutOfMemory>() {
            return Self::OutOfMemory(oom.to_string());
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::NoRoom(format!("this node has no room for another Wasm instance: {error}"));
        }
        Self::Trap(bounded(format!("{error:?}")))
    }

    /// Whether it is the end of the whole container even where it came out of one request.
    pub(crate) fn is_whole(&self) -> bool {
        !matches!(self, Self::Trap(_) | Self::NoRoom(_) | Self::Host(_))
    }

    pub(crate) fn exit(self, started_at: SystemTime) -> Exit {
        let (code, oom_killed, message) = match self {
            Self::Code(code) => (code, false, None),
            Self::Trap(text) => (134, false, Some(text)),
            Self::OutOfMemory(text) => (137, true, Some(text)),
            Self::Killed => (137, false, None),
            Self::Terminated => (143, false, None),
            Self::Interrupted => (130, false, None),
            Self::NoRoom(text) | Self::Host(text) => (128, false, Some(text)),
        };
        // The clock of the wall may step back between the two.
        Exit { code, oom_killed, message, started_at, finished_at: SystemTime::now().max(started_at) }
    }
}

/// A process has eight bits for its exit code. What has more would be cut to them, and 256 to a success: it is 255 instead.
fn whole(code: i32) -> i32 {
    if (0..=255).contains(&code) { code } else { 255 }
}

/// Cuts a text at [`MESSAGE_BYTES`], at a character's border.
fn bounded(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES {
        let cut = (0..=MESSAGE_BYTES - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_endings() {
        let exit = wasmtime::Error::from(I32Exit(3)).context("in main");
        assert_eq!(Ending::of(&exit), Ending::Code(3));
        for code in [256, 259, -1, i32::MAX] {
            assert_eq!(Ending::of(&wasmtime::Error::from(I32Exit(code))), Ending::Code(255), "{code} is no success");
        }
        assert!(
            matches!(Ending::of(&wasmtime::Error::from(wasmtime::Trap::StackOverflow)), Ending::Trap(text) if text.contains("stack"))
        );
    }

    #[test]
    fn messages_are_bounded() {
        let text = bounded("é".repeat(MESSAGE_BYTES));
        assert!(text.len() <= MESSAGE_BYTES && text.ends_with('…'));
    }
}
