//! `tar -x` into a container's mounts.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, linkat, mkdirat, symlinkat};
use rustix::io::Errno;
use tar::EntryType;

use super::Said;
use super::archive::{Archive, Member};
use super::request::{absolute, member};
use super::tree::{Place, Tree, kind, look, make_room, open_regular};

/// A path is no longer than a kernel takes.
const PATH: usize = 4096;

/// Unpacks an archive into `dir`. A member that can't be put there is told of, and the others are put.
pub(super) fn unpack(tree: &Tree, dir: &str, same_modes: bool, input: impl Read, said: &mut Said) -> io::Result<()> {
    if !tree.is_directory(dir) {
        let missing = tree.find(dir).and_then(|place| place.open(OFlags::PATH | OFlags::DIRECTORY)).err();
        let error = missing.unwrap_or_else(|| Errno::NOENT.into());
        return Err(io::Error::new(error.kind(), format!("{dir}: Cannot open: {}", super::words(&error))));
    }
    let masked = if same_modes { 0 } else { 0o022 };
    let mut archive = Archive::new(input);
    while let Some(member) = archive.next()? {
        let put = Putting { tree, dir, mode: member.mode & 0o777 & !masked };
        if let Err(error) = put.member(&member, &mut archive) {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                return Err(error);
            }
            said.problem(&format!("{}: {}", String::from_utf8_lossy(&member.name), super::words(&error)));
        }
    }
    Ok(())
}

/// Puts one member.
struct Putting<'a> {
    tree: &'a Tree,
    dir: &'a str,
    mode: u32,
}

impl Putting<'_> {
    fn member(&self, what: &Member, content: &mut impl Read) -> io::Result<()> {
        let place = self.place(&what.name)?;
        place.check_writable()?;
        let mode = Mode::from_raw_mode(self.mode);
        if what.kind == EntryType::Directory {
            let made = self.directory(&place)?;
            // Its owner is who puts the next member there.
            return Ok(fchmod(&made, mode | Mode::RWXU)?);
        }
        let (above, name) = place.rest.rsplit_once('/').unwrap_or(("", &place.rest));
        if name.is_empty() {
            return Err(Errno::ISDIR.into());
        }
        let parent = place.mount.make_directory(above)?;
        let name = OsStr::new(name);
        match what.kind {
            EntryType::Regular | EntryType::Continuous => {
                let mut file = regular(&parent, name)?;
                file.set_len(0)?;
                io::copy(content, &mut file)?;
                Ok(fchmod(&file, mode)?)
            }
            EntryType::Symlink => {
                make_room(&parent, name)?;
                Ok(symlinkat(OsStr::new(text(&what.link)?), &parent, name)?)
            }
            EntryType::Link => self.link(&what.link, &place, &parent, name),
            other => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("Unknown file type: {other:?}; files, directories and links are copied"),
            )),
        }
    }

    fn place(&self, name: &[u8]) -> io::Result<Place> {
        let beneath = member(name)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "Member name contains '..' or is no text"))?;
        let path = absolute(self.dir, &beneath);
        if path.len() > PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        self.tree.find(&path)
    }

    fn directory(&self, place: &Place) -> io::Result<OwnedFd> {
        let (above, name) = place.rest.rsplit_once('/').unwrap_or(("", &place.rest));
        if !name.is_empty() {
            let parent = place.mount.make_directory(above)?;
            match mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        place.open(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Another name for a file of the same mount: one of another might be read-only there.
    fn link(&self, target: &[u8], place: &Place, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = self.place(target)?;
        if !std::sync::Arc::ptr_eq(&target.mount, &place.mount) {
            return Err(Errno::XDEV.into());
        }
        let Some((dir, file)) = target.split()? else { return Err(Errno::ISDIR.into()) };
        make_room(parent, name)?;
        Ok(linkat(&dir, file, parent, name, AtFlags::empty())?)
    }
}

/// The file at a name, to be written: the one that is there, so that whoever has it open, or mounted, sees what is written; or a new
/// one in place of anything else.
fn regular(parent: &OwnedFd, name: &OsStr) -> io::Result<File> {
    if look(parent, name)?.is_some_and(|found| kind(&found) != FileType::RegularFile) {
        make_room(parent, name)?;
    }
    open_regular(parent, name, OFlags::WRONLY | OFlags::CREATE)
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty() && text.len() <= PATH && !text.contains('\0'))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "where the link leads is no text"))
}
