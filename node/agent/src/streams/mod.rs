//! exec, attach and port-forward: from the API server's connection to a container's streams.
//!
//! ```text
//!  handshake ─► websocket: channels │ tunnel ─► spdy      (transports: bytes ◄─► streams by name)
//!     │                 └───► pipe ◄───┘
//!     └─► remote (exec, attach) ─► Runtime      forward ─► PodNetwork
//! ```
//!
//! # Guarantees
//! - A session is one task, and what it holds ends with it: a client that goes ends its command, a forwarded connection is closed.
//! - What either side does not take makes the other one wait. What waits is bounded.
//! - A session ends with the agent.

mod channels;
mod forward;
mod handshake;
mod pipe;
mod remote;
mod spdy;
mod target;
mod websocket;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::shared::View;

/// How often a client that is sent nothing hears that the connection is there: so one that has gone is noticed.
const PULSE: Duration = Duration::from_secs(30);
/// How long a client may take to close its end after the last word.
const LINGER: Duration = Duration::from_secs(5);

/// All sessions of an agent. They end when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    tasks: TaskTracker,
    end: CancellationToken,
}

impl Sessions {
    /// Lets a session run until it or the agent ends.
    fn run(
        &self,
        session: impl Future<Output = io::Result<()>> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let end = self.end.clone();
        self.tasks.track_future(async move {
            if let Some(Err(error)) = end.run_until_cancelled(session).await {
                tracing::debug!(%error, "a session's connection failed");
            }
        })
    }

    /// Ends them, and waits until they have.
    pub(crate) async fn close(&self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

#[derive(Clone)]
struct Context {
    view: Arc<View>,
    sessions: Arc<Sessions>,
}

/// The routes of sessions, by the names that a kubelet has for them.
pub(crate) fn router(view: Arc<View>, sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/exec/{namespace}/{pod}/{container}", get(remote::exec).post(remote::exec))
        .route("/attach/{namespace}/{pod}/{container}", get(remote::attach).post(remote::attach))
        .route("/portForward/{namespace}/{pod}", get(forward::ports).post(forward::ports))
        .route("/dial/{namespace}/{pod}/{port}", get(forward::dial))
        .with_state(Context { view, sessions })
}

/// Waits until the client has closed its end too: what it was sent might be lost if it went first.
async fn linger(closed: impl Future<Output = ()>) {
    // Whoever does not close in time has had the time.
    let _closed = tokio::time::timeout(LINGER, closed).await;
}

/// Runs what is done for a client beside its connection. When the client goes, `work` is dropped; when `work` is done, what
/// was said last is sent.
async fn accompany(connection: impl Future<Output = io::Result<()>>, work: impl Future<Output = ()>) -> io::Result<()> {
    let mut connection = std::pin::pin!(connection);
    {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = work.as_mut() => {}
        }
    }
    connection.await
}
