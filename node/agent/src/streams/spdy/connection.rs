//! One connection: what comes in goes to its streams, what the streams write goes out.

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::sync::{mpsc, oneshot};

use super::frame::{self, Decoder, Encoder, Frame, Reset};
use super::headers::Headers;
use crate::streams::pipe::{Budget, CHUNK, Feeder, Inlet, Out, Outlet};
use crate::streams::{PULSE, linger};

/// Streams at a time: two for each forwarded connection.
const STREAMS: usize = 2048;
/// The name of the pings that are sent: even ones are a server's.
const PULSE_ID: u32 = 2;

/// A stream that the client has opened.
pub(in crate::streams) struct Stream {
    pub(in crate::streams) id: u32,
    pub(in crate::streams) headers: Headers,
    /// What the client sends.
    pub(in crate::streams) inlet: Inlet,
    /// What it is sent.
    pub(in crate::streams) outlet: Outlet,
    /// Done when the client has given the stream up, or the connection has ended.
    pub(in crate::streams) reset: oneshot::Receiver<()>,
}

/// A stream as the connection knows it.
struct Known {
    /// None once the client has sent all.
    feeder: Option<Feeder>,
    reset: oneshot::Sender<()>,
}

/// Serves a connection until the client has gone, or until everyone who sends has and all is sent. Every stream that the client
/// opens goes to `accept`; once nobody accepts any more, streams are refused.
pub(in crate::streams) async fn serve<S: AsyncRead + AsyncWrite>(
    io: S,
    accept: mpsc::Sender<Stream>,
    queue: (mpsc::WeakSender<Out>, mpsc::Receiver<Out>),
) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(io);
    let (weak, receiver) = queue;
    let incoming = Incoming {
        streams: HashMap::new(),
        newest: 0,
        decoder: Decoder::new(),
        encoder: Encoder::default(),
        budget: Budget::new(),
        accept,
        queue: weak,
    };
    tokio::select! {
        read = incoming.run(&mut read) => {
            if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
                write.write_all(&frame::goaway(0, true)).await?;
                write.flush().await?;
            }
            return read;
        }
        sent = send(&mut write, receiver) => sent?,
    }
    write.shutdown().await?;
    linger(async {
        // Nobody is left who could use it.
        let _rest = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
    })
    .await;
    Ok(())
}

struct Incoming {
    streams: HashMap<u32, Known>,
    newest: u32,
    decoder: Decoder,
    encoder: Encoder,
    budget: Budget,
    accept: mpsc::Sender<Stream>,
    /// Weak: the connection itself is nobody who has something to send.
    queue: mpsc::WeakSender<Out>,
}

impl Incoming {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut input = BytesMut::new();
        loop {
            loop {
                match self.decoder.next(&mut input) {
                    Ok(Some(frame)) => self.take(frame).await,
                    Ok(None) => break,
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                }
            }
            input.reserve(CHUNK);
            if read.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Open { stream, headers, last } => self.open(stream, headers, last).await,
            Frame::Data { stream, bytes, last } => {
                let Some(known) = self.streams.get_mut(&stream) else { return };
                if let Some(feeder) = &known.feeder {
                    feeder.feed(bytes).await;
                }
                if last {
                    known.feeder = None;
                }
            }
            Frame::Reset { stream } => {
                if let Some(known) = self.streams.remove(&stream) {
                    // Whoever had it may have gone.
                    let _gone = known.reset.send(());
                }
            }
            // Even ones would be answers, and nothing was asked.
            Frame::Ping { id } if !id.is_multiple_of(2) => self.send(frame::ping(id)).await,
            Frame::Ping { .. } | Frame::Other => {}
        }
    }

    async fn open(&mut self, id: u32, headers: Headers, last: bool) {
        if id.is_multiple_of(2) || id <= self.newest {
            return self.send(frame::reset(id, Reset::Protocol)).await;
        }
        self.newest = id;
        if self.streams.len() >= STREAMS {
            self.streams.retain(|_, known| !known.reset.is_closed());
        }
        let Some(queue) = self.queue.upgrade().filter(|_| self.streams.len() < STREAMS) else {
            return self.send(frame::reset(id, Reset::Refused)).await;
        };
        let reply = self.encoder.reply(id);
        self.send(reply).await;
        let (feeder, inlet) = self.budget.pipe();
        let (reset, was_reset) = oneshot::channel();
        let stream = Stream { id, headers, inlet, outlet: Outlet::new(&queue, id), reset: was_reset };
        drop(queue);
        if self.accept.send(stream).await.is_err() {
            return self.send(frame::reset(id, Reset::Cancel)).await;
        }
        self.streams.insert(id, Known { feeder: (!last).then_some(feeder), reset });
    }

    async fn send(&self, frame: Bytes) {
        if let Some(queue) = self.queue.upgrade() {
            // An error is a connection that is at its end.
            let _ended = queue.send(Out::Frame(frame)).await;
        }
    }
}

