//! Requests by threads: at a steady rate, or one address after the other. For what wrk does not do.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};

use crate::inside::CONNECTIONS;

const SILENCE: Duration = Duration::from_secs(10);

/// An HTTP/1.1 connection that is kept.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Self { address, stream: BufReader::new(stream) })
    }

    /// `GET path`; how many bytes the body of the answer, a 200, has.
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<usize> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        ensure!(status.split_whitespace().nth(1) == Some("200"), "{}: {status}", self.address);
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                Some(("content-length", value)) => length = Some(value.trim().parse()?),
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
                None => break,
            }
        }
        if !chunked {
            return self.skip(length.context("an answer without a length")?);
        }
        let mut whole = 0;
        loop {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            whole += self.skip(size)?;
            self.line()?;
            if size == 0 {
                return Ok(whole);
            }
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "{} closed the connection", self.address);
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn skip(&mut self, bytes: usize) -> anyhow::Result<usize> {
        let read = io::copy(&mut self.stream.by_ref().take(bytes as u64), &mut io::sink())?;
        ensure!(read == bytes as u64, "{} closed the connection", self.address);
        Ok(bytes)
    }
}

/// As many requests a second, over kept connections, whatever the server does: how long each took from when it was due.
pub(crate) fn steady(address: SocketAddr, path: &str, rate: f64, length: Duration) -> anyhow::Result<Vec<Duration>> {
    let period = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate.max(1.0));
    let begun = Instant::now();
    each_thread(|number| {
        let mut connection = Connection::open(address)?;
        let mut times = Vec::new();
        let mut due = begun + period * number / CONNECTIONS;
        while due < begun + length {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // The sleep's own lateness is not the server's; a late answer to the one before is.
            let from = if times.last().is_some_and(|last| *last > period) { due } else { Instant::now() };
            connection.get(path)?;
            times.push(from.elapsed());
            due += period;
        }
        Ok(times)
    })
}

/// Asks one address after the other, each by a new connection, so many times in all; how long each answer took, and all.
pub(crate) fn in_turn(addresses: &[SocketAddr], requests: usize) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let times = each_thread(|_| {
        let mut times = Vec::new();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= requests {
                return Ok(times);
            }
            let asked = Instant::now();
            let address = addresses.get(turn % addresses.len().max(1)).context("nobody to ask")?;
            Connection::open(*address)?.get("/")?;
            times.push(asked.elapsed());
        }
    })?;
    Ok((times, begun.elapsed()))
}

/// Asks each address once, one after the other, by a new connection.
pub(crate) fn one_by_one(addresses: &[SocketAddr]) -> anyhow::Result<Vec<Duration>> {
    let ask = |address: &SocketAddr| {
        let asked = Instant::now();
        Connection::open(*address)?.get("/")?;
        Ok(asked.elapsed())
    };
    addresses.iter().map(ask).collect()
}

/// Does the same on as many threads as there are connections, in the network of the calling one.
fn each_thread(work: impl Fn(u32) -> anyhow::Result<Vec<Duration>> + Sync) -> anyhow::Result<Vec<Duration>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(move || work(number))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_of_known_length_and_in_chunks_are_read_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
                "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
            ] {
                assert!(requests.by_ref().any(|line| line.is_empty()));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut connection = Connection::open(address).unwrap();
        assert_eq!((connection.get("/").unwrap(), connection.get("/").unwrap()), (5, 5));
        assert!(connection.get("/").unwrap_err().to_string().contains("503"));
        server.join().unwrap();
    }
}
