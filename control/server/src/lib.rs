//! The API server: the only way to the cluster's state.
//!
//! ```text
//! connection (TLS, h1/h2) or in-process client
//!   -> layers: rescue -> request info -> authenticate -> audit -> limit -> impersonate -> authorize
//!   -> endpoints (health, version, discovery, OpenAPI) | engine
//!   -> verbs / subresources / reviews: decode -> admit -> prepare -> allocate -> validate -> store
//! ```
//!
//! One generic engine serves all resources from the rows of the registry; what is special to a kind is a
//! [`strategy`](wherry_api::strategy), an admission plugin or a subresource. Reads are the store's bytes as they are; trees
//! are parsed by writes, tables and YAML only.
//!
//! Who may do what is for `rbac` (roles and bindings) and `node_authorizer` (the agents) to say.
//!
//! Guarantees: every failure is a `Status`; a failed request has stored nothing; what a handler does wrong ends
//! its request alone. This crate alone knows axum.

mod admission;
mod agents;
mod aggregate;
mod allocate;
pub mod audit;
mod backends;
mod bootstrap;
mod client;
mod config;
mod documents;
mod endpoints;
mod engine;
mod expiry;
mod follow;
mod frames;
mod history;
mod input;
pub mod layers;
mod metrics;
mod negotiate;
mod node_authorizer;
mod nodes;
mod objects;
mod options;
mod ownership;
mod patience;
pub mod pki;
mod quota;
mod rbac;
mod respond;
mod reviews;
mod server;
mod serving;
mod stream;
mod subresources;
mod tables;
mod times;
mod tokens;
mod usage;
mod user;
mod verbs;

pub use config::{Cluster, Config, describe};
pub use metrics::Extra as ExtraMetrics;
pub use nodes::{AsyncReadWrite, ConnectError, NoNodes, NodeConnector};
pub use server::{Server, ServerError};
pub use serving::Patience;
pub use tokens::{Issuer, KeyError, Keys, StaticTokens, TokenFileError};
pub use user::User;
