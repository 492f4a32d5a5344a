//! port-forward: connections to ports of a Pod, many on one transport.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::channels::PORTS;
use super::handshake::{Offer, Refusal, Transport, asks_to_upgrade, switch};
use super::pipe::{Budget, Inlet, Out, Outlet, queue};
use super::target::{self, Pod};
use super::websocket::{self, Tunnel};
use super::{Context, accompany, spdy};

const OFFER: Offer = Offer { channels: PORTS, tunnel: &["SPDY/3.1+portforward.k8s.io"], spdy: &["portforward.k8s.io"] };
/// How long a connection's second stream may take to come.
const PAIRING: Duration = Duration::from_secs(30);
/// Connections that wait for their second stream.
const WAITING: usize = 1024;
/// Ports that a WebSocket's channels can carry.
const CHANNELS: usize = 100;

/// Forwards whatever ports the client asks for.
pub(super) async fn ports(
    State(context): State<Context>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let pod = match target::dialled(&context.view, &namespace, &pod) {
        Ok(pod) => pod,
        Err(refusal) => return refusal.into_response(),
    };
    let asked = asked(query.as_deref().unwrap_or_default());
    let agreed = match OFFER.agree(request).await {
        Ok(agreed) => agreed,
        Err(refusal) => return refusal.into_response(),
    };
    let ports = match (&agreed, asked) {
        (super::handshake::Agreed::Channels(..), Err(problem)) => {
            return (StatusCode::BAD_REQUEST, problem).into_response();
        }
        (_, asked) => asked.unwrap_or_default(),
    };
    agreed.begin(&context.sessions, move |transport| async move {
        match transport {
            Transport::Channels(socket, protocol) => {
                let (sender, receiver) = queue();
                let budget = Budget::new();
                let (mut feeders, mut connections) = (Vec::new(), JoinSet::new());
                for (port, channel) in ports.into_iter().zip((0..).step_by(2)) {
                    let (feeder, inlet) = budget.pipe();
                    feeders.extend([Some(feeder), None]);
                    let (data, mut error) = (Outlet::new(&sender, channel), Outlet::new(&sender, channel + 1));
                    let (pod, sender) = (pod.clone(), sender.clone());
                    connections.spawn(async move {
                        // The first bytes of both say which port they are of.
                        let name = Bytes::copy_from_slice(&port.to_le_bytes());
                        for channel in [channel, channel + 1] {
                            let _gone = sender.send(Out::Data(channel, name.clone())).await;
                        }
                        forward(&pod, port, inlet, data, &mut error).await;
                        let _gone = error.shutdown().await;
                    });
                }
                drop(sender);
                let connection = websocket::serve(socket, protocol, feeders, receiver);
                accompany(connection, async move { while connections.join_next().await.is_some() {} }).await
            }
            Transport::Tunnel(socket) => over_spdy(Tunnel::new(socket), pod).await,
            Transport::Spdy(io, _) => over_spdy(io, pod).await,
        }
    })
}

/// The ports of a query: those of channels have to be known beforehand.
fn asked(query: &str) -> Result<Vec<u16>, String> {
    let values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "port");
    let ports: Vec<u16> = values
        .flat_map(|(_, value)| value.split(',').map(str::to_owned).collect::<Vec<_>>())
        .map(|text| parse(&text))
        .collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err("query parameter \"port\" is required".to_owned()),
        1..=CHANNELS => Ok(ports),
        _ => Err(format!("at most {CHANNELS} ports can be forwarded")),
    }
}

fn parse(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("unable to parse {text:?} as a port")),
    }
}

/// The first stream of a connection, while the second one is awaited.
struct Half {
    stream: spdy::Stream,
    since: Instant,
}

