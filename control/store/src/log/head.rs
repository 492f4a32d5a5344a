//! How far the log was acknowledged: a small file beside it, written after each batch and never waited for.
//!
//! The log alone cannot tell an acknowledged record that was cut off later from one that was never finished. The
//! head can: while the machine runs it is exact (the page cache outlives the process), and after a power cut it is at
//! most too old, never too new, because it names as synced only what has been.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use crc32c::crc32c;

use crate::{codec::Cursor, files};

const MAGIC: [u8; 8] = *b"WHRYHEAD";
const LENGTH: usize = 8 + 16 + 8 + 8 + 8 + 8 + 1;

/// What the head file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The boot of the machine in which it was written.
    pub(crate) boot: [u8; 16],
    /// The newest segment, by its first revision.
    pub(crate) segment: u64,
    /// How many bytes of that segment are on disk.
    pub(crate) synced: u64,
    /// How many bytes of that segment were written.
    pub(crate) written: u64,
    /// The newest revision that was written.
    pub(crate) revision: u64,
    /// Whether the store was closed in order.
    pub(crate) clean: bool,
}

impl Head {
    /// Whether it speaks of all that was acknowledged, rather than of what was some time before a power cut.
    pub(crate) fn is_exact(&self) -> bool {
        self.clean || self.boot == boot()
    }

    /// How many bytes of the newest segment must be there.
    pub(crate) fn extent(&self) -> u64 {
        if self.is_exact() { self.written } else { self.synced }
    }

    /// Whether what lies at an offset of a segment had been acknowledged.
    pub(crate) fn covers(&self, segment: u64, offset: u64) -> bool {
        segment < self.segment || (segment == self.segment && offset < self.extent())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.boot);
        for number in [self.segment, self.synced, self.written, self.revision] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.clean));
        let sum = crc32c(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (body, sum) = bytes.split_at_checked(LENGTH).ok_or("it is cut off")?;
        if sum != crc32c(body).to_le_bytes() || !body.starts_with(&MAGIC) {
            return Err("its checksum is wrong");
        }
        let mut cursor = Cursor { bytes: &body[MAGIC.len()..] };
        Ok(Self {
            boot: cursor.array()?,
            segment: cursor.u64()?,
            synced: cursor.u64()?,
            written: cursor.u64()?,
            revision: cursor.u64()?,
            clean: cursor.array::<1>()? == [1],
        })
    }

    /// Reads the head beside a log. None if there is none or it cannot be believed: then the log must speak for itself.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        match std::fs::read(path).map_err(|error| error.to_string()).and_then(|b| Ok(Self::decode(&b)?)) {
            Ok(head) => Some(head),
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "the log's head cannot be read; the log is judged without it");
                None
            }
        }
    }
}

/// The open head file.
#[derive(Debug)]
pub(crate) struct HeadFile(File);

impl HeadFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(files::open_private(path)?))
    }

    /// Writes one sector in place: not torn by any disk, and its checksum would tell.
    pub(crate) fn write(&self, head: &Head) -> io::Result<()> {
        self.0.write_all_at(&head.encode(), 0)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Names this boot of the machine; zeros, equal to no boot, if the kernel does not say.
pub(crate) fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = text.trim().replace('-', "");
    let mut id = [0; 16];
    if hex::decode_to_slice(&digits, &mut id).is_err() {
        // A clock reading is equal to no other boot's either.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        id = now.as_nanos().to_le_bytes();
    }
    id
}
