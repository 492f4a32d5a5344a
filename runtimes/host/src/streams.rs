//! A caller's standard streams, carried into a host and back: a socket pair for each, so that a slow one holds up its own command
//! alone, and the end of one is the end of the other.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use wherry_runtime::{Input, Sink, Streams, TerminalSize};

use crate::wire::{Given, size_bytes, size_of_bytes};

/// How much is read at one time.
const CHUNK: usize = 16 << 10;
/// New sizes that wait for a terminal.
const SIZES: usize = 8;

/// The agent's ends.
pub(crate) struct Relay {
    stdin: Option<(Input, UnixStream)>,
    stdout: Option<(UnixStream, Sink)>,
    stderr: Option<(UnixStream, Sink)>,
    resize: Option<(mpsc::Receiver<TerminalSize>, UnixStream)>,
}

impl Relay {
    /// What is given to the host, and the other ends of it.
    pub(crate) fn new(streams: Streams) -> io::Result<(Self, Given, Vec<OwnedFd>)> {
        let Streams { stdin, stdout, stderr, resize } = streams;
        let given = Given {
            stdin: stdin.is_some(),
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
            resize: resize.is_some(),
        };
        let mut fds = Vec::new();
        let mut open = || -> io::Result<UnixStream> {
            let (ours, theirs) = StdStream::pair()?;
            ours.set_nonblocking(true)?;
            fds.push(OwnedFd::from(theirs));
            UnixStream::from_std(ours)
        };
        let relay = Self {
            stdin: stdin.map(|stdin| open().map(|end| (stdin, end))).transpose()?,
            stdout: stdout.map(|stdout| open().map(|end| (end, stdout))).transpose()?,
            stderr: stderr.map(|stderr| open().map(|end| (end, stderr))).transpose()?,
            resize: resize.map(|resize| open().map(|end| (resize, end))).transpose()?,
        };
        Ok((relay, given, fds))
    }

    /// Carries until `answer` is there and all that was written has been handed over.
    pub(crate) async fn run<T>(self, answer: impl Future<Output = T>) -> T {
        let Self { stdin, stdout, stderr, resize } = self;
        let done = async { tokio::join!(answer, show(stdout), show(stderr)).0 };
        // What is typed ends nothing, and is not waited for.
        let typed = async {
            tokio::join!(type_in(stdin), tell_sizes(resize));
            std::future::pending::<T>().await
        };
        tokio::select! {
            done = done => done,
            never = typed => never,
        }
    }
}

/// One that fails is closed, so that who writes sees it.
async fn show(stream: Option<(UnixStream, Sink)>) {
    let Some((mut from, mut sink)) = stream else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let written = async {
            sink.write_all(&buffer.split()).await?;
            sink.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
    let _gone = sink.shutdown().await;
}

async fn type_in(stream: Option<(Input, UnixStream)>) {
    let Some((mut stdin, mut to)) = stream else { return };
    // Whoever reads may have had enough.
    let _enough = copy(&mut stdin, &mut to).await;
    let _gone = to.shutdown().await;
}

async fn tell_sizes(stream: Option<(mpsc::Receiver<TerminalSize>, UnixStream)>) {
    let Some((mut sizes, mut to)) = stream else { return };
    while let Some(size) = sizes.recv().await {
        if to.write_all(&size_bytes(size)).await.is_err() {
            return;
        }
    }
}

/// The host's ends as streams.
pub(crate) fn received(given: Given, fds: Vec<OwnedFd>) -> io::Result<Streams> {
    let mut fds = fds.into_iter();
    let mut take = |there: bool| -> io::Result<Option<UnixStream>> {
        if !there {
            return Ok(None);
        }
        let fd = fds.next().ok_or_else(|| io::Error::other("a stream is missing"))?;
        let stream = StdStream::from(fd);
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Some)
    };
    let (stdin, stdout) = (take(given.stdin)?, take(given.stdout)?);
    let (stderr, resize) = (take(given.stderr)?, take(given.resize)?);
    Ok(Streams {
        stdin: stdin.map(|stdin| Box::new(stdin) as Input),
        stdout: stdout.map(|stdout| Box::new(stdout) as Sink),
        stderr: stderr.map(|stderr| Box::new(stderr) as Sink),
        resize: resize.map(sizes),
    })
}

fn sizes(mut from: UnixStream) -> mpsc::Receiver<TerminalSize> {
    let (tell, told) = mpsc::channel(SIZES);
    tokio::spawn(async move {
        let mut bytes = [0; 4];
        while from.read_exact(&mut bytes).await.is_ok() {
            if tell.send(size_of_bytes(bytes)).await.is_err() {
                return;
            }
        }
    });
    told
}
