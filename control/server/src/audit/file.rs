//! The log's file: JSON lines, written by a thread of its own, rotated by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use jiff::Timestamp;

use super::event::Event;
use super::{AuditError, Policy};

/// Events that wait to be written.
const QUEUE: usize = 10_000;
/// What the bodies of events that wait may weigh together, in bytes.
const WEIGHT: usize = 64 << 20;

/// When a log file is followed by a new one, and how many old ones are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// At this size, in bytes.
    pub bytes: u64,
    /// Old files beside the current one; more are deleted, the oldest first.
    pub kept: usize,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { bytes: 100 << 20, kept: 10 }
    }
}

/// An audit log, open. Cheap to clone; the file is complete when the last clone is gone and [`Audit::flushed`] has returned.
#[derive(Clone)]
pub struct Audit {
    pub(super) policy: Arc<Policy>,
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

enum Message {
    Event(Box<Event>),
    Flush(SyncSender<()>),
}

impl Audit {
    /// Opens the log in the file at `path`, for the eyes of its owner only; what is there is gone on with.
    pub fn open(policy: Policy, path: &Path, rotation: Rotation) -> Result<Self, AuditError> {
        let failed = |source: io::Error| AuditError::Log { path: path.to_path_buf(), source };
        let log = Log::open(path.to_path_buf(), rotation).map_err(failed)?;
        let (queue, events) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = Writer { log, shared: Arc::clone(&shared), told: 0 };
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&events)).map_err(failed)?;
        Ok(Self { policy: Arc::new(policy), shared, queue })
    }

    /// How many events were dropped because the queue was full or the file could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all events so far are in the file. Blocks.
    pub fn flushed(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            // Fails only if the writer has ended, and then nothing is left to wait for.
            let _ = wait.recv();
        }
    }

    /// Hands an event over; never waits.
    pub(super) fn log(&self, event: Event) {
        let weight = event.weight();
        let waiting = self.shared.waiting.fetch_add(weight, Ordering::Relaxed);
        let sent = if waiting + weight > WEIGHT {
            Err(())
        } else {
            self.queue.try_send(Message::Event(Box::new(event))).map_err(|error| {
                if let TrySendError::Disconnected(_) = error {
                    tracing::error!("the audit log's writer has ended");
                }
            })
        };
        if sent.is_err() {
            self.shared.waiting.fetch_sub(weight, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    log: Log,
    shared: Arc<Shared>,
    /// Drops that the server's log tells of.
    told: u64,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Event(event) => self.write(*event),
                    Message::Flush(done) => {
                        self.flush();
                        let _ = done.send(());
                    }
                }
                next = messages.try_recv().ok();
            }
            self.flush();
        }
    }

    fn write(&mut self, event: Event) {
        self.shared.waiting.fetch_sub(event.weight(), Ordering::Relaxed);
        let mut line = event.into_value().to_string();
        line.push('\n');
        if let Err(error) = self.log.append(line.as_bytes()) {
            self.failed(&error);
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.log.file.flush() {
            self.failed(&error);
        }
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped > self.told {
            tracing::warn!(dropped, "audit events were dropped: the log cannot be written as fast as they come");
            self.told = dropped;
        }
    }

    fn failed(&self, error: &io::Error) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, path = %self.log.path.display(), "the audit log cannot be written");
    }
}

struct Log {
    path: PathBuf,
    rotation: Rotation,
    file: BufWriter<File>,
    size: u64,
}

impl Log {
    fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, rotation, file: BufWriter::new(file), size })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.rotation.bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let aside = self.aside(&Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%6f").to_string());
        fs::rename(&self.path, &aside)?;
        *self = Self::open(self.path.clone(), self.rotation)?;
        let old = self.old()?;
        for path in old.iter().take(old.len().saturating_sub(self.rotation.kept)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// `audit.log` is set aside as `audit-TIME.log`.
    fn aside(&self, time: &str) -> PathBuf {
        let (stem, extension) = self.name();
        self.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    fn name(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = text(self.path.extension());
        (text(self.path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
    }

    /// The files that were set aside, the oldest first.
    fn old(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.name();
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let time = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
            // Only what was named here: a year first.
            if time.is_some_and(|time| time.len() == 26 && time.starts_with("20")) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        fs::write(dir.path().join("audit-notes.log"), "mine").unwrap();
        let mut log = Log::open(path.clone(), Rotation { bytes: 20, kept: 2 }).unwrap();
        for number in 0..9 {
            log.append(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        log.file.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 0008\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let old: Vec<String> = log.old().unwrap().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(old, ["line 0004\nline 0005\n", "line 0006\nline 0007\n"]);
        assert!(dir.path().join("audit-notes.log").exists());
    }
}
