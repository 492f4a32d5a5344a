//! A place in memory for what a machine's agents write: no inode of its disk, and no Secret on it.
//!
//! It is a tmpfs at `/run/wherry/memory-…`, one for all nodes of a data directory. It never lies below the data directory, whoever removes
//! which must find no mount there. It outlives the process, as containers do that have what lies in it, and the next process finds it
//! again; once nothing runs any more it goes. The mount's source names the data directory: where that is gone, the next cluster of the machine
//! removes what was left.
//!
//! Containers and guests may only read what lies there, so that none of them fills it: what they may write (last messages, `/etc/hosts`) is
//! on the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use sha2::{Digest as _, Sha256};

use crate::config::volumes::{Mounted, mounted, unmount_at};

/// Where what Wherry has of this machine beside its data directories lies.
pub(crate) const RUN: &str = "/run/wherry";

/// What its name begins with.
const NAME: &str = "memory";

/// A part of the machine's memory that the place may take, and no less than [`LEAST`].
const PART: u64 = 8;
const LEAST: u64 = 64 << 20;
/// One inode for each page: what lies there are small files.
const BYTES_PER_INODE: u64 = 4096;

/// The name in [`RUN`] of what belongs to `data_dir`, by whichever path that is reached.
pub(crate) fn run_dir(what: &str, data_dir: &Path) -> io::Result<PathBuf> {
    let data_dir = data_dir.canonicalize().or_else(|_| std::path::absolute(data_dir))?;
    let name = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let name: String = name.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(Path::new(RUN).join(format!("{what}-{name}")))
}

/// A place in memory, mounted.
#[derive(Debug)]
pub struct Memory {
    place: PathBuf,
    found: bool,
}

impl Memory {
    /// That of `data_dir`, of a machine with so many bytes of memory: found, or mounted. None where this process may mount nothing.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(data_dir: &Path, machine_bytes: u64) -> io::Result<Option<Self>> {
        use std::os::unix::fs::DirBuilderExt as _;
        if !nix::unistd::Uid::effective().is_root() {
            return Ok(None);
        }
        let place = run_dir(NAME, data_dir)?;
        let mounts = mounted()?;
        remove_orphans(&mounts);
        if mounts.iter().any(|mount| mount.point == place) {
            return Ok(Some(Self { place, found: true }));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        match mount_at(&place, &data_dir.canonicalize()?, machine_bytes) {
            Ok(()) => Ok(Some(Self { place, found: false })),
            Err(error) => {
                forget(&place);
                // Root of a container without the right to mount.
                if error == Errno::EPERM { Ok(None) } else { Err(error.into()) }
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Whether an earlier process left it, whose containers may have what lies in it.
    #[must_use]
    pub fn was_found(&self) -> bool {
        self.found
    }

    /// Unmounts it, with all that is in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(self) -> io::Result<()> {
        unmount_at(&self.place)?;
        forget(&self.place);
        Ok(())
    }
}

/// Removes what clusters left that were killed, and then removed from the disk.
fn remove_orphans(mounts: &[Mounted]) {
    let begins = format!("{NAME}-");
    let ours = |mount: &&Mounted| {
        mount.point.parent() == Some(Path::new(RUN))
            && mount.point.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(begins.as_bytes()))
    };
    for mount in mounts.iter().filter(ours) {
        if matches!(mount.source.try_exists(), Ok(false)) {
            match unmount_at(&mount.point) {
                Ok(()) => forget(&mount.point),
                Err(error) => tracing::warn!(%error, "what a cluster left in memory that is gone stays"),
            }
        }
    }
}

fn mount_at(place: &Path, data_dir: &Path, machine_bytes: u64) -> nix::Result<()> {
    let size = (machine_bytes / PART).max(LEAST);
    let bounds = format!("mode=0700,size={size},nr_inodes={}", size / BYTES_PER_INODE);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let with = |options: &str| mount(Some(data_dir), place, Some("tmpfs"), flags, Some(options));
    // Kernels before 6.4 may write it to swap.
    match with(&format!("{bounds},noswap")) {
        Err(Errno::EINVAL) => with(&bounds),
        done => done,
    }
}

/// Removes the empty directory, and the one around it where nobody else has anything there.
fn forget(place: &Path) {
    let _not_empty = fs::remove_dir(place);
    let _in_use = fs::remove_dir(RUN);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_again_and_leaves_nothing() {
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("left out: mounting needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let memory = Memory::open(&data, 1 << 30).unwrap().unwrap();
        assert!(!memory.was_found() && !memory.path().starts_with(dir.path()));
        let stat = rustix::fs::statvfs(memory.path()).unwrap();
        assert_eq!((stat.f_blocks * stat.f_frsize, stat.f_files), (128 << 20, (128 << 20) / 4096));
        fs::write(memory.path().join("secret"), "kept").unwrap();
        // As if that process had been killed; the next one comes by a link.
        drop(memory);
        std::os::unix::fs::symlink(&data, dir.path().join("link")).unwrap();
        let memory = Memory::open(&dir.path().join("link"), 1 << 30).unwrap().unwrap();
        assert!(memory.was_found());
        assert_eq!(fs::read_to_string(memory.path().join("secret")).unwrap(), "kept");
        let place = memory.path().to_owned();
        let is_there = || place.exists() || mounted().unwrap().iter().any(|mount| mount.point == place);
        memory.remove().unwrap();
        assert!(!is_there());

        // Killed and removed.
        drop(Memory::open(&data, 1 << 30).unwrap().unwrap());
        fs::remove_dir_all(&data).unwrap();
        assert!(is_there());
        let other = Memory::open(dir.path(), 1 << 30).unwrap().unwrap();
        assert!(!is_there());
        other.remove().unwrap();
    }
}
