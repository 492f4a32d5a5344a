//! The agent's HTTP API without a socket: for an API server in the same process.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::DuplexStream;

/// Bytes on the way in each direction.
const BUFFER: usize = 64 << 10;

/// Opens connections to one agent.
#[derive(Clone, Debug)]
pub struct Connector(pub(crate) Router);

impl Connector {
    /// A new connection, served by a task of its own until either end closes. Whoever holds a connector is trusted.
    #[must_use]
    pub fn open(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let service = TowerToHyperService::new(self.0.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // An error is a client that went away.
            if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(ours), service).await {
                tracing::debug!(error, "an agent's connection ended");
            }
        });
        theirs
    }
}
