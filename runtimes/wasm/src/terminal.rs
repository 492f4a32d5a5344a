//! A terminal for a guest: the kernel's own, so that echo, line editing, `^D` and line ends are what they are for a container.
//!
//! WASI knows of a terminal only whether there is one: a guest cannot switch to single characters or ask for its size. Nor
//! has it signals: `^C` ends its run with 130, as it ends a process with the default action.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::sync::CancellationToken;
use wherry_runtime::{Input, Output, Stream, TerminalSize};

/// How much is read at one time.
const CHUNK: usize = 16 << 10;
/// `^C`.
const INTERRUPT: u8 = 3;

/// Our end of a terminal.
pub(crate) struct Terminal {
    master: End<PtyMaster>,
    interrupted: CancellationToken,
}

impl Terminal {
    /// A new one, and the guest's end of it. To be called on the guests' threads.
    pub(crate) fn open() -> io::Result<(Arc<Self>, End<File>)> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags((OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
            .open(ptsname_r(&master)?)?;
        let terminal = Self { master: End::new(master)?, interrupted: CancellationToken::new() };
        Ok((Arc::new(terminal), End::new(slave)?))
    }

    /// Takes on a new size. A guest is not told of it.
    pub(crate) fn resize(&self, size: TerminalSize) {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = tcsetwinsize(self.master.0.get_ref().as_fd(), size) {
            tracing::debug!(%error, "a terminal can't be resized");
        }
    }

    /// Types all that `input` has.
    pub(crate) async fn type_in(&self, mut input: Input) -> io::Result<()> {
        let (mut master, mut buffer) = (self.master.clone(), BytesMut::with_capacity(CHUNK));
        while input.read_buf(&mut buffer).await? > 0 {
            if buffer.contains(&INTERRUPT) {
                self.interrupted.cancel();
            }
            master.write_all(&buffer).await?;
            buffer.clear();
        }
        Ok(())
    }

    /// Resolves when `^C` was typed.
    pub(crate) async fn interrupted(&self) {
        self.interrupted.cancelled().await;
    }

    /// Hands over what it shows until the guest's end is closed.
    pub(crate) async fn show(&self, output: &dyn Output) {
        let (mut master, mut buffer) = (self.master.clone(), BytesMut::new());
        loop {
            buffer.reserve(CHUNK);
            match master.read_buf(&mut buffer).await {
                // Linux answers EIO when nobody has the other end open.
                Ok(0) | Err(_) => return,
                Ok(_) => output.write(Stream::Stdout, buffer.split().freeze()).await,
            }
        }
    }
}

/// One end of a terminal; clones share it.
pub(crate) struct End<T: AsRawFd>(Arc<AsyncFd<T>>);

impl<T: AsRawFd> Clone for End<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: AsRawFd> End<T> {
    fn new(file: T) -> io::Result<Self> {
        #[allow(unsafe_code, reason = "waiting for a descriptor that its owner keeps open")]
        // SAFETY: both kinds of `file` own their descriptor, which stays open and the same until they are dropped, by `AsyncFd`.
        let registered = unsafe { AsyncFd::register(file) };
        Ok(Self(Arc::new(registered.map_err(io::Error::from)?)))
    }
}

#[async_trait::async_trait]
impl Output for End<File> {
    async fn write(&self, _: Stream, bytes: bytes::Bytes) {
        // Our own end is open as long as anybody writes to this one.
        let _gone = self.clone().write_all(&bytes).await;
    }
}

impl<T: AsRawFd> AsyncRead for End<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match ready.try_io(|file| file.get_ref().read(into.initialize_unfilled())) {
                Ok(read) => {
                    into.advance(read?);
                    return Poll::Ready(Ok(()));
                }
                Err(_not_ready) => {}
            }
        }
    }
}

impl<T: AsRawFd> AsyncWrite for End<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|file| file.get_ref().write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use wherry_runtime::conformance::Captured;

    use super::*;

    #[tokio::test]
    async fn lines_are_edited_echoed_and_ended_as_terminals_do() {
        let (terminal, mut guest) = Terminal::open().unwrap();
        terminal.resize(TerminalSize { width: 80, height: 24 });
        let typed: Input = Box::new(&b"helo\x7flo\r\x04"[..]);
        terminal.type_in(typed).await.unwrap();
        let mut read = String::new();
        guest.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello\n", "what the guest reads");
        let shown = Captured::new();
        Output::write(&guest, Stream::Stdout, bytes::Bytes::from_static(b"out\n")).await;
        drop(guest);
        terminal.show(shown.as_ref()).await;
        assert_eq!(shown.stdout(), "helo\x08 \x08lo\r\nout\r\n");
    }

    #[tokio::test]
    async fn an_interrupt_is_heard() {
        let (terminal, _guest) = Terminal::open().unwrap();
        terminal.type_in(Box::new(&b"x\x03"[..])).await.unwrap();
        terminal.interrupted().await;
    }
}
