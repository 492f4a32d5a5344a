//! The real router over the memory store, in process.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(missing_docs, reason = "tests")]

mod accounts;
mod admission;
mod aggregation;
mod apply;
mod audit;
mod bad_input;
mod certificates;
mod connecting;
mod deletes;
mod harness;
mod identity;
mod lists;
mod metrics;
mod nodes;
mod protobuf;
mod quotas;
mod rbac;
mod restart;
mod reviews;
mod rows;
mod services;
mod subresources;
mod tokens;
mod versions;
mod watches;
mod writes;
