//! Reading the log at start: every record is checked, and what is not sound is judged.
//!
//! A batch that was being written when the process or the machine died leaves a torn end. It was never acknowledged,
//! so it is cut off, with a warning. Anything else is damage to what had been acknowledged, or might be: the store
//! refuses to open and says where.

use std::{
    fs::{self, File},
    path::Path,
};

use super::{
    SEGMENT_HEADER,
    head::Head,
    record::{self, Flaw, Kind, Record},
    segment_header,
};
use crate::{OpenError, files};

/// Where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The newest segment.
    pub(crate) segment: u64,
    /// Its sound length.
    pub(crate) length: u64,
    /// The newest revision.
    pub(crate) revision: u64,
}

/// Gives every record after the revision `base` to `take`. None if there is no log.
pub(crate) fn replay(
    dir: &Path,
    base: u64,
    head: Option<&Head>,
    take: &mut dyn FnMut(Record<'_>) -> Result<(), &'static str>,
) -> Result<Option<Tail>, OpenError> {
    let segments = files::at(dir, files::numbered(dir, "log"))?;
    let Some(start) = segments.iter().rposition(|(first, _)| *first <= base + 1) else {
        return match segments.first() {
            None if head.is_some() => Err(damaged(dir, 0, "the log is gone, but its head is there".into())),
            None => Ok(None),
            Some((first, path)) => Err(damaged(
                path,
                0,
                format!("the log begins at revision {first}, but the newest sound checkpoint is at {base}"),
            )),
        };
    };
    let mut tail: Option<Tail> = None;
    for (index, (first, path)) in segments.iter().enumerate().skip(start) {
        let last = index + 1 == segments.len();
        let bytes = files::at(path, fs::read(path))?;
        let before = match segment_before(&bytes, *first) {
            Some(before) if tail.is_none_or(|tail| tail.revision == before) => before,
            Some(before) => {
                let text = format!("the segment follows revision {before}, which is not where the one before it ends");
                return Err(damaged(path, 0, text));
            }
            None if last && is_unborn(&bytes, *first, head) => {
                tracing::warn!(path = %path.display(), "a log segment that was never begun is removed");
                files::at(path, fs::remove_file(path))?;
                continue;
            }
            None => return Err(damaged(path, 0, "the segment's header is damaged".into())),
        };
        let mut segment = Segment { path, first: *first, bytes: &bytes, last, head };
        tail = Some(segment.replay(before, base, take)?);
    }
    check_extent(dir, tail, head)?;
    Ok(tail)
}

/// The revision before a segment; none if its header is not sound.
fn segment_before(bytes: &[u8], first: u64) -> Option<u64> {
    let header = bytes.get(..SEGMENT_HEADER)?;
    let before = u64::from_le_bytes(header[16..24].try_into().ok()?);
    (header == segment_header(first, before) && before + 1 == first).then_some(before)
}

/// Whether a segment is the rest of one whose creation was cut short.
fn is_unborn(bytes: &[u8], first: u64, head: Option<&Head>) -> bool {
    let empty = bytes.len() < SEGMENT_HEADER || bytes.iter().all(|byte| *byte == 0);
    empty && !head.is_some_and(|head| head.covers(first, 0))
}

/// Whether the log reaches as far as its head says.
fn check_extent(dir: &Path, tail: Option<Tail>, head: Option<&Head>) -> Result<(), OpenError> {
    let Some(head) = head else { return Ok(()) };
    let (segment, length) = tail.map_or((0, 0), |tail| (tail.segment, tail.length));
    if segment < head.segment || (segment == head.segment && length < head.extent()) {
        let path = super::segment_path(dir, head.segment);
        let text = format!("the log ends here, but {} bytes of this segment had been acknowledged", head.extent());
        return Err(damaged(&path, if segment == head.segment { length } else { 0 }, text));
    }
    Ok(())
}

struct Segment<'a> {
    path: &'a Path,
    first: u64,
    bytes: &'a [u8],
    last: bool,
    head: Option<&'a Head>,
}

impl Segment<'_> {
    fn replay(
        &mut self,
        before: u64,
        base: u64,
        take: &mut dyn FnMut(Record<'_>) -> Result<(), &'static str>,
    ) -> Result<Tail, OpenError> {
        let mut offset = SEGMENT_HEADER;
        let mut revision = before;
        while offset < self.bytes.len() {
            let record = match record::read(self.bytes, offset) {
                Ok(record) => record,
                Err(flaw) => {
                    self.judge(flaw, offset, revision)?;
                    self.cut(offset)?;
                    break;
                }
            };
            let follows = match record.kind {
                Kind::Skip => record.revision > revision,
                Kind::Put | Kind::Delete => record.revision == revision + 1,
            };
            if !follows {
                let text = format!("revision {} follows revision {revision}", record.revision);
                return Err(damaged(self.path, offset, text));
            }
            revision = record.revision;
            if revision > base {
                take(record).map_err(|text| damaged(self.path, offset, format!("revision {revision}: {text}")))?;
            }
            offset = record.end;
        }
        Ok(Tail { segment: self.first, length: offset as u64, revision })
    }

    /// Whether what is not a sound record, after `revision`, was never acknowledged. An error if it was or may have been.
    fn judge(&self, flaw: Flaw, offset: usize, revision: u64) -> Result<(), OpenError> {
        let refuse = |text: &str| {
            let what = match flaw {
                Flaw::Cut => "is cut off",
                Flaw::Wrong => "does not match its checksum",
            };
            Err(damaged(self.path, offset, format!("the record after revision {revision} {what}, and {text}")))
        };
        if self.head.is_some_and(|head| head.covers(self.first, offset as u64)) {
            return refuse("it had been acknowledged");
        }
        if !self.last || record::later_witness(self.bytes, offset, revision + 1) {
            return refuse("later records show that it had been acknowledged");
        }
        let exact = self.head.is_some_and(Head::is_exact);
        if flaw == Flaw::Cut || exact || record::has_unwritten_sector(self.bytes, offset) {
            return Ok(());
        }
        refuse("it may have been acknowledged")
    }

    /// Cuts a torn end off.
    fn cut(&self, offset: usize) -> Result<(), OpenError> {
        tracing::warn!(
            path = %self.path.display(),
            offset,
            bytes = self.bytes.len() - offset,
            "the log ends in a write that was never acknowledged; it is cut off"
        );
        let cut = || {
            let file = File::options().write(true).open(self.path)?;
            file.set_len(offset as u64)?;
            file.sync_all()
        };
        files::at(self.path, cut())
    }
}

fn damaged(path: &Path, offset: impl TryInto<u64>, detail: String) -> OpenError {
    let offset = offset.try_into().unwrap_or_default();
    OpenError::Damaged { path: path.to_path_buf(), offset, detail }
}
