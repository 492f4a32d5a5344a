//! Frames on the wire, without I/O. Data is handed on as it comes in, so that a frame of 16 MiB costs no 16 MiB.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::Malformed;
use super::headers::{self, Headers};

const VERSION: u16 = 3;
const FIN: u8 = 1;
/// The longest control frame that is read: headers are short here.
const CONTROL: usize = 64 << 10;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a stream is refused or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Protocol = 1,
    Refused = 3,
    Cancel = 5,
}

/// What a peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream.
    Open { stream: u32, headers: Headers, last: bool },
    /// Some bytes of a stream; the last ones end it.
    Data { stream: u32, bytes: Bytes, last: bool },
    /// A stream is given up.
    Reset { stream: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// What says nothing here: replies, settings, windows (as with spdystream, TCP alone holds senders back), ...
    Other,
}

/// Reads frames out of a stream of bytes.
pub(super) struct Decoder {
    headers: headers::Reader,
    /// The data frame that is under way.
    rest: Option<Rest>,
}

struct Rest {
    stream: u32,
    left: usize,
    last: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { headers: headers::Reader::new(), rest: None }
    }

    /// The next frame; none where more bytes are needed. `input` never has to hold more than a control frame.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        if self.rest.is_some() {
            return Ok(self.data(input));
        }
        let Some((head, _)) = input.split_first_chunk::<8>() else { return Ok(None) };
        let [a, b, c, d, flags, length @ ..] = *head;
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let last = flags & FIN != 0;
        if a & 0x80 == 0 {
            input.advance(8);
            self.rest = Some(Rest { stream: u32::from_be_bytes([a, b, c, d]), left: length, last });
            return Ok(self.data(input));
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
            return Err(Malformed("a frame of another version than SPDY/3"));
        }
        if length > CONTROL {
            return Err(Malformed("a control frame that is too long"));
        }
        if input.len() < 8 + length {
            return Ok(None);
        }
        input.advance(8);
        let payload = input.split_to(length).freeze();
        self.control(u16::from_be_bytes([c, d]), last, &payload).map(Some)
    }

    fn data(&mut self, input: &mut BytesMut) -> Option<Frame> {
        let rest = self.rest.as_mut()?;
        if input.is_empty() && rest.left > 0 {
            return None;
        }
        let bytes = input.split_to(rest.left.min(input.len())).freeze();
        rest.left -= bytes.len();
        let whole = rest.left == 0;
        let frame = Frame::Data { stream: rest.stream, bytes, last: rest.last && whole };
        if whole {
            self.rest = None;
        }
        Some(frame)
    }

    fn control(&mut self, kind: u16, last: bool, payload: &[u8]) -> Result<Frame, Malformed> {
        let short = Malformed("a control frame that is too short");
        let number = || payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff).ok_or(short);
        // Every header block has to be read, since the next one builds on it.
        let mut headers = |from: usize| self.headers.read(payload.get(from..).ok_or(short)?);
        Ok(match kind {
            SYN_STREAM => Frame::Open { stream: number()?, headers: headers(10)?, last },
            SYN_REPLY | HEADERS => {
                headers(4)?;
                Frame::Other
            }
            RST_STREAM => Frame::Reset { stream: number()? },
            PING => Frame::Ping { id: payload.first_chunk().map(|id| u32::from_be_bytes(*id)).ok_or(short)? },
            _ => Frame::Other,
        })
    }
}

/// Writes frames.
#[derive(Default)]
pub(super) struct Encoder(headers::Writer);

impl Encoder {
    /// A stream is taken.
    pub(super) fn reply(&mut self, stream: u32) -> Bytes {
        let mut payload = BytesMut::new();
        payload.put_u32(stream);
        payload.put(self.0.write(&Headers::default()));
        control(SYN_REPLY, 0, &payload)
    }

    /// A new stream: for tests, which are the client.
    #[cfg(test)]
    pub(super) fn open(&mut self, stream: u32, headers: &[(&str, &str)], last: bool) -> Bytes {
        let mut payload = BytesMut::new();
        payload.put_u32(stream);
        payload.put_slice(&[0; 6]);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        payload.put(self.0.write(&Headers(headers)));
        control(SYN_STREAM, u8::from(last), &payload)
    }
}

