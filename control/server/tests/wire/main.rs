//! The server as clients meet it: TLS on a real socket, certificates, HTTP/1.1 and HTTP/2, kubectl.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(missing_docs, reason = "tests")]

mod harness;
mod kubectl;
mod logs;
mod tls;
mod tokens;
