//! `tar -c` from a container's mounts.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Dir, FileType, OFlags, Stat, openat, readlinkat};
use tar::{Builder, EntryType, Header};

use super::Said;
use super::request::{absolute, is_entry};
use super::tree::{Tree, kind, look, open_regular};

/// Directories in each other, at most: each holds a file descriptor meanwhile.
const DEPTH: usize = 128;

/// Writes an archive of what is at `path`. What can't be read is told of, and the rest is written.
pub(super) fn pack(tree: &Tree, cwd: &str, path: &str, output: impl Write, said: &mut Said) -> io::Result<()> {
    let cannot =
        |error: io::Error| io::Error::new(error.kind(), format!("{path}: Cannot stat: {}", super::words(&error)));
    let place = tree.find(&absolute(cwd, path)).map_err(cannot)?;
    // Members' names are relative, as tar's are.
    let name = absolute("/", path);
    let name = Path::new(name.trim_start_matches('/'));
    // Opened before the archive begins: of what isn't there nothing is written, not even an archive's end, at which kubectl cp
    // would be done before it is told of the failure.
    let found = match place.split().map_err(cannot)? {
        None => Found::Root(place.open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(cannot)?),
        Some((parent, last)) => {
            let last = OsStr::new(last);
            let found = look(&parent, last).map_err(cannot)?;
            Found::Entry(parent, last, found.ok_or_else(|| cannot(rustix::io::Errno::NOENT.into()))?)
        }
    };
    let mut packing = Packing { archive: Builder::new(output), said };
    match found {
        Found::Root(opened) => packing.directory(opened, name, 0)?,
        Found::Entry(parent, last, found) => packing.entry(&parent, last, &found, name, 0)?,
    }
    packing.archive.into_inner()?.flush()
}

/// What is to be packed.
enum Found<'a> {
    /// A mount itself.
    Root(OwnedFd),
    /// In a directory, under a name.
    Entry(OwnedFd, &'a OsStr, Stat),
}

struct Packing<'a, W: Write> {
    archive: Builder<W>,
    said: &'a mut Said,
}

impl<W: Write> Packing<'_, W> {
    /// Fails where the archive can't be written.
    fn entry(&mut self, parent: &OwnedFd, name: &OsStr, found: &Stat, path: &Path, depth: usize) -> io::Result<()> {
        match kind(found) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(parent, name, flags, rustix::fs::Mode::empty()) {
                    Ok(opened) => self.directory(opened, path, depth),
                    Err(error) => self.skip(path, "Cannot open", &error.into()),
                }
            }
            FileType::RegularFile => match open_regular(parent, name, OFlags::RDONLY) {
                Ok(file) => {
                    let size = file.metadata()?.len();
                    let mut header = header(found, EntryType::Regular);
                    header.set_size(size);
                    // A file that shrinks meanwhile is filled up: its size has been told.
                    let content = file.take(size).chain(io::repeat(0)).take(size);
                    self.archive.append_data(&mut header, path, content)
                }
                Err(error) => self.skip(path, "Cannot open", &error),
            },
            FileType::Symlink => match readlinkat(parent, name, Vec::new()) {
                Ok(target) => {
                    let mut header = header(found, EntryType::Symlink);
                    self.archive.append_link(&mut header, path, OsStr::from_bytes(target.as_bytes()))
                }
                Err(error) => self.skip(path, "Cannot readlink", &error.into()),
            },
            // Sockets, pipes and devices have no content to copy.
            _ => Ok(()),
        }
    }

    fn directory(&mut self, dir: OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        let found = rustix::fs::fstat(&dir)?;
        let mut header = header(&found, EntryType::Directory);
        header.set_size(0);
        // A mount at the root has no name.
        if !path.as_os_str().is_empty() {
            self.archive.append_data(&mut header, path.join(""), io::empty())?;
        }
        if depth == DEPTH {
            return self.skip(path, "Cannot open", &io::Error::other("too deep"));
        }
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !is_entry(name) {
                continue;
            }
            // What has gone meanwhile is not there.
            if let Some(found) = look(&dir, name)? {
                self.entry(&dir, name, &found, &path.join(name), depth + 1)?;
            }
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, what: &str, error: &io::Error) -> io::Result<()> {
        self.said.problem(&format!("{}: {what}: {}", path.display(), super::words(error)));
        Ok(())
    }
}

fn header(found: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(found.st_mode & 0o7777);
    header.set_uid(found.st_uid.into());
    header.set_gid(found.st_gid.into());
    header.set_mtime(u64::try_from(found.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}
