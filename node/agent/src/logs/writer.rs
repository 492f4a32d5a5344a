//! The writing end of a log.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};

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
/// Files that the writer keeps open, those written last; a log that is quiet costs no descriptor.
const OPEN_FILES: usize = 128;
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
    /// None while nobody writes.
    file: Option<File>,
    size: u64,
}

impl Current {
    /// The open file; opened anew where it is not.
    fn file(&mut self, path: &Path) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => append(path)?,
        };
        Ok(self.file.insert(file))
    }
}

/// Opens the file, made with its directory where it is not there.
fn append(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().create(true).append(true).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(parent)?;
            open()
        }
        (opened, _) => opened,
    }
}

impl ContainerLog {
    pub(super) fn open(path: &Path, writer: mpsc::Sender<Arc<ContainerLog>>) -> io::Result<Arc<Self>> {
        let size = match std::fs::metadata(path) {
            Ok(known) => known.len(),
            // It is made when something is said.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let sequence = segments(path).last().map_or(0, |last| last + 1);
        let progress = watch::Sender::new(Progress { written: 0, sequence, closed: false });
        Ok(Arc::new(Self {
            path: path.to_owned(),
            buffer: Mutex::default(),
            file: Mutex::new(Current { file: None, size }),
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

    /// Writes what gathered. On the writer's thread. Whether it opened the file for it.
    pub(super) fn flush(&self, scratch: &mut Vec<u8>) -> bool {
        self.queued.store(false, Ordering::Release);
        scratch.clear();
        let closing = {
            let mut buffer = self.buffer.lock();
            std::mem::swap(&mut buffer.bytes, scratch);
            buffer.closing
        };
        self.space.notify_waiters();
        let mut opened = false;
        if !scratch.is_empty() {
            let mut current = self.file.lock();
            let full = current.size > 0 && current.size + scratch.len() as u64 > MAX_FILE;
            if full && let Err(error) = self.rotate(&mut current) {
                tracing::warn!(path = %self.path.display(), %error, "cannot rotate a log");
            }
            opened = current.file.is_none();
            match current.file(&self.path).and_then(|file| file.write_all(scratch)) {
                Ok(()) => current.size += scratch.len() as u64,
                Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot write a log: lines are lost"),
            }
        }
        if closing {
            self.release();
        }
        self.progress.send_modify(|progress| {
            progress.written += scratch.len() as u64;
            progress.closed |= closing;
        });
        opened
    }

    /// Closes the file until more is written.
    fn release(&self) {
        self.file.lock().file = None;
    }

    fn rotate(&self, current: &mut Current) -> io::Result<()> {
        let sequence = self.progress.borrow().sequence;
        std::fs::rename(&self.path, segment(&self.path, sequence))?;
        current.file = Some(append(&self.path)?);
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
            let mut open = VecDeque::<Weak<ContainerLog>>::with_capacity(OPEN_FILES + 1);
            while let Ok(log) = receiver.recv() {
                if log.flush(&mut scratch) {
                    open.push_back(Arc::downgrade(&log));
                }
                if open.len() > OPEN_FILES {
                    let oldest = open.pop_front().and_then(|log| log.upgrade());
                    oldest.into_iter().for_each(|log| log.release());
                }
                scratch.shrink_to(MAX_BUFFER * 2);
            }
        })?;
        Ok(Self { sender })
    }

    pub(super) fn handle(&self) -> mpsc::Sender<Arc<ContainerLog>> {
        self.sender.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Logs;
    use super::*;

    fn open_below(dir: &Path) -> usize {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).filter(|file| file.starts_with(dir)).count()
    }

    #[tokio::test]
    async fn more_logs_than_files_may_be_open() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned()).unwrap();
        let path = |n: usize| Logs::path(dir.path(), &format!("c{n}"), 0);
        let all: Vec<_> = (0..OPEN_FILES + 50).map(|n| logs.open(&path(n)).unwrap()).collect();
        for round in ["first\n", "second\n"] {
            for log in &all {
                let mut progress = log.subscribe();
                let before = progress.borrow_and_update().written;
                SharedLog(log.clone()).write(Stream::Stdout, Bytes::from(round)).await;
                progress.wait_for(|progress| progress.written > before).await.unwrap();
            }
            // The last is closed a moment after it is told of.
            assert!(open_below(dir.path()) <= OPEN_FILES + 1, "{} files are open", open_below(dir.path()));
        }
        for n in 0..all.len() {
            logs.close(&path(n)).await;
            let text = std::fs::read_to_string(path(n)).unwrap();
            let said: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
            assert_eq!(said, ["first", "second"], "{n}");
        }
        assert_eq!(open_below(dir.path()), 0);
    }
}
