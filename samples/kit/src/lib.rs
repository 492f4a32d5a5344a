//! A plain request and reply, so that an application can be a function from one to the other.

pub mod redis;
#[cfg(target_family = "wasm")]
pub mod wasi;

/// What a client asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Without the query.
    pub path: String,
    /// After the question mark; empty where there is none.
    pub query: String,
    /// At most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
}

/// A longer body is cut.
pub const MAX_BODY: usize = 64 << 10;

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// `text/plain`.
    pub body: String,
}

impl Reply {
    /// A reply with a text.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into() }
    }
}

impl Request {
    /// A request line's target, split.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), body: Vec::new() }
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}
