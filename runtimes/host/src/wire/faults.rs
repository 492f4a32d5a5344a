//! Errors, as they are told over the wire.

use std::io;

use serde::{Deserialize, Serialize};
use wherry_runtime::{ContainerId, RuntimeError};

/// A [`RuntimeError`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Fault {
    NotFound(ContainerId),
    WrongState { id: ContainerId, state: String, problem: String },
    InvalidImage(String),
    InvalidSpec(String),
    Unsupported(String),
    Failed(String),
}

/// The states that an error names.
const STATES: [&str; 4] = ["created", "starting", "running", "exited"];

impl From<RuntimeError> for Fault {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::NotFound(id) => Self::NotFound(id),
            RuntimeError::WrongState { id, state, problem } => {
                Self::WrongState { id, state: state.to_owned(), problem }
            }
            RuntimeError::InvalidImage(text) => Self::InvalidImage(text),
            RuntimeError::InvalidSpec(text) => Self::InvalidSpec(text),
            RuntimeError::Unsupported(text) => Self::Unsupported(text),
            RuntimeError::Failed(text) => Self::Failed(text),
        }
    }
}

impl From<Fault> for RuntimeError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotFound(id) => Self::NotFound(id),
            Fault::WrongState { id, state, problem } => {
                let state = STATES.into_iter().find(|known| *known == state).unwrap_or("in another state");
                Self::WrongState { id, state, problem }
            }
            Fault::InvalidImage(text) => Self::InvalidImage(text),
            Fault::InvalidSpec(text) => Self::InvalidSpec(text),
            Fault::Unsupported(text) => Self::Unsupported(text),
            Fault::Failed(text) => Self::Failed(text),
        }
    }
}

/// An [`io::Error`]: its number where it has one, else its kind and its text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IoFault {
    number: Option<i32>,
    kind: Option<usize>,
    text: String,
}

/// The kinds that mean something to a guest.
const KINDS: [io::ErrorKind; 6] = [
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::NotFound,
    io::ErrorKind::AddrNotAvailable,
    io::ErrorKind::TimedOut,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::WouldBlock,
];

impl From<io::Error> for IoFault {
    fn from(error: io::Error) -> Self {
        let kind = KINDS.iter().position(|kind| *kind == error.kind());
        Self { number: error.raw_os_error(), kind, text: error.to_string() }
    }
}

impl From<IoFault> for io::Error {
    fn from(fault: IoFault) -> Self {
        match fault.number {
            Some(number) => Self::from_raw_os_error(number),
            None => {
                let kind = fault.kind.and_then(|kind| KINDS.get(kind)).copied().unwrap_or(io::ErrorKind::Other);
                Self::new(kind, fault.text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_the_same_on_the_other_side() {
        let id = ContainerId("a".repeat(64));
        let state = RuntimeError::WrongState { id: id.clone(), state: "running", problem: "x".into() };
        for error in [
            RuntimeError::NotFound(id),
            state,
            RuntimeError::InvalidImage("i".into()),
            RuntimeError::InvalidSpec("s".into()),
            RuntimeError::Unsupported("u".into()),
            RuntimeError::Failed("f".into()),
        ] {
            let text = format!("{error:?}");
            assert_eq!(format!("{:?}", RuntimeError::from(Fault::from(error))), text);
        }
        let denied = io::Error::new(io::ErrorKind::PermissionDenied, "no");
        let told = io::Error::from(IoFault::from(denied));
        assert_eq!((told.kind(), told.to_string().as_str()), (io::ErrorKind::PermissionDenied, "no"));
        let refused = io::Error::from(IoFault::from(io::Error::from_raw_os_error(111)));
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
