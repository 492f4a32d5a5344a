//! One record of the log, and how to tell a torn one from a damaged one.
//!
//! ```text
//! magic u32 | length u32 | revision u64 | synced u64 | payload CRC32C u32 | header CRC32C u32 | payload
//! ```
//! `synced` is the revision up to which the log was known to be on disk when the record was written. A sound record
//! thus bears witness for those before it: whatever it calls synced had been acknowledged.

use crc32c::{crc32c, crc32c_append};

/// The length of a record's header.
pub(crate) const HEADER: usize = 32;
/// The longest payload: above any object that the API takes.
pub(crate) const MOST: usize = 16 << 20;
const MAGIC: u32 = 0x3152_5957;
/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An object was created or replaced; an encoded entry follows.
    Put = 1,
    /// An object was removed; an encoded entry, its last state, follows.
    Delete = 2,
    /// Revisions up to this one are void: they may have been issued and then lost to a power cut.
    Skip = 3,
}

/// A sound record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) revision: u64,
    pub(crate) synced: u64,
    pub(crate) kind: Kind,
    pub(crate) body: &'a [u8],
    /// Where the next record begins.
    pub(crate) end: usize,
}

/// Why there is no sound record at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The file ends within the record, whose header is sound or cut off itself.
    Cut,
    /// All bytes are there, but they are not those that were written.
    Wrong,
}

/// Appends a record to `out`, its body written by `body`.
pub(crate) fn put(out: &mut Vec<u8>, revision: u64, synced: u64, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + HEADER, 0);
    out.push(kind as u8);
    body(out);
    let payload = &out[start + HEADER..];
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let sum = crc32c(payload);
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC.to_le_bytes());
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(&revision.to_le_bytes());
    header.extend_from_slice(&synced.to_le_bytes());
    header.extend_from_slice(&sum.to_le_bytes());
    let sum = crc32c_append(0, &header);
    header.extend_from_slice(&sum.to_le_bytes());
    out[start..start + HEADER].copy_from_slice(&header);
}

/// Reads the record at `start` of a segment.
pub(crate) fn read(segment: &[u8], start: usize) -> Result<Record<'_>, Flaw> {
    let rest = &segment[start..];
    let Some((header, payload)) = rest.split_at_checked(HEADER) else {
        return Err(Flaw::Cut);
    };
    let word = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_| Flaw::Wrong);
    let long = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| Flaw::Wrong);
    if word(0)? != MAGIC || word(28)? != crc32c(&header[..28]) {
        return Err(Flaw::Wrong);
    }
    let length = usize::try_from(word(4)?).map_err(|_| Flaw::Wrong)?;
    let payload = payload.get(..length).ok_or(Flaw::Cut)?;
    if word(24)? != crc32c(payload) {
        return Err(Flaw::Wrong);
    }
    let (kind, body) = match payload.split_first() {
        Some((1, body)) => (Kind::Put, body),
        Some((2, body)) => (Kind::Delete, body),
        Some((3, body)) => (Kind::Skip, body),
        _ => return Err(Flaw::Wrong),
    };
    Ok(Record { revision: long(8)?, synced: long(16)?, kind, body, end: start + HEADER + length })
}

/// Whether a sound record after `start` testifies that `revision` had been on disk.
pub(crate) fn later_witness(segment: &[u8], start: usize, revision: u64) -> bool {
    let magic = MAGIC.to_le_bytes();
    (start + 1..segment.len().saturating_sub(HEADER))
        .any(|at| segment[at..].starts_with(&magic) && read(segment, at).is_ok_and(|record| record.synced >= revision))
}

/// Whether the end of a segment looks like blocks that a power cut kept from being written: a sector of zeros, which
/// no record contains.
pub(crate) fn has_unwritten_sector(segment: &[u8], start: usize) -> bool {
    let zeros = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    let aligned = start.next_multiple_of(SECTOR);
    match segment.get(aligned..) {
        Some(rest) if !rest.is_empty() => rest.chunks(SECTOR).any(zeros),
        _ => zeros(&segment[start..]),
    }
}
