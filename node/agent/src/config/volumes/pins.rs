//! Names for what subPaths were found to be, for runtimes in processes of their own, which know sources by their paths alone.
//!
//! What a handle stands for is mounted at a place of the agent's own: nobody can turn that into another file. A pin lasts until
//! the runtime has mounted it in the container. It never lies below the data directory: who removes that must not find a way
//! into a volume. Those of a life that was killed go at the next start.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::mount::{MsFlags, mount};

use super::sub_path::path_of;
use super::unmount::{remove_all, unmount_below};
use crate::memory::{RUN, run_dir};

/// The pins of one agent.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    next: AtomicU64,
}

impl Pins {
    /// None yet, for the agent whose data lies at `data_dir`.
    pub(crate) fn new(data_dir: &Path) -> io::Result<Self> {
        let root = run_dir("subpaths", data_dir)?;
        remove_all(&root)?;
        Ok(Self { root, next: AtomicU64::new(0) })
    }

    /// A name for what `handle` stands for, and for what is mounted beneath it.
    pub(crate) fn pin(self: &Arc<Self>, handle: OwnedFd) -> io::Result<Pin> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        let source = path_of(&handle);
        let is_dir = fs::metadata(&source)?.is_dir();
        let dir = self.root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&dir)?;
        let pin = Pin { place: dir.join("pin"), dir, handle, _pins: self.clone() };
        if is_dir {
            fs::create_dir(&pin.place)?;
        } else {
            fs::File::create_new(&pin.place)?;
        }
        mount(Some(&source), &pin.place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
        Ok(pin)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Where there was none, there is nothing; others may have theirs beside it.
        let _missing = fs::remove_dir(&self.root);
        let _in_use = fs::remove_dir(RUN);
    }
}

/// One pin: it lasts as long as this.
#[derive(Debug)]
pub(crate) struct Pin {
    dir: PathBuf,
    place: PathBuf,
    handle: OwnedFd,
    _pins: Arc<Pins>,
}

impl Pin {
    /// Its name.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let removed = unmount_below(&self.dir).and_then(|()| {
            // Not what is in it: were anything mounted there still, it would be somebody's.
            fs::remove_dir(&self.place).or_else(|_| fs::remove_file(&self.place))?;
            fs::remove_dir(&self.dir)
        });
        if let Err(error) = removed {
            tracing::warn!(dir = %self.dir.display(), %error, "a subPath's mount is left until the agent's next start");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::sub_path::open;
    use super::*;

    fn is_mounted_below(dir: &Path) -> bool {
        let dir = dir.to_string_lossy().into_owned();
        fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&format!(" {dir}/"))
    }

    #[test]
    fn a_pin_is_what_was_opened_and_goes_without_what_it_shows() {
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("left out: mounting needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (volume, data) = (dir.path().join("v"), dir.path().join("data"));
        fs::create_dir_all(volume.join("sub/other")).unwrap();
        fs::write(volume.join("sub/file"), "mine").unwrap();
        // A filesystem of the machine's beneath the volume, shared as a machine's are.
        let none = None::<&str>;
        mount(Some(&volume), &volume, none, MsFlags::MS_BIND, none).unwrap();
        mount(none, &volume, none, MsFlags::MS_SHARED, none).unwrap();
        mount(Some("other"), &volume.join("sub/other"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::write(volume.join("sub/other/mine"), "mine").unwrap();

        let pins = Arc::new(Pins::new(&data).unwrap());
        let of = |path: &str| pins.pin(open(&volume, Path::new(path)).unwrap()).unwrap();
        let (sub, file) = (of("sub"), of("sub/file"));
        fs::rename(volume.join("sub/file"), volume.join("sub/moved")).unwrap();
        assert_eq!(fs::read_to_string(file.place()).unwrap(), "mine");
        assert_eq!(fs::read_to_string(sub.place().join("other/mine")).unwrap(), "mine");
        assert!(!sub.place().starts_with(dir.path()));

        // As if that life had been killed.
        let root = pins.root.clone();
        std::mem::forget((sub, file));
        let pins = Arc::new(Pins::new(&data).unwrap());
        assert!(!is_mounted_below(&root) && !root.exists());
        let sub = pins.pin(open(&volume, Path::new("sub")).unwrap()).unwrap();
        assert_eq!(fs::metadata(sub.place()).unwrap().ino(), fs::metadata(volume.join("sub")).unwrap().ino());
        drop(sub);
        drop(pins);
        assert!(!is_mounted_below(&root) && !root.exists());
        assert_eq!(fs::read_to_string(volume.join("sub/moved")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(volume.join("sub/other/mine")).unwrap(), "mine", "the machine's own mount");
        unmount_below(dir.path()).unwrap();
    }
}
