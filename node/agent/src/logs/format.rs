//! The CRI log line: `<RFC 3339 with nanoseconds> <stdout|stderr> <F|P>[:tags] <content>\n`.

use std::io::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use wherry_runtime::Stream;

/// A longer line is written in parts, all but the last tagged `P`.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// Collects the bytes of one stream until they are lines.
#[derive(Default)]
pub(super) struct Framer {
    partial: Vec<u8>,
    stamp: Option<(Timestamp, String)>,
}

impl Framer {
    /// Appends to `out` a framed line for every line that `bytes` complete.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, ended) = match piece.strip_suffix(b"\n") {
                Some(content) => (content, true),
                None => (piece, false),
            };
            self.partial.extend_from_slice(content);
            while self.partial.len() > MAX_LINE {
                let rest = self.partial.split_off(MAX_LINE);
                let part = std::mem::replace(&mut self.partial, rest);
                self.emit(stream, 'P', &part, now, out);
            }
            if ended {
                let line = std::mem::take(&mut self.partial);
                self.emit(stream, 'F', &line, now, out);
                self.partial = line;
                self.partial.clear();
            }
        }
    }

    /// Emits what has no line end yet.
    pub(super) fn finish(&mut self, stream: Stream, now: Timestamp, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.emit(stream, 'P', &line, now, out);
        }
    }

    fn emit(&mut self, stream: Stream, tag: char, content: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        // Lines that arrive together share their stamp.
        if self.stamp.as_ref().is_none_or(|(at, _)| *at != now) {
            self.stamp = Some((now, stamp(now)));
        }
        let stamp = self.stamp.as_ref().map_or("", |(_, text)| text);
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        // Writing to a Vec cannot fail.
        let _infallible = write!(out, "{stamp} {name} {tag} ");
        out.extend_from_slice(content);
        out.push(b'\n');
    }
}

/// RFC 3339 with nine digits.
pub(super) fn stamp(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// As written.
    pub stamp: &'a [u8],
    /// The line goes on in the next entry.
    pub partial: bool,
    /// Without the line end.
    pub content: &'a [u8],
}

/// Takes a line (without its end) apart; none for what is not of the format.
#[must_use]
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let stamp = fields.next()?;
    let stream = fields.next()?;
    let tags = fields.next()?;
    let content = fields.next()?;
    (stream == b"stdout" || stream == b"stderr").then_some(Line {
        stamp,
        partial: tags.first() == Some(&b'P'),
        content,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the bytes are cut, the log holds them.
        #[test]
        fn what_is_written_is_read(text in "[a-z \n]{0,200}", cuts in proptest::collection::vec(1usize..40, 0..10)) {
            let mut framer = Framer::default();
            let mut out = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                framer.push(Stream::Stdout, now, Timestamp::UNIX_EPOCH, &mut out);
                rest = later;
            }
            framer.push(Stream::Stdout, rest, Timestamp::UNIX_EPOCH, &mut out);
            framer.finish(Stream::Stdout, Timestamp::UNIX_EPOCH, &mut out);
            let mut read = Vec::new();
            for line in out.split_inclusive(|byte| *byte == b'\n') {
                let line = parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                read.extend_from_slice(line.content);
                if !line.partial {
                    read.push(b'\n');
                }
            }
            prop_assert_eq!(read, text.as_bytes());
        }
    }

    #[test]
    fn long_lines_are_written_in_parts() {
        let mut framer = Framer::default();
        let mut out = Vec::new();
        let text = [vec![b'x'; MAX_LINE + 3], b"\n".to_vec()].concat();
        framer.push(Stream::Stderr, &text, Timestamp::UNIX_EPOCH, &mut out);
        let lines: Vec<_> =
            out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| parse(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].partial && !lines[1].partial);
        assert_eq!(lines[1].content, b"xxx");
        assert!(out.starts_with(b"1970-01-01T00:00:00.000000000Z stderr P x"));
    }
}
