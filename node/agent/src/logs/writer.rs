//! The writing end of a log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use wherry_runtime::{Output, Stream};

use super::format::Framer;

/// A file is rotated beyond this size.
pub(super) const MAX_FILE: u64 = 10 * 1024 * 1024;
/// Files of one run, the current one included.
pub(super) const MAX_FILES: u64 = 5;
/// Unwritten bytes at which a container that prints has to wait.
pub(super) const MAX_BUFFER: usize = 256 * 1024;

/// How far a log has been written: followers watch it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes written since it was opened.
    pub(super) written: u64,
    /// The number of the current file; `<path>.<n>` once it is rotated.
    pub(super) sequence: u64,
    /// Nothing more will come.
    pub(super) closed: bool,
}

/// The log of one run of one container.
pub(crate) struct ContainerLog {
    path: PathBuf,
    buffer: Mutex<Buffer>,
    file: Mutex<Current>,
    queued: AtomicBool,
    space: Notify,
    progress: watch::Sender<Progress>,
    writer: mpsc::Sender<Arc<ContainerLog>>,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    stdout: Framer,
    stderr: Framer,
    closing: bool,
}

struct Current {
    file: File,
    size: u64,
}

impl ContainerLog {
    pub(super) fn open(path: &Path, writer: mpsc::Sender<Arc<ContainerLog>>) -> io::Result<Arc<Self>> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        let sequence = segments(path).last().map_or(0, |last| last + 1);
        let progress = watch::Sender::new(Progress { written: 0, sequence, closed: false });
        Ok(Arc::new(Self {
            path: path.to_owned(),
            buffer: Mutex::default(),
            file: Mutex::new(Current { file, size }),
            queued: AtomicBool::new(false),
            space: Notify::new(),
            progress,
            writer,
        }))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Opens the file of this number for reading; the oldest that is left where it is gone. Its number with it.
    pub(super) fn open_at(&self, sequence: u64) -> io::Result<(File, u64)> {
        let _held = self.file.lock();
        let newest = self.progress.borrow().sequence;
        let from = segments(&self.path).into_iter().find(|segment| *segment >= sequence).unwrap_or(newest);
        let path = if from < newest { segment(&self.path, from) } else { self.path.clone() };
        Ok((File::open(path)?, from.min(newest)))
    }

    /// Writes what is left and lets followers end.
    pub(super) async fn close(self: Arc<Self>) {
        {
            let mut buffer = self.buffer.lock();
            let now = Timestamp::now();
            let Buffer { bytes, stdout, stderr, closing } = &mut *buffer;
            stdout.finish(Stream::Stdout, now, bytes);
            stderr.finish(Stream::Stderr, now, bytes);
            *closing = true;
        }
        let mut progress = self.progress.subscribe();
        self.enqueue();
        // The writer lives as long as the node's logs do; without it there is nothing to wait for.
        let _closed = progress.wait_for(|progress| progress.closed).await;
    }

    fn enqueue(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) && self.writer.send(self.clone()).is_err() {
            self.progress.send_modify(|progress| progress.closed = true);
        }
    }

    /// Writes what gathered. On the writer's thread.
    pub(super) fn flush(&self, scratch: &mut Vec<u8>) {
        self.queued.store(false, Ordering::Release);
        scratch.clear();
        let closing = {
            let mut buffer = self.buffer.lock();
            std::mem::swap(&mut buffer.bytes, scratch);
            buffer.closing
        };
        self.space.notify_waiters();
        if !scratch.is_empty() {
            let mut current = self.file.lock();
            let full = current.size > 0 && current.size + scratch.len() as u64 > MAX_FILE;
            if full && let Err(error) = self.rotate(&mut current) {
                tracing::warn!(path = %self.path.display(), %error, "cannot rotate a log");
            }
            match current.file.write_all(scratch) {
                Ok(()) => current.size += scratch.len() as u64,
                Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot write a log: lines are lost"),
            }
        }
        self.progress.send_modify(|progress| {
            progress.written += scratch.len() as u64;
            progress.closed |= closing;
        });
    }

    fn rotate(&self, current: &mut Current) -> io::Result<()> {
        let sequence = self.progress.borrow().sequence;
        std::fs::rename(&self.path, segment(&self.path, sequence))?;
        current.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        current.size = 0;
        // Under the file's lock: `open_at` never takes one file for another.
        self.progress.send_modify(|progress| progress.sequence += 1);
        for old in segments(&self.path) {
            if old + MAX_FILES <= sequence + 1 {
                std::fs::remove_file(segment(&self.path, old))?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Output for SharedLog {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        // In pieces, so that one large write is held back like many small ones.
        for piece in bytes.chunks(MAX_BUFFER / 4) {
            loop {
                let space = self.0.space.notified();
                let mut space = std::pin::pin!(space);
                space.as_mut().enable();
                {
                    let mut buffer = self.0.buffer.lock();
                    if buffer.bytes.len() < MAX_BUFFER || buffer.closing {
                        let now = Timestamp::now();
                        let Buffer { bytes, stdout, stderr, .. } = &mut *buffer;
                        match stream {
                            Stream::Stdout => stdout.push(stream, piece, now, bytes),
                            Stream::Stderr => stderr.push(stream, piece, now, bytes),
                        }
                        break;
                    }
                }
                self.0.enqueue();
                space.await;
            }
        }
        self.0.enqueue();
    }
}

/// A log as a runtime's output.
pub(crate) struct SharedLog(pub Arc<ContainerLog>);

/// The file name of a rotated segment.
pub(super) fn segment(path: &Path, sequence: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{sequence}"));
    PathBuf::from(name)
}

/// The numbers of the rotated segments of `path`, ascending.
pub(super) fn segments(path: &Path) -> Vec<u64> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let mut found: Vec<u64> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// The thread that writes a node's logs. It ends when the last handle is dropped.
pub(super) struct Writer {
    sender: mpsc::Sender<Arc<ContainerLog>>,
}

impl Writer {
    pub(super) fn start() -> io::Result<Self> {
        // At most one entry a log is queued: `queued` guards it.
        let (sender, receiver) = mpsc::channel::<Arc<ContainerLog>>();
        std::thread::Builder::new().name("wherry-logs".to_owned()).spawn(move || {
            let mut scratch = Vec::new();
            while let Ok(log) = receiver.recv() {
                log.flush(&mut scratch);
                scratch.shrink_to(MAX_BUFFER * 2);
            }
        })?;
        Ok(Self { sender })
    }

    pub(super) fn handle(&self) -> mpsc::Sender<Arc<ContainerLog>> {
        self.sender.clone()
    }
}
