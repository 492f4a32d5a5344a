//! The log: segment files of checksummed records, appended in batches.
//!
//! Layout of `log/`: `<first revision>.log`, oldest first, and `head` ([`head`]). A segment begins with its magic,
//! its first revision, the last revision before it, and a CRC32C of these.

pub(crate) mod head;
pub(crate) mod record;
pub(crate) mod scan;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crc32c::crc32c;

use crate::{
    files,
    options::{Hook, Step},
};
use head::{Head, HeadFile};

const MAGIC: [u8; 8] = *b"WHRYLOG1";
/// The length of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 28;

/// The path of a segment.
pub(crate) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

/// A segment's header.
pub(crate) fn segment_header(first: u64, before: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&before.to_le_bytes());
    let sum = crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// Why an append did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// Nothing of the batch is in the log: the next one may fit.
    #[error(transparent)]
    Rejected(io::Error),
    /// What is on disk is no longer known: nothing may be written any more.
    #[error("{0}")]
    Fatal(String),
}

/// The log's end, open for appending. Owned by the one committer.
pub(crate) struct Log {
    dir: PathBuf,
    file: File,
    head_file: HeadFile,
    head: Head,
    /// The newest revision known to be on disk.
    synced: u64,
    hook: Hook,
}

impl Log {
    /// Goes on with a log that ends with `length` bytes of the segment `first` at `revision`, and sees them to the disk: a
    /// process that was killed may have left them in the page cache alone.
    pub(crate) fn resume(dir: &Path, first: u64, length: u64, revision: u64, hook: Hook) -> io::Result<Self> {
        let file = files::open_private(&segment_path(dir, first))?;
        file.sync_data()?;
        let head_file = HeadFile::open(&dir.join("head"))?;
        let head = Head { boot: head::boot(), segment: first, synced: length, written: length, revision, clean: false };
        let log = Self { dir: dir.to_path_buf(), file, head_file, head, synced: revision, hook };
        // On disk before the first write, lest an old head that says "clean" is believed after a power cut.
        log.head_file.write(&log.head)?;
        log.head_file.sync()?;
        files::sync_dir(dir)?;
        Ok(log)
    }

    /// Creates the segment whose first revision follows `before`.
    pub(crate) fn create_segment(dir: &Path, before: u64) -> io::Result<File> {
        let path = segment_path(dir, before + 1);
        let file = files::open_private(&path)?;
        file.set_len(0)?;
        file.write_all_at(&segment_header(before + 1, before), 0)?;
        file.sync_all()?;
        files::sync_dir(dir)?;
        Ok(file)
    }

    /// The newest revision known to be on disk: what new records testify to.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// How long the newest segment is.
    pub(crate) fn segment_length(&self) -> u64 {
        self.head.written
    }

    /// How many revisions a power cut would take.
    pub(crate) fn unsynced(&self) -> u64 {
        self.head.revision - self.synced
    }

    /// Appends the records of one batch, the last of which is `revision`, and waits for the disk if `durable`.
    pub(crate) fn append(&mut self, records: &[u8], revision: u64, durable: bool) -> Result<(), AppendError> {
        if let Err(error) = self.write(records) {
            // What was written of it must go, or the next batch would follow a torn record.
            return Err(match self.file.set_len(self.head.written) {
                Ok(()) => AppendError::Rejected(error),
                Err(undo) => AppendError::Fatal(format!("{error}; and the log could not be cut back: {undo}")),
            });
        }
        self.head.written += records.len() as u64;
        self.head.revision = revision;
        if durable {
            self.sync()?;
        }
        (self.hook)(Step::Synced).map_err(fatal)?;
        self.note_head();
        Ok(())
    }

    fn write(&self, records: &[u8]) -> io::Result<()> {
        (self.hook)(Step::BeforeWrite)?;
        let half = records.len() / 2;
        if let Err(error) = (self.hook)(Step::Tear) {
            self.file.write_all_at(&records[..half], self.head.written)?;
            (self.hook)(Step::Torn)?;
            return Err(error);
        }
        self.file.write_all_at(records, self.head.written)?;
        (self.hook)(Step::Written)
    }

    /// Waits until all that was appended is on disk. A failure is final: the kernel may have dropped the pages.
    pub(crate) fn sync(&mut self) -> Result<(), AppendError> {
        (self.hook)(Step::BeforeSync).and_then(|()| self.file.sync_data()).map_err(fatal)?;
        self.head.synced = self.head.written;
        self.synced = self.head.revision;
        Ok(())
    }

    /// Begins a new segment. The old one is on disk whole before.
    pub(crate) fn roll(&mut self) -> Result<(), AppendError> {
        self.sync()?;
        self.file = Self::create_segment(&self.dir, self.head.revision).map_err(AppendError::Rejected)?;
        self.head.segment = self.head.revision + 1;
        self.head.written = SEGMENT_HEADER as u64;
        self.head.synced = self.head.written;
        self.note_head();
        Ok(())
    }

    /// Ends in order.
    pub(crate) fn close(mut self) {
        if let Err(error) = self.sync() {
            tracing::error!(?error, "the log could not be synced when the store closed");
            return;
        }
        self.head.clean = true;
        self.note_head();
        if let Err(error) = self.head_file.sync() {
            tracing::warn!(%error, "the log's head could not be synced");
        }
    }

    fn note_head(&self) {
        if let Err(error) = self.head_file.write(&self.head) {
            // The head adds certainty about damage, not durability.
            tracing::warn!(%error, "the log's head could not be written");
        }
    }
}

fn fatal(error: io::Error) -> AppendError {
    AppendError::Fatal(error.to_string())
}
