//! An image as a directory, for Pods that mount it (`volumes[].image`): its layers laid over each other, or a module as
//! the one file `module.wasm`.
//!
//! The archives are not trusted. Every path is resolved by the kernel with the directory as its root (openat2,
//! RESOLVE_IN_ROOT), so that no link of one entry leads a later one out; devices are left out, set-user-id bits are dropped, sizes
//! and counts are bounded as everywhere. The directory gets its name once it is complete.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tar::{Archive, EntryType};
use wherry_runtime::{Descriptor, Image};

use crate::ImageError;
use crate::compat::Capped;
use crate::images::{Images, Limits};
use crate::kind::normal_path;
use crate::media::{self, Layer};

/// The name of a Wasm artifact's file.
const MODULE: &str = "module.wasm";
/// Even a small layer may unpack to this much: tar pads to 10 KiB, and zeros compress well.
const RATIO_FLOOR: u64 = 1 << 20;

impl Images {
    /// Unpacks an image's files into a new directory `dir`, whose parent exists; nothing is done where it is there. Blocking.
    ///
    /// # Errors
    /// What is wrong with a layer, or the disk's answer.
    pub fn unpack(&self, image: &Image, dir: &Path) -> Result<(), ImageError> {
        if dir.exists() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new("/"));
        let fresh = tempfile::Builder::new()
            .prefix(".unpacking-")
            .tempdir_in(parent)
            .map_err(|error| ImageError::io("create a directory in", parent, error))?;
        fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))
            .map_err(|error| ImageError::io("open up", fresh.path(), error))?;
        for layer in &image.layers {
            lay(fresh.path(), &image.reference, layer, &self.inner.limits)?;
        }
        let fresh = fresh.keep();
        match fs::rename(&fresh, dir) {
            Ok(()) => Ok(()),
            // Somebody else was as fast.
            Err(_) if dir.exists() => {
                fs::remove_dir_all(&fresh).map_err(|error| ImageError::io("remove", &fresh, error))
            }
            Err(error) => Err(ImageError::io("name", dir, error)),
        }
    }
}

/// Lays a layer over what is there.
fn lay(root: &Path, what: &str, layer: &Descriptor, limits: &Limits) -> Result<(), ImageError> {
    let bad = |problem: String| ImageError::malformed(format!("{what}: layer {}", layer.digest), problem);
    let file = File::open(&layer.path).map_err(|error| ImageError::io("open", &layer.path, error))?;
    let reader: Box<dyn Read> = match media::layer(&layer.media_type) {
        Layer::Wasm => {
            let to = root.join(MODULE);
            fs::copy(&layer.path, &to).map_err(|error| ImageError::io("write", &to, error))?;
            return fs::set_permissions(&to, fs::Permissions::from_mode(0o644))
                .map_err(|error| ImageError::io("open up", &to, error));
        }
        Layer::Tar => Box::new(file),
        Layer::TarGzip => Box::new(MultiGzDecoder::new(io::BufReader::new(file))),
        Layer::TarZstd | Layer::Unknown => {
            return Err(ImageError::Unsupported {
                what: what.to_owned(),
                media_type: layer.media_type.clone(),
                hint: "layers of an image volume are tar or tar+gzip".to_owned(),
            });
        }
    };
    let left = layer.size.saturating_mul(limits.ratio).max(RATIO_FLOOR);
    let mut archive = Archive::new(Capped { inner: reader, left });
    let root = Root(File::open(root).map_err(|error| ImageError::io("open", root, error))?);
    let entries = archive.entries().map_err(|error| bad(format!("it is not a tar archive: {error}")))?;
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| bad(format!("the archive is damaged: {error}")))?;
        if count as u64 >= limits.entries {
            return Err(bad(format!("it has more than {} entries", limits.entries)));
        }
        let Some(name) = std::str::from_utf8(&entry.path_bytes()).ok().and_then(normal_path) else {
            return Err(bad("a path in it leads out of the image".to_owned()));
        };
        root.put(&name, &mut entry).map_err(|error| bad(format!("/{name}: {error}")))?;
    }
    Ok(())
}

struct Root(File);

impl Root {
    fn put(&self, name: &str, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
        let (parent, base) = name.rsplit_once('/').unwrap_or(("", name));
        if let Some(hidden) = base.strip_prefix(".wh.") {
            return self.hide(parent, hidden);
        }
        let kind = entry.header().entry_type();
        let mode = entry.header().mode()? & 0o1777;
        if base.is_empty() {
            return self.finish(&path_of(&self.open("")?), entry, mode);
        }
        let directory = self.directory(parent)?;
        let place = path_of(&directory).join(base);
        let there = fs::symlink_metadata(&place).ok();
        if kind == EntryType::Directory {
            if !there.as_ref().is_some_and(fs::Metadata::is_dir) {
                remove(&place, there.as_ref())?;
                fs::create_dir(&place)?;
            }
            return self.finish(&place, entry, mode);
        }
        remove(&place, there.as_ref())?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&place)?;
                io::copy(entry, &mut file)?;
                self.finish(&place, entry, mode)
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nothing"))?;
                symlink(target, &place)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("a link to nothing"))?;
                let target = std::str::from_utf8(&target).ok().and_then(normal_path);
                let target = target.ok_or_else(|| io::Error::other("a link that leads out of the image"))?;
                let (parent, base) = target.rsplit_once('/').unwrap_or(("", &target));
                fs::hard_link(path_of(&self.open(parent)?).join(base), &place)
            }
            // Devices, pipes: nothing that a volume of files needs.
            _ => Ok(()),
        }
    }

    /// Gives what was made its mode, and (as root) its owner.
    fn finish(&self, place: &Path, entry: &tar::Entry<'_, impl Read>, mode: u32) -> io::Result<()> {
        let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
        let (user, group) = (id(entry.header().uid()), id(entry.header().gid()));
        match lchown(place, user, group) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
        fs::set_permissions(place, fs::Permissions::from_mode(mode))
    }

    /// A whiteout: what lower layers have there is gone.
    fn hide(&self, parent: &str, hidden: &str) -> io::Result<()> {
        let directory = match self.open(parent) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if hidden != ".wh..opq" {
            let place = path_of(&directory).join(hidden);
            return remove(&place, fs::symlink_metadata(&place).ok().as_ref());
        }
        for entry in fs::read_dir(path_of(&directory))? {
            let entry = entry?;
            remove(&entry.path(), Some(&entry.metadata()?))?;
        }
        Ok(())
    }

    /// A directory of the image, made where it is missing.
    fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let (parent, base) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.directory(parent)?;
        let place = path_of(&directory).join(base);
        fs::create_dir(&place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        self.open(path)
    }

    fn open(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let path = if path.is_empty() { "." } else { path };
        loop {
            match openat2(&self.0, path, OpenHow::new().flags(flags).resolve(resolve)) {
                Err(Errno::EAGAIN) => {}
                found => return Ok(found?),
            }
        }
    }
}

