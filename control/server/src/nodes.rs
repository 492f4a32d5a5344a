//! The way from the API server to a node's agent.
//!
//! `pods/log`, exec, attach, port-forward and the proxies need a byte stream to the agent of the Pod's
//! node; how that stream comes about (in process, TCP with TLS, a tunnel) is not the server's business.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream that carries HTTP/1.1 to an agent.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No agent of this name is known.
    #[error("no agent of node {0:?} is connected")]
    Unknown(String),
    /// The agent did not answer.
    #[error("dial node {node:?}: {source}")]
    Dial {
        /// The node's name.
        node: String,
        /// What the dial said.
        source: std::io::Error,
    },
}

/// Opens streams to the agents' HTTP servers.
#[async_trait]
pub trait NodeConnector: Send + Sync + 'static {
    /// A fresh stream to the agent of `node`.
    async fn connect(&self, node: &str) -> Result<Box<dyn AsyncReadWrite>, ConnectError>;
}

/// A cluster without reachable agents: every connection fails with [`ConnectError::Unknown`].
#[derive(Debug, Default)]
pub struct NoNodes;

#[async_trait]
impl NodeConnector for NoNodes {
    async fn connect(&self, node: &str) -> Result<Box<dyn AsyncReadWrite>, ConnectError> {
        Err(ConnectError::Unknown(node.to_owned()))
    }
}
