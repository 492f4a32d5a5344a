//! The API server: the only way to the cluster's state.
mod allocate;
pub mod layers;
mod negotiate;
mod nodes;
mod options;
pub mod pki;
mod respond;
mod serving;
mod user;

pub use nodes::{AsyncReadWrite, ConnectError, NoNodes, NodeConnector};
pub use user::User;
