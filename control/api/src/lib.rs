//! The vocabulary of the Kubernetes API, without I/O: what the server, the store and the controllers share.
//!
//! Objects at the edge are untyped trees (`serde_json::Value`) that are checked against tables of facts while they
//! are parsed. Everything that is the same for all kinds reads those tables; what is special to a kind is a strategy:
//! its defaults, its validation and its table columns.
//!
//! ```text
//! bytes --decode--> Value --default, validate--> Value --encode--> bytes without resourceVersion
//!                     ^ patch (json, merge, strategic)
//! resource: one row a resource; discovery and openapi are written from the rows
//! ```

pub mod apply;
pub mod certificates;
pub mod columns;
pub mod convert;
pub mod cron;
pub mod decode;
pub(crate) mod defaults;
pub mod discovery;
pub mod encode;
pub mod exposition;
pub mod facts;
pub mod field;
#[cfg(test)]
mod golden;
pub mod meta;
pub mod mirror;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod resource;
pub mod runtime_class;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod validation;
