//! Word of changes in a directory, from the kernel.

use std::io;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// A watch of one directory.
pub(super) struct Watch(
    /// No pipe, but read as one.
    Receiver,
);

impl Watch {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // A file that is written counts once its writer has closed it; a link is whole at once.
        let changes = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, dir, changes)?;
        Receiver::from_owned_fd_unchecked(inotify).map(Self)
    }

    /// Waits until something has changed, whatever it was. Cancel-safe: what was not told yet is told by the next call.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let mut events = [0; 4096];
        let mut changed = false;
        loop {
            match self.0.try_read(&mut events) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => changed = true,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if changed => return Ok(()),
                Err(_) => self.0.readable().await?,
            }
        }
    }
}
