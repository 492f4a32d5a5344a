//! The far ends of a container's or a command's standard streams: what connects [`Stdio`] to a log, to callers, to a terminal.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use parking_lot::Mutex as PlainMutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, SimplexStream, WriteHalf, simplex};
use tokio::sync::{Mutex, mpsc};
use wherry_runtime::{Input, Output, RuntimeError, Sink, Stream, TerminalSize};

use crate::stdio::{Readable, Stdio};
use crate::terminal::{End, Terminal};

/// What was typed and not yet read by the guest, at most.
const TYPED: usize = 64 << 10;

/// How a run's streams are connected beyond [`Stdio`].
pub(crate) struct Wiring {
    pub(crate) stdio: Arc<Stdio>,
    terminal: Option<Arc<Terminal>>,
    /// The guest's end of the terminal, until it runs.
    guest: PlainMutex<Option<End<std::fs::File>>>,
    typed: Option<Typed>,
}

/// The writing end of a container's stdin, for all who are attached.
struct Typed {
    once: bool,
    writer: Mutex<Option<WriteHalf<SimplexStream>>>,
}

impl Wiring {
    /// A container's: what it reads is typed by those who attach. To be called on the guests' threads.
    pub(crate) fn of_container(stdin: bool, once: bool, tty: bool) -> Result<Self, RuntimeError> {
        if tty {
            return Self::of_terminal(stdin);
        }
        if !stdin {
            return Ok(Self::plain(Stdio::new()));
        }
        let (reader, writer) = simplex(TYPED);
        let typed = Typed { once, writer: Mutex::new(Some(writer)) };
        Ok(Self { typed: Some(typed), ..Self::plain(Stdio::with(Some(Box::new(reader)), false)) })
    }

    /// A command's: what it reads is its caller's, which is typed where it has a terminal.
    pub(crate) fn of_command(stdin: &mut Option<Input>, tty: bool) -> Result<Self, RuntimeError> {
        if tty {
            return Self::of_terminal(stdin.is_some());
        }
        let stdin = stdin.take().map(|stdin| Box::new(Exclusive(PlainMutex::new(stdin))) as Readable);
        Ok(Self::plain(Stdio::with(stdin, false)))
    }

    fn of_terminal(stdin: bool) -> Result<Self, RuntimeError> {
        let opened =
            Terminal::open().map_err(|error| RuntimeError::Failed(format!("can't open a terminal: {error}")))?;
        let (terminal, guest) = opened;
        let read = stdin.then(|| Box::new(guest.clone()) as Readable);
        let stdio = Stdio::with(read, true);
        Ok(Self { terminal: Some(terminal), guest: PlainMutex::new(Some(guest)), ..Self::plain(stdio) })
    }

    fn plain(stdio: Arc<Stdio>) -> Self {
        Self { stdio, terminal: None, guest: PlainMutex::default(), typed: None }
    }

    /// Whether the two outputs are one.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Has `work` done and hands all it writes to `output`.
    pub(crate) async fn run<T>(&self, output: &dyn Output, work: impl Future<Output = T>) -> T {
        let guest = self.guest.lock().take();
        let work = async {
            let done = work.await;
            self.stdio.close();
            done
        };
        let handed_over = async {
            let (Some(terminal), Some(guest)) = (&self.terminal, guest) else {
                return self.stdio.pump(output).await;
            };
            let written = async {
                self.stdio.pump(&guest).await;
                drop(guest);
            };
            tokio::join!(written, terminal.show(output));
        };
        // A log that panics loses its output; the run still comes to its end.
        let (done, handed_over) = tokio::join!(work, AssertUnwindSafe(handed_over).catch_unwind());
        if handed_over.is_err() {
            tracing::error!("what takes a guest's output panicked");
        }
        done
    }

    /// Resolves when the run was interrupted from its terminal.
    pub(crate) async fn interrupted(&self) {
        match &self.terminal {
            Some(terminal) => terminal.interrupted().await,
            None => std::future::pending().await,
        }
    }

    /// Passes on what a caller types, until it ends. A guest that does not read makes its callers wait.
    pub(crate) async fn type_in(&self, stdin: Option<Input>) {
        let Some(mut stdin) = stdin else { return };
        if let Some(terminal) = &self.terminal {
            let _gone = terminal.type_in(stdin).await;
            return;
        }
        let Some(typed) = &self.typed else { return };
        let mut buffer = BytesMut::with_capacity(4096);
        while let Ok(1..) = stdin.read_buf(&mut buffer).await {
            // Closed by another caller: what is typed now has no reader.
            if let Some(writer) = typed.writer.lock().await.as_mut() {
                let _gone = writer.write_all(&buffer).await;
            }
            buffer.clear();
        }
        if typed.once {
            let writer = typed.writer.lock().await.take();
            if let Some(mut writer) = writer {
                // Dropping this half alone would leave the guest waiting for more.
                let _gone = writer.shutdown().await;
            }
        }
    }

    /// Passes on the terminal's new sizes.
    pub(crate) async fn resize(&self, sizes: Option<mpsc::Receiver<TerminalSize>>) {
        let (Some(terminal), Some(mut sizes)) = (&self.terminal, sizes) else { return };
        while let Some(size) = sizes.recv().await {
            terminal.resize(size);
        }
    }
}

/// A caller's sinks as an output: one that fails loses the rest.
pub(crate) struct Sinks {
    stdout: Mutex<Option<Sink>>,
    stderr: Mutex<Option<Sink>>,
}

impl Sinks {
    pub(crate) fn new(stdout: Option<Sink>, stderr: Option<Sink>) -> Self {
        Self { stdout: Mutex::new(stdout), stderr: Mutex::new(stderr) }
    }

    /// All has been written.
    pub(crate) async fn close(self) {
        for mut sink in [self.stdout.into_inner(), self.stderr.into_inner()].into_iter().flatten() {
            let _gone = sink.shutdown().await;
        }
    }
}

#[async_trait::async_trait]
impl Output for Sinks {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        let place = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        let mut place = place.lock().await;
        let Some(sink) = place.as_mut() else { return };
        let written = async {
            sink.write_all(&bytes).await?;
            sink.flush().await
        };
        if written.await.is_err() {
            *place = None;
        }
    }
}

/// A reader that is shared with nobody, and is therefore safe to be referred to from other threads.
struct Exclusive(PlainMutex<Input>);

impl AsyncRead for Exclusive {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_read(cx, into)
    }
}
