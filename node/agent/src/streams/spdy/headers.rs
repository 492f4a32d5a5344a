//! Header blocks: name and value pairs, deflated with the dictionary of SPDY/3, all blocks of a direction as one stream.

use bytes::{BufMut as _, BytesMut};
use flate2::{Decompress, FlushDecompress};

use super::Malformed;

/// What both ends know beforehand, from the protocol's text.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// The most that a block may hold.
const LIMIT: usize = 64 << 10;

/// A stream's headers, in order, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::streams) struct Headers(pub(super) Vec<(String, String)>);

impl Headers {
    /// The first value of a name, which is in lower case.
    pub(in crate::streams) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.split('\0').next().unwrap_or_default())
    }
}

/// Reads the blocks of one direction.
pub(super) struct Reader {
    inflate: Decompress,
    begun: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { inflate: Decompress::new(false), begun: false }
    }

    /// Reads the next block.
    pub(super) fn read(&mut self, mut block: &[u8]) -> Result<Headers, Malformed> {
        if !self.begun {
            block = self.begin(block)?;
        }
        parse(&self.inflate(block)?)
    }

    /// The two bytes that begin a zlib stream, and the dictionary's checksum where it is used.
    fn begin<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], Malformed> {
        const USES_DICTIONARY: u8 = 0x20;
        let [method, flags, rest @ ..] = block else { return Err(Malformed("a zlib stream without a head")) };
        if method & 0xf != 8 || u16::from_be_bytes([*method, *flags]) % 31 != 0 {
            return Err(Malformed("not a zlib stream"));
        }
        self.begun = true;
        if flags & USES_DICTIONARY == 0 {
            return Ok(rest);
        }
        // A stored block puts the dictionary where it would be found had it been sent.
        self.inflate(&stored(DICTIONARY))?;
        rest.get(4..).ok_or(Malformed("a zlib stream without its dictionary's name"))
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut output = Vec::with_capacity(4 << 10);
        loop {
            let (read, written) = (self.inflate.total_in(), output.len());
            self.inflate
                .decompress_vec(input, &mut output, FlushDecompress::None)
                .map_err(|_| Malformed("a header block that cannot be inflated"))?;
            let read = usize::try_from(self.inflate.total_in() - read).unwrap_or(usize::MAX);
            input = input.get(read..).unwrap_or_default();
            if output.len() > LIMIT {
                return Err(Malformed("a header block that is too long"));
            }
            if output.len() == output.capacity() {
                output.reserve(4 << 10);
            } else if input.is_empty() || (read == 0 && output.len() == written) {
                return Ok(output);
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Malformed> {
    let mut headers = Vec::new();
    for _ in 0..number(&mut block)? {
        let name = text(&mut block)?.to_ascii_lowercase();
        headers.push((name, text(&mut block)?));
    }
    Ok(Headers(headers))
}

fn number(block: &mut &[u8]) -> Result<u32, Malformed> {
    let (bytes, rest) = block.split_first_chunk().ok_or(Malformed("a header block that ends too soon"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*bytes))
}

fn text(block: &mut &[u8]) -> Result<String, Malformed> {
    let length = usize::try_from(number(block)?).unwrap_or(usize::MAX);
    let (bytes, rest) = block.split_at_checked(length).ok_or(Malformed("a header block that ends too soon"))?;
    *block = rest;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Writes the blocks of one direction: not compressed, since there is next to nothing to say.
#[derive(Default)]
pub(super) struct Writer {
    begun: bool,
}

impl Writer {
    pub(super) fn write(&mut self, headers: &Headers) -> BytesMut {
        let mut block = BytesMut::new();
        block.put_u32(u32::try_from(headers.0.len()).unwrap_or(0));
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(u32::try_from(text.len()).unwrap_or(0));
            block.put_slice(text.as_bytes());
        }
        let mut out = BytesMut::new();
        if !self.begun {
            self.begun = true;
            out.put_slice(&[0x78, 0x01]);
        }
        for part in block.chunks(usize::from(u16::MAX)) {
            out.put_slice(&stored(part));
        }
        // An empty block is what a flush looks like: readers give out what they have.
        out.put_slice(&stored(&[]));
        out
    }
}

/// A deflate block of bytes as they are, at most 65,535.
fn stored(bytes: &[u8]) -> BytesMut {
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    let mut block = BytesMut::with_capacity(bytes.len() + 5);
    block.put_u8(0);
    block.put_u16_le(length);
    block.put_u16_le(!length);
    block.put_slice(bytes);
    block
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two blocks as `compress/zlib` of Go writes them with the dictionary, flushed after each.
    const FIRST: &str =
        "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c60616061c0c0c0c0590489c64c50f2663400000000ffff";
    const SECOND: &str = "c2aa19540e2512d60b000000ffff";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_go_compresses_is_read() {
        let mut reader = Reader::new();
        let first = reader.read(&bytes(FIRST)).unwrap();
        assert_eq!(
            (first.get("streamtype"), first.get("port"), first.get("none")),
            (Some("error"), Some("8080"), None)
        );
        let second = reader.read(&bytes(SECOND)).unwrap();
        assert_eq!((second.get("streamtype"), second.get("requestid")), (Some("data"), Some("0")));
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        use std::io::Write as _;
        let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        bomb.write_all(&vec![0; 64 << 20]).unwrap();
        let bomb = bomb.finish().unwrap();
        assert!(bomb.len() < 100 << 10);
        assert_eq!(Reader::new().read(&bomb), Err(Malformed("a header block that is too long")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(blocks in prop::collection::vec(prop::collection::vec(("[a-z-]{0,20}", ".{0,40}"), 0..8), 1..5)) {
            let (mut writer, mut reader) = (Writer::default(), Reader::new());
            for block in blocks.into_iter().map(Headers) {
                prop_assert_eq!(reader.read(&writer.write(&block)), Ok(block));
            }
        }

        #[test]
        fn anything_else_is_refused_or_short(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4), head: bool) {
            let mut reader = Reader::new();
            for block in blocks {
                let block = if head { [&[0x78, 0xbb, 0, 0, 0, 0], block.as_slice()].concat() } else { block };
                if let Ok(headers) = reader.read(&block) {
                    prop_assert!(headers.0.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= 4 * LIMIT);
                }
            }
        }
    }
}