fn remove(place: &Path, there: Option<&fs::Metadata>) -> io::Result<()> {
    match there {
        None => Ok(()),
        Some(meta) if meta.is_dir() => fs::remove_dir_all(place),
        Some(_) => fs::remove_file(place),
    }
}

/// The name by which the kernel finds the open directory itself.
fn path_of(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// One entry of an archive: name, kind, what it holds or leads to.
    type Given<'a> = (&'a str, EntryType, &'a str);

    fn layer(dir: &Path, name: &str, entries: &[Given<'_>]) -> Descriptor {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Paths as they are: the library would refuse what is tried here.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4644);
            header.set_uid(0);
            header.set_gid(0);
            let body = if *kind == EntryType::Regular { content.as_bytes() } else { b"" };
            header.set_size(body.len() as u64);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_cksum();
            archive.append(&header, body).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let path = dir.join(name);
        fs::write(&path, &bytes).unwrap();
        Descriptor { media_type: media::OCI_LAYER.to_owned(), digest: name.to_owned(), size: bytes.len() as u64, path }
    }

    use EntryType::{Char, Link, Regular, Symlink};

    #[test]
    fn layers_lie_over_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let lower = [
            ("usr/lib/a", Regular, "old"),
            ("lib", Symlink, "usr/lib"),
            ("gone", Regular, "x"),
            ("full/x", Regular, "x"),
            ("full/y", Regular, "y"),
            ("hard", Link, "usr/lib/a"),
            ("null", Char, ""),
        ];
        let upper = [
            ("lib/b", Regular, "through the link"),
            (".wh.gone", Regular, ""),
            ("full/.wh..wh..opq", Regular, ""),
            ("full/z", Regular, "z"),
            ("usr/lib/a", Regular, "new"),
            ("/abs", Symlink, "/usr/lib"),
            ("abs/c", Regular, "c"),
        ];
        for (name, entries) in [("lower", &lower[..]), ("upper", &upper)] {
            lay(&root, "image", &layer(dir.path(), name, entries), &Limits::default()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        assert_eq!(read("usr/lib/a"), "new");
        assert_eq!(read("hard"), "old");
        assert_eq!(read("usr/lib/b"), "through the link");
        assert_eq!(read("usr/lib/c"), "c", "a link from the root is one from the image's root");
        assert!(!root.join("gone").exists() && !root.join("full/x").exists() && !root.join("null").exists());
        assert_eq!(read("full/z"), "z");
        assert_eq!(fs::metadata(root.join("usr/lib/b")).unwrap().permissions().mode() & 0o7777, 0o644);
    }

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("mine"), "mine").unwrap();
        let away = outside.display().to_string();
        let tries: [&[Given<'_>]; 6] = [
            &[("../outside/x", Regular, "x")],
            &[("link", Symlink, "../outside"), ("link/x", Regular, "x")],
            &[("link", Symlink, &away), ("link/x", Regular, "x")],
            &[("link", Link, "../outside/mine"), ("link", Regular, "x")],
            &[("link", Symlink, "../outside/mine"), ("link", Regular, "x")],
            &[("link", Symlink, &away), ("link/.wh.mine", Regular, "")],
        ];
        for (n, entries) in tries.iter().enumerate() {
            let root = dir.path().join(format!("root{n}"));
            fs::create_dir(&root).unwrap();
            let _refused_or_inside =
                lay(&root, "image", &layer(dir.path(), &format!("l{n}"), entries), &Limits::default());
            let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["mine"], "{entries:?}");
            assert_eq!(fs::read_to_string(outside.join("mine")).unwrap(), "mine", "{entries:?}");
        }
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let many = layer(dir.path(), "many", &[("a", Regular, ""), ("b", Regular, ""), ("c", Regular, "")]);
        let limits = Limits { entries: 2, ..Limits::default() };
        assert!(lay(&root, "image", &many, &limits).unwrap_err().to_string().contains("more than 2 entries"));
        let zeros = "0".repeat(3 << 20);
        let mut large = layer(dir.path(), "large", &[("a", Regular, &zeros)]);
        large.size = 1;
        assert!(lay(&root, "image", &large, &Limits::default()).unwrap_err().to_string().contains("far more"));
    }
}