/// The head of a data frame.
pub(super) fn data(stream: u32, length: usize, last: bool) -> [u8; 8] {
    let (id, length) = (stream.to_be_bytes(), u32::try_from(length).unwrap_or(0).to_be_bytes());
    [id[0] & 0x7f, id[1], id[2], id[3], if last { FIN } else { 0 }, length[1], length[2], length[3]]
}

pub(super) fn reset(stream: u32, why: Reset) -> Bytes {
    let mut payload = BytesMut::new();
    payload.put_u32(stream);
    payload.put_u32(why as u32);
    control(RST_STREAM, 0, &payload)
}

pub(super) fn ping(id: u32) -> Bytes {
    control(PING, 0, &id.to_be_bytes())
}

/// The connection ends: for the fault of the peer, or not.
pub(super) fn goaway(last: u32, fault: bool) -> Bytes {
    let mut payload = BytesMut::new();
    payload.put_u32(last);
    payload.put_u32(u32::from(fault));
    control(GOAWAY, 0, &payload)
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 8);
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    frame.put_u32(u32::from(flags) << 24 | u32::try_from(payload.len()).unwrap_or(0));
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data of one stream is joined, however it was cut.
    fn read(wire: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, Malformed> {
        let (mut decoder, mut input, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < wire.len() {
            let end = wire.len().min(at + cuts.next().unwrap().max(&1));
            input.extend_from_slice(&wire[at..end]);
            at = end;
            while let Some(frame) = decoder.next(&mut input)? {
                match (frames.last_mut(), frame) {
                    (
                        Some(Frame::Data { stream, bytes, last: end @ false }),
                        Frame::Data { stream: same, bytes: more, last },
                    ) if *stream == same => {
                        *bytes = [bytes.as_ref(), more.as_ref()].concat().into();
                        *end = last;
                    }
                    (_, frame) => frames.push(frame),
                }
            }
            assert!(input.len() <= CONTROL + 8);
        }
        Ok(frames)
    }

    /// Frames, and what is read of them.
    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let headers = prop::collection::vec(("[a-z]{1,9}", "[ -~]{0,30}"), 0..4).prop_map(Headers);
        let stream = 1_u32..0x7fff_ffff;
        let one = prop_oneof![
            (stream.clone(), headers, any::<bool>()).prop_map(|(stream, headers, last)| Frame::Open {
                stream,
                headers,
                last
            }),
            (stream.clone(), prop::collection::vec(any::<u8>(), 0..3000)).prop_map(|(stream, bytes)| Frame::Data {
                stream,
                bytes: bytes.into(),
                last: true
            }),
            stream.prop_map(|stream| Frame::Reset { stream }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            Just(Frame::Other),
        ];
        prop::collection::vec(one, 0..12)
    }

    fn write(frames: &[Frame]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let mut wire = Vec::new();
        for frame in frames {
            match frame {
                Frame::Open { stream, headers, last } => {
                    let headers: Vec<_> =
                        headers.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                    wire.extend(encoder.open(*stream, &headers, *last));
                }
                Frame::Data { stream, bytes, last } => {
                    wire.extend(data(*stream, bytes.len(), *last));
                    wire.extend_from_slice(bytes);
                }
                Frame::Reset { stream } => wire.extend(reset(*stream, Reset::Cancel)),
                Frame::Ping { id } => wire.extend(ping(*id)),
                Frame::Other => wire.extend(goaway(7, false)),
            }
        }
        wire
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_arrives(frames in frames(), cuts in prop::collection::vec(1_usize..2000, 1..8)) {
            prop_assert_eq!(read(&write(&frames), &cuts), Ok(frames));
        }

        #[test]
        fn damage_is_refused_or_read_as_something(frames in frames(), at: prop::sample::Index, to: u8, cuts in prop::collection::vec(1_usize..2000, 1..8)) {
            let mut wire = write(&frames);
            if !wire.is_empty() {
                let at = at.index(wire.len());
                wire[at] = to;
            }
            // It ends, within the bounds that `read` asserts.
            let _seen = read(&wire, &cuts);
        }

        #[test]
        fn noise_is_refused_or_read_as_something(wire in prop::collection::vec(any::<u8>(), 0..400), control: bool) {
            let wire = if control { [&[0x80, 3, 0], wire.as_slice()].concat() } else { wire };
            let _seen = read(&wire, &[3]);
        }
    }

    #[test]
    fn too_long_a_control_frame_is_refused_before_it_is_read() {
        let head = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];
        assert_eq!(read(&head, &[8]), Err(Malformed("a control frame that is too long")));
    }
}