/// Sends what is queued until nobody can queue more.
async fn send(write: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Out>) -> io::Result<()> {
    let mut write = BufWriter::with_capacity(2 * CHUNK, write);
    loop {
        let out = match queue.try_recv() {
            Ok(out) => out,
            Err(_) => {
                write.flush().await?;
                match tokio::time::timeout(PULSE, queue.recv()).await {
                    Ok(Some(out)) => out,
                    Ok(None) => return Ok(()),
                    Err(_) => Out::Frame(frame::ping(PULSE_ID)),
                }
            }
        };
        match out {
            Out::Data(stream, bytes) => {
                write.write_all(&frame::data(stream, bytes.len(), false)).await?;
                write.write_all(&bytes).await?;
            }
            Out::End(stream) => write.write_all(&frame::data(stream, 0, true)).await?,
            Out::Frame(bytes) => write.write_all(&bytes).await?,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::streams::pipe::queue;

    /// The client's end, and the streams that the server takes.
    struct Client {
        io: DuplexStream,
        encoder: Encoder,
        decoder: Decoder,
        input: BytesMut,
        streams: mpsc::Receiver<Stream>,
        sender: mpsc::Sender<Out>,
        served: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl Client {
        fn new() -> Self {
            let (io, theirs) = duplex(1 << 20);
            let (sender, receiver) = queue();
            let (accept, streams) = mpsc::channel(1);
            let served = tokio::spawn(serve(theirs, accept, (sender.downgrade(), receiver)));
            let (encoder, decoder, input) = (Encoder::default(), Decoder::new(), BytesMut::new());
            Self { io, encoder, decoder, input, streams, sender, served }
        }

        async fn say(&mut self, wire: &[u8]) {
            self.io.write_all(wire).await.unwrap();
        }

        async fn open(&mut self, id: u32, last: bool) {
            let wire = self.encoder.open(id, &[("streamtype", "data")], last);
            self.say(&wire).await;
        }

        async fn hear(&mut self) -> Option<Frame> {
            loop {
                if let Some(frame) = self.decoder.next(&mut self.input).unwrap() {
                    return Some(frame);
                }
                if self.io.read_buf(&mut self.input).await.unwrap() == 0 {
                    return None;
                }
            }
        }
    }

    fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
        [&frame::data(stream, bytes.len(), last)[..], bytes].concat()
    }

    #[tokio::test]
    async fn a_stream_goes_both_ways_and_each_way_ends_alone() {
        let mut client = Client::new();
        client.open(1, false).await;
        let mut stream = client.streams.recv().await.unwrap();
        assert_eq!((stream.id, stream.headers.get("streamtype")), (1, Some("data")));
        assert_eq!(client.hear().await, Some(Frame::Other), "the reply");
        client.say(&data(1, b"ping", true)).await;
        let mut heard = String::new();
        stream.inlet.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "ping");
        stream.outlet.write_all(b"pong").await.unwrap();
        stream.outlet.shutdown().await.unwrap();
        let pong = Frame::Data { stream: 1, bytes: Bytes::from_static(b"pong"), last: false };
        assert_eq!(client.hear().await, Some(pong));
        assert_eq!(client.hear().await, Some(Frame::Data { stream: 1, bytes: Bytes::new(), last: true }));
        // When nobody has anything to say any more, the connection ends.
        drop(stream);
        let Client { sender, served, .. } = client;
        drop(sender);
        drop(client.io);
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_a_client_may_not_open_is_refused() {
        let mut client = Client::new();
        client.open(2, false).await;
        assert_eq!(client.hear().await, Some(Frame::Reset { stream: 2 }), "servers' numbers are even");
        client.open(5, true).await;
        assert_eq!(client.hear().await, Some(Frame::Other));
        client.open(3, false).await;
        assert_eq!(client.hear().await, Some(Frame::Reset { stream: 3 }), "numbers go up");
        client.say(&frame::ping(7)).await;
        client.say(&frame::ping(8)).await;
        client.say(&frame::ping(9)).await;
        assert_eq!(client.hear().await, Some(Frame::Ping { id: 7 }));
        assert_eq!(client.hear().await, Some(Frame::Ping { id: 9 }));
        client.say(&[0x80, 2, 0, 1, 0, 0, 0, 0]).await;
        assert_eq!(client.hear().await, Some(Frame::Other), "the connection is given up");
        assert_eq!(client.hear().await, None);
        assert_eq!(client.served.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_reset_is_heard_after_the_client_has_said_all() {
        let mut client = Client::new();
        client.open(1, true).await;
        let mut stream = client.streams.recv().await.unwrap();
        assert_eq!(stream.inlet.read(&mut [0]).await.unwrap(), 0);
        client.say(&frame::reset(1, Reset::Cancel)).await;
        stream.reset.await.unwrap();
        // For what has gone, nothing is kept.
        client.say(&data(1, b"late", true)).await;
        client.say(&frame::ping(1)).await;
        assert_eq!(client.hear().await, Some(Frame::Other));
        assert_eq!(client.hear().await, Some(Frame::Ping { id: 1 }));
    }
}
