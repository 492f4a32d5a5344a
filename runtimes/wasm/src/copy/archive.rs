//! Reads a tar archive member by member. The archive is not trusted: names are bounded, sizes are what is read.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

/// The most that a member's extended header (a long name, as a rule) is.
const EXTENSION: u64 = 64 << 10;
const BLOCK: u64 = 512;

/// The members of an archive.
pub(crate) struct Archive<R> {
    input: R,
    /// What is left of the member's content, and the padding behind it.
    left: u64,
    padding: u64,
}

/// A file in an archive; its content is read from the archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) kind: EntryType,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
}

/// What comes before a member's own header.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// The next member, or the archive's end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(damaged)?;
            match header.entry_type() {
                EntryType::XHeader => self.pax(size, &mut extensions)?,
                EntryType::GNULongName => extensions.name = Some(self.text(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.text(size)?),
                EntryType::XGlobalHeader => drop(self.text(size)?),
                kind => {
                    let size = extensions.size.unwrap_or(size);
                    self.content(if kind.is_file() || kind == EntryType::Continuous { size } else { 0 });
                    return Ok(Some(Member {
                        kind,
                        name: extensions.name.unwrap_or_else(|| header.path_bytes().into_owned()),
                        link: extensions
                            .link
                            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
                            .unwrap_or_default(),
                        mode: header.mode().map_err(damaged)?,
                    }));
                }
            }
        }
    }

    /// A header; none at the end, which is a block of zeros or where nothing more is.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        if self.input.read(&mut block[..1])? == 0 {
            return Ok(None);
        }
        self.input.read_exact(&mut block[1..])?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The sum counts its own field as spaces.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, &byte)| u32::from(if (148..156).contains(&at) { b' ' } else { byte }))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(damaged("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn content(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    /// An extended header's content.
    fn text(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION {
            return Err(damaged("a name is too long"));
        }
        self.content(size);
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        if let Some(end) = text.iter().position(|&byte| byte == 0) {
            text.truncate(end);
        }
        Ok(text)
    }

    fn pax(&mut self, size: u64, extensions: &mut Extensions) -> io::Result<()> {
        for extension in PaxExtensions::new(&self.text(size)?) {
            let extension = extension?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" => extensions.name = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    extensions.size = Some(size.ok_or_else(|| damaged("a size is no number"))?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// To the end of the member that was read last.
    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        self.left = 0;
        self.padding = 0;
        if io::copy(&mut self.input.by_ref().take(rest), &mut io::sink())? < rest {
            return Err(ended());
        }
        Ok(())
    }
}

/// The content of the member that was read last.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.input.read(&mut into[..most])? {
            0 if most > 0 => Err(ended()),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "Unexpected EOF in archive")
}

fn damaged(problem: impl ToString) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("This does not look like a tar archive: {}", problem.to_string()),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn entry(kind: EntryType, name: &str, body: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_size(body.len() as u64);
        header.set_mode(0o640);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    #[test]
    fn members_have_their_extended_names() {
        let long = "n".repeat(300);
        let record = format!("{} path={long}\n", 300 + 10);
        let bytes = [
            entry(EntryType::XHeader, "x", record.as_bytes()),
            entry(EntryType::Regular, "short", b"content"),
            entry(EntryType::Regular, "left-unread", &[1; 700]),
            entry(EntryType::Directory, "d/", b""),
            vec![0; 1024],
            b"what is behind the end".to_vec(),
        ]
        .concat();
        let mut archive = Archive::new(&*bytes);
        let mut next = || {
            let member = archive.next().unwrap()?;
            let mut content = Vec::new();
            if member.name != b"left-unread" {
                archive.read_to_end(&mut content).unwrap();
            }
            Some((String::from_utf8(member.name).unwrap(), member.kind, content))
        };
        assert_eq!(next(), Some((long.clone(), EntryType::Regular, b"content".to_vec())));
        assert_eq!(next().unwrap().0, "left-unread");
        assert_eq!(next(), Some(("d/".into(), EntryType::Directory, Vec::new())));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let whole = entry(EntryType::Regular, "a", &[7; 600]);
        let of = |bytes: &[u8]| {
            let mut archive = Archive::new(bytes);
            let read = archive.next().and_then(|_| archive.read_to_end(&mut Vec::new()));
            read.and_then(|_| archive.next()).unwrap_err().to_string()
        };
        assert!(of(&whole[..900]).contains("Unexpected EOF"));
        assert!(of(&[b"no archive".to_vec(), vec![b'x'; 600]].concat()).contains("does not look like a tar archive"));
        let endless = {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::GNULongName);
            header.set_path("x").unwrap();
            header.set_size(1 << 40);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        assert!(of(&endless).contains("a name is too long"));
        assert_eq!(Archive::new(&b""[..]).next().unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(0_u8.., 0..2048)) {
            let mut archive = Archive::new(&*bytes);
            while let Ok(Some(_)) = archive.next() {}
        }
    }
}
