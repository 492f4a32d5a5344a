//! Two upgraded connections, joined: what comes in by one goes out by the other.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONNECTION, UPGRADE};
use http::{Extensions, HeaderMap, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use wherry_api::status::Status;

use crate::engine::{Call, Engine};
use crate::serving::Peer;

/// What is passed on at once.
const CHUNK: usize = 32 << 10;
/// How long a client may take to close its end after the agent has.
const LINGER: Duration = Duration::from_secs(5);

/// The client's connection, once it is told that it is upgraded; and what is held until it ends.
#[derive(Clone)]
pub(crate) struct Upgrade {
    pub(crate) connection: OnUpgrade,
    pub(crate) held: Option<Arc<dyn Any + Send + Sync>>,
}

/// The client's side of what is relayed.
pub(crate) struct Client {
    /// None where its connection cannot be taken over.
    pub(crate) upgrade: Option<Upgrade>,
    /// Fires when the server of its connection ends.
    pub(crate) closing: CancellationToken,
}

impl Client {
    pub(crate) fn of(call: &Call) -> Self {
        Self { upgrade: call.upgrade.clone(), closing: call.closing.clone().unwrap_or_default() }
    }
}

impl From<&Extensions> for Client {
    fn from(extensions: &Extensions) -> Self {
        let peer = extensions.get::<Peer>();
        let held = peer.and_then(|peer| peer.held.clone());
        let upgrade = extensions.get::<OnUpgrade>().cloned().map(|connection| Upgrade { connection, held });
        Self { upgrade, closing: peer.map(|peer| peer.closing.clone()).unwrap_or_default() }
    }
}

/// What lasts as long as a session, as an extension of the answer that begins it. Layers put in what they would else keep
/// with the answer's body.
#[derive(Clone, Default)]
pub(crate) struct Session(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

impl Session {
    pub(crate) fn hold(&self, what: impl Any + Send) {
        self.0.lock().push(Box::new(what));
    }
}

/// Whether the client asks for another protocol.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    options.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// Answers as `answer`, which switches protocols, and joins the client with whoever sent it until either of them ends.
pub(crate) fn join<B>(engine: &Engine, client: Client, mut answer: http::Response<B>) -> Result<Response, Status> {
    let Client { upgrade, closing } = client;
    let upgrade = upgrade.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let agent = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    response.headers_mut().entry(CONNECTION).or_insert_with(|| UPGRADE.into());
    let session = Session::default();
    response.extensions_mut().insert(session.clone());
    engine.tasks.spawn(async move {
        let passed = async {
            let (client, agent) = tokio::try_join!(upgrade.connection, agent).map_err(io::Error::other)?;
            pass(TokioIo::new(client), TokioIo::new(agent)).await
        };
        if let Some(Err(error)) = closing.run_until_cancelled(passed).await {
            tracing::debug!(%error, "a session ended");
        }
        drop((session, upgrade.held));
    });
    Ok(response)
}

/// Passes bytes until either end closes.
async fn pass(client: impl AsyncRead + AsyncWrite, agent: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_agent, mut to_agent) = tokio::io::split(agent);
    tokio::select! {
        // The client has gone: so does the agent's connection, with all that hangs on it.
        up = take(&mut from_client, &mut to_agent) => return up,
        down = copy(&mut from_agent, &mut to_client) => down?,
    }
    to_client.shutdown().await?;
    // What the client still sends must be taken, or the last words to it might be lost.
    let mut nowhere = tokio::io::sink();
    let rest = tokio::io::copy(&mut from_client, &mut nowhere);
    let _closed = tokio::time::timeout(LINGER, rest).await;
    Ok(())
}

/// Passes on what the client sends until it goes. An agent that has gone gets no more, but its last words may still be on
/// their way to the client.
async fn take(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut heard = true;
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        heard = heard && to.write_all(&buffer[..length]).await.is_ok() && to.flush().await.is_ok();
    }
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).await?,
        }
        to.flush().await?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn the_last_words_arrive_although_the_client_still_talks() {
        let (client, mut theirs) = duplex(16);
        let (agent, mut far) = duplex(16);
        let passed = tokio::spawn(pass(client, agent));
        theirs.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.unwrap();
        far.write_all(b"bye").await.unwrap();
        drop(far);
        let mut last = String::new();
        let (mut read, mut write) = tokio::io::split(theirs);
        let talk = async {
            write.write_all(&[7; 1000]).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(talk, read.read_to_string(&mut last));
        assert_eq!((read.unwrap(), last.as_str()), (3, "bye"));
        passed.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_agent_is_left_when_the_client_goes() {
        let (client, theirs) = duplex(16);
        let (agent, mut far) = duplex(16);
        let passed = tokio::spawn(pass(client, agent));
        drop(theirs);
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(far.write_all(&[0; 64]).await.is_err());
        passed.await.unwrap().unwrap();
    }
}
