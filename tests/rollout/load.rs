//! Clients that do not stop asking, and count.
//!
//! A `Fresh` client makes a connection a request, so that each goes through the Service anew. A `Kept` client keeps its connection as long
//! as the server lets it; as every HTTP client does (RFC 9112, 9.3.1), it asks once more on a new one where a kept connection turns
//! out to be closed before a byte of the answer has come.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::netns;

const SILENCE: Duration = Duration::from_secs(20);

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Fresh,
    Kept,
}

/// A client of an address, from inside a namespace or from this machine.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: String,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) connections: Use,
}

#[derive(Default)]
struct Counters {
    stop: AtomicBool,
    fresh: AtomicU64,
    kept: AtomicU64,
    wasm: AtomicU64,
    container: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// Clients at work. Dropping it stops them.
pub(crate) struct Load {
    counters: Arc<Counters>,
    clients: Vec<JoinHandle<()>>,
    started: Instant,
}

/// What was counted.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) fresh: u64,
    pub(crate) kept: u64,
    pub(crate) wasm: u64,
    pub(crate) container: u64,
    pub(crate) failures: Vec<String>,
}

impl Load {
    pub(crate) fn start(clients: Vec<Client>) -> Self {
        let counters = Arc::new(Counters::default());
        let started = Instant::now();
        let clients = clients
            .into_iter()
            .map(|client| {
                let counters = counters.clone();
                std::thread::spawn(move || work(&client, &counters, started))
            })
            .collect();
        Self { counters, clients, started }
    }

    /// Requests answered, each on a connection of its own.
    pub(crate) fn fresh(&self) -> u64 {
        self.counters.fresh.load(Ordering::Relaxed)
    }

    /// Seconds since it began.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    pub(crate) fn stop(mut self) -> Count {
        self.end();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failures = self.counters.failures.lock().map(|failures| failures.clone()).unwrap_or_default();
        let Counters { fresh, kept, wasm, container, .. } = &*self.counters;
        Count { fresh: read(fresh), kept: read(kept), wasm: read(wasm), container: read(container), failures }
    }

    fn end(&mut self) {
        self.counters.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            drop(client.join());
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn work(client: &Client, counters: &Counters, started: Instant) {
    let fail = |text: String| {
        if let Ok(mut failures) = counters.failures.lock() {
            failures.push(format!(
                "{:.3} s, {:?} {}: {text}",
                started.elapsed().as_secs_f64(),
                client.connections,
                client.address
            ));
        }
    };
    if let Some(netns) = &client.netns
        && let Err(error) = netns::enter(netns)
    {
        return fail(format!("{error:#}"));
    }
    let Ok(address) = client.address.parse() else { return fail("not an address".to_owned()) };
    let mut kept = None;
    while !counters.stop.load(Ordering::Relaxed) {
        match ask(address, client.connections, &mut kept) {
            Ok(answer) => {
                let kind = if answer.ends_with(" wasm\n") { &counters.wasm } else { &counters.container };
                kind.fetch_add(1, Ordering::Relaxed);
                let done = if client.connections == Use::Fresh { &counters.fresh } else { &counters.kept };
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => fail(error.to_string()),
        }
    }
}

/// One request; an answer other than echo's own is an error.
fn ask(address: SocketAddr, connections: Use, kept: &mut Option<Connection>) -> io::Result<String> {
    if let Some(connection) = kept {
        match connection.ask(connections) {
            Ok(answer) => return settle(answer, kept),
            Err(Failure::Closed) => *kept = None,
            Err(Failure::Io(error)) => {
                *kept = None;
                return Err(error);
            }
        }
    }
    let mut connection =
        Connection::open(address).map_err(|error| io::Error::new(error.kind(), format!("connect: {error}")))?;
    match connection.ask(connections) {
        Ok(answer) => {
            *kept = Some(connection);
            settle(answer, kept)
        }
        Err(Failure::Closed) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer")),
        Err(Failure::Io(error)) => Err(error),
    }
}

fn settle(answer: Answer, kept: &mut Option<Connection>) -> io::Result<String> {
    if answer.close {
        *kept = None;
    }
    if answer.status != 200 || !(answer.body.ends_with(" wasm\n") || answer.body.ends_with(" container\n")) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} {:?}", answer.status, answer.body)));
    }
    Ok(answer.body)
}

struct Answer {
    status: u16,
    body: String,
    close: bool,
}

enum Failure {
    /// Before a byte of the answer.
    Closed,
    Io(io::Error),
}

struct Connection(BufReader<TcpStream>, SocketAddr);

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Self(BufReader::new(stream), address))
    }

    fn ask(&mut self, connections: Use) -> Result<Answer, Failure> {
        let close = if connections == Use::Fresh { "connection: close\r\n" } else { "" };
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n{close}\r\n", self.1);
        let sent = self.0.get_mut().write_all(request.as_bytes());
        let first = sent.and_then(|()| self.0.fill_buf().map(<[u8]>::is_empty));
        match first {
            Ok(false) => self.answer(connections).map_err(Failure::Io),
            Ok(true) => Err(Failure::Closed),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                Err(Failure::Closed)
            }
            Err(error) => Err(Failure::Io(error)),
        }
    }

    fn answer(&mut self, connections: Use) -> io::Result<Answer> {
        let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let status = self.line()?;
        let status = status.split_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad(&status))?;
        let (mut length, mut chunked, mut close) = (None, false, connections == Use::Fresh);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            let Some((name, value)) = line.split_once(':') else { break };
            match (name, value.trim()) {
                ("content-length", value) => length = value.parse().ok(),
                ("transfer-encoding", "chunked") => chunked = true,
                ("connection", "close") => close = true,
                _ => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let size = u64::from_str_radix(&self.line()?, 16).map_err(|_| bad("chunk"))?;
                io::copy(&mut (&mut self.0).take(size), &mut body)?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else {
            body.resize(length.ok_or_else(|| bad("an answer without a length"))?, 0);
            self.0.read_exact(&mut body)?;
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), close })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
