//! A container's mounts as one tree of files, in which no path leads out of the mount where it begins.
//!
//! The kernel resolves each path beneath its mount's root (openat2, RESOLVE_BENEATH): whatever links there are, and whoever moves
//! what meanwhile, what is opened is inside.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

/// The mounts of one container, open.
pub(crate) struct Tree {
    mounts: Vec<Arc<Mounted>>,
}

/// One of them.
pub(crate) struct Mounted {
    target: String,
    root: OwnedFd,
    writable: bool,
}

/// A path beneath a mount; the mount itself where `rest` is empty.
pub(crate) struct Place {
    pub(crate) mount: Arc<Mounted>,
    pub(crate) rest: String,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { mounts: Vec::new() }
    }

    /// Adds the directory `source`, seen at `target`.
    pub(crate) fn add(&mut self, source: &Path, target: String, writable: bool) -> io::Result<()> {
        let root = openat(CWD, source, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        self.mounts.push(Arc::new(Mounted { target, root, writable }));
        Ok(())
    }

    /// The mount that an absolute path without dots is in.
    pub(crate) fn find(&self, path: &str) -> io::Result<Place> {
        let inside = self.mounts.iter().filter_map(|mount| Some((mount, beneath(&mount.target, path)?)));
        let found = inside.min_by_key(|(_, rest)| rest.len());
        let (mount, rest) = found.ok_or_else(|| {
            let text = "not in a volume of the container: WebAssembly has no other files";
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        })?;
        Ok(Place { mount: Arc::clone(mount), rest: rest.to_owned() })
    }

    /// Whether a path is a directory. What leads to a mount is one, too.
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        self.mounts.iter().any(|mount| beneath(path, &mount.target).is_some())
            || self.find(path).and_then(|place| place.open(OFlags::PATH | OFlags::DIRECTORY)).is_ok()
    }
}

/// What is left of `path` beneath `dir`; none where it isn't there.
fn beneath<'a>(dir: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(dir.trim_end_matches('/'))?;
    match rest.strip_prefix('/') {
        Some(rest) => Some(rest),
        None => rest.is_empty().then_some(""),
    }
}

impl Place {
    /// Opens what is there.
    pub(crate) fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        self.mount.open(&self.rest, flags)
    }

    /// The directory that it is in and its name there, for what does not follow links. None for the mount itself.
    pub(crate) fn split(&self) -> io::Result<Option<(OwnedFd, &str)>> {
        let (parent, name) = self.rest.rsplit_once('/').unwrap_or(("", &self.rest));
        if name.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.mount.open(parent, OFlags::PATH | OFlags::DIRECTORY)?, name)))
    }

    /// Refused where the mount is read-only.
    pub(crate) fn check_writable(&self) -> io::Result<()> {
        if self.mount.writable { Ok(()) } else { Err(Errno::ROFS.into()) }
    }
}

impl Mounted {
    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Something was renamed under the kernel's hands.
                Err(Errno::AGAIN) => {}
                Err(Errno::XDEV) => {
                    let text = "a link leads out of the volume";
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// The directory `path`, made where it is missing, with those that lead there.
    pub(crate) fn make_directory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let mut parent = self.open("", flags)?;
        let mut reached = String::new();
        for part in Path::new(path).components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_str().unwrap_or_default();
            reached = if reached.is_empty() { name.to_owned() } else { format!("{reached}/{name}") };
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            parent = self.open(&reached, flags)?;
        }
        Ok(parent)
    }
}

/// What is at a name, links not followed.
pub(crate) fn look(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is at a name is removed unless it is a directory: as tar makes room for what it unpacks.
pub(crate) fn make_room(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match look(dir, name)? {
        Some(found) if kind(&found) == FileType::Directory => Err(Errno::ISDIR.into()),
        Some(_) => Ok(unlinkat(dir, name, AtFlags::empty())?),
        None => Ok(()),
    }
}

/// Opens the regular file at a name: no link is followed, and nothing is waited for.
pub(crate) fn open_regular(dir: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::from_raw_mode(0o600))?;
    if kind(&fstat(&file)?) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(File::from(file))
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_in_the_mount_that_is_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        for target in ["/data", "/data/in", "/srv/www"] {
            tree.add(dir.path(), target.into(), true).unwrap();
        }
        let found = |path: &str| tree.find(path).ok().map(|place| (place.mount.target.clone(), place.rest));
        let is = |target: &str, rest: &str| Some((target.to_owned(), rest.to_owned()));
        assert_eq!(found("/data/x/y"), is("/data", "x/y"));
        assert_eq!(found("/data/in/y"), is("/data/in", "y"));
        assert_eq!(found("/data/inner"), is("/data", "inner"));
        assert_eq!(found("/data"), is("/data", ""));
        assert_eq!((found("/database"), found("/srv"), found("/")), (None, None, None));
        for (path, is) in [("/", true), ("/srv", true), ("/srv/www", true), ("/sr", false), ("/data/x", false)] {
            assert_eq!(tree.is_directory(path), is, "{path}");
        }
    }
}