async fn over_spdy(io: impl AsyncRead + AsyncWrite, pod: Pod) -> io::Result<()> {
    let (sender, receiver) = queue();
    let (accept, mut streams) = mpsc::channel(1);
    let connection = spdy::serve(io, accept, (sender.downgrade(), receiver));
    let work = async move {
        // Held for as long as the client may open more.
        let _sender = sender;
        let (mut halves, mut connections) = (HashMap::<String, Half>::new(), JoinSet::new());
        loop {
            let stream: Option<spdy::Stream> = tokio::select! {
                stream = streams.recv() => stream,
                Some(_) = connections.join_next() => continue,
            };
            let Some(mut stream) = stream else { return };
            // One that never came takes the other with it.
            halves.retain(|_, half| half.since.elapsed() < PAIRING);
            let request = match place(&stream) {
                Ok(request) => request,
                Err(problem) => {
                    let _gone = stream.outlet.write_all(problem.as_bytes()).await;
                    let _gone = stream.outlet.shutdown().await;
                    continue;
                }
            };
            match halves.remove(&request) {
                Some(half) if half.stream.headers.get("streamtype") != stream.headers.get("streamtype") => {
                    connections.spawn(pair(pod.clone(), half.stream, stream));
                }
                _ if halves.len() < WAITING => {
                    halves.insert(request, Half { stream, since: Instant::now() });
                }
                _ => {}
            }
        }
    };
    accompany(connection, work).await
}

/// By what a stream is known as one of a connection's two.
fn place(stream: &spdy::Stream) -> Result<String, String> {
    let headers = &stream.headers;
    let port = headers.get("port").unwrap_or_default();
    if port.is_empty() {
        return Err("\"port\" header is required".to_owned());
    }
    parse(port)?;
    let number = match headers.get("streamtype").unwrap_or_default() {
        "" => return Err("\"streamType\" header is required".to_owned()),
        // Clients of old name no request: their streams come in twos, the error's first.
        "error" => stream.id,
        "data" => stream.id.wrapping_sub(2),
        other => return Err(format!("invalid stream type {other:?}")),
    };
    Ok(headers.get("requestid").filter(|id| !id.is_empty()).map_or_else(|| number.to_string(), str::to_owned))
}

async fn pair(pod: Pod, one: spdy::Stream, other: spdy::Stream) {
    let (data, mut error) = if one.headers.get("streamtype") == Some("data") { (one, other) } else { (other, one) };
    let port = data.headers.get("port").and_then(|port| port.parse().ok()).unwrap_or_default();
    tokio::select! {
        () = forward(&pod, port, data.inlet, data.outlet, &mut error.outlet) => {}
        // Given up by the client: the connection is closed, whatever it has left to say.
        () = given_up(data.reset) => {}
    }
    // kubectl closes its own connection only when it has read the stream of errors to its end.
    let _gone = error.outlet.shutdown().await;
}

async fn given_up(reset: oneshot::Receiver<()>) {
    // An error is a connection's end, which is the same.
    let _either = reset.await;
}

/// Forwards one connection until both ways have ended.
async fn forward(pod: &Pod, port: u16, mut inlet: Inlet, mut data: Outlet, error: &mut Outlet) {
    let failed = match pod.forward(port).await {
        Ok(stream) => splice(stream, &mut inlet, &mut data).await.err().map(|why| pod.failed(port, &why.to_string())),
        Err(message) => Some(message),
    };
    if let Some(message) = failed {
        let _gone = error.write_all(message.as_bytes()).await;
    }
    let _gone = data.shutdown().await;
}

async fn splice(mut stream: TcpStream, inlet: &mut Inlet, data: &mut Outlet) -> io::Result<()> {
    let (mut read, mut write) = stream.split();
    let up = async {
        tokio::io::copy(inlet, &mut write).await?;
        write.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut read, data).await?;
        data.shutdown().await
    };
    tokio::try_join!(up, down).map(|_| ())
}

/// One connection to a port, on a connection of its own: for the API server's proxies.
pub(super) async fn dial(
    State(context): State<Context>,
    Path((namespace, pod, port)): Path<(String, String, u16)>,
    mut request: Request,
) -> Response {
    const PLAIN: &str = "tcp";
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks_to_upgrade(request.headers()));
    let Some(upgrade) = upgrade else {
        return Refusal::upgrade_required().into_response();
    };
    let pod = match target::dialled(&context.view, &namespace, &pod) {
        Ok(pod) => pod,
        Err(refusal) => return refusal.into_response(),
    };
    let mut stream = match pod.dial(port).await {
        Ok(stream) => stream,
        Err(message) => return (StatusCode::BAD_GATEWAY, message).into_response(),
    };
    tokio::spawn(context.sessions.run(async move {
        let mut connection = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
        tokio::io::copy_bidirectional(&mut connection, &mut stream).await.map(|_| ())
    }));
    switch(PLAIN, [])
}
