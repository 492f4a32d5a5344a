//! A path inside a volume: made where it is missing, and never outside, whatever links lead there and whoever moves what
//! meanwhile.
//!
//! The kernel resolves the path beneath the volume's root (openat2, RESOLVE_BENEATH) and gives a handle. Links inside the volume
//! are followed, as ConfigMaps need (`..data`).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// Opens `path` beneath `volume`; directories that are missing are made like the volume's root. The error of a path that leads out
/// is [`Errno::EXDEV`]'s.
pub(super) fn open(volume: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = File::open(volume)?;
    match beneath(&root, path) {
        Err(Errno::ENOENT) => {}
        found => return Ok(found?),
    }
    let mode = root.metadata()?.permissions().mode() & 0o7777;
    let mut reached = PathBuf::new();
    let mut parent = beneath(&root, Path::new("."))?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        reached.push(name);
        parent = match beneath(&root, &reached) {
            Err(Errno::ENOENT) => {
                match mkdirat(&parent, name, Mode::S_IRWXU) {
                    // Another container of the Pod was faster; or a link leads to what is not there.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let made = beneath(&root, &reached)?;
                // The mode at creation is cut by the umask.
                fs::set_permissions(path_of(&made), fs::Permissions::from_mode(mode))?;
                made
            }
            found => found?,
        };
    }
    Ok(parent)
}

fn beneath(root: &File, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    loop {
        match openat2(root, path, how) {
            // Something was renamed under the kernel's hands.
            Err(Errno::EAGAIN) => {}
            found => return found,
        }
    }
}

/// The name by which the kernel finds the open file itself, whatever its path means by now.
pub(super) fn path_of(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_path_never_leaves_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        fs::create_dir_all(volume.join("real")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("../outside", volume.join("relative")).unwrap();
        symlink("relative", volume.join("chained")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        symlink("nowhere", volume.join("dangling")).unwrap();
        symlink("loop", volume.join("loop")).unwrap();
        symlink("real", volume.join("within")).unwrap();
        for bad in [
            "..",
            "../v",
            "real/../..",
            "real/../../outside",
            "absolute",
            "absolute/passwd",
            "relative",
            "relative/new",
            "chained",
            "magic",
            "magic/etc",
            "dangling",
            "dangling/new",
            "loop",
            "/etc",
        ] {
            assert!(open(&volume, Path::new(bad)).is_err(), "{bad}");
        }
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let within = open(&volume, Path::new("within")).unwrap();
        assert_eq!(inode(&path_of(&within)), inode(&volume.join("real")));
        open(&volume, Path::new("new/er")).unwrap();
        assert!(volume.join("new/er").is_dir());
        assert!(fs::read_dir(dir.path().join("outside")).unwrap().next().is_none());
    }

    /// The known race (CVE-2017-1002101 and its kin): a neighbour turns the directory into a link between check and use.
    #[test]
    fn a_race_with_whoever_moves_directories_is_never_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir_all(outside.join("b")).unwrap();
        let end = AtomicBool::new(false);
        let leaves = |handle: &OwnedFd| fs::read_link(path_of(handle)).unwrap().starts_with(&outside);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    let _ = fs::rename(volume.join("a"), volume.join("kept"));
                    let _ = symlink("../outside", volume.join("a"));
                    let _ = fs::remove_file(volume.join("a"));
                    let _ = fs::rename(volume.join("kept"), volume.join("a"));
                }
            });
            for _ in 0..2000 {
                if let Ok(handle) = open(&volume, Path::new("a/b")) {
                    assert!(!leaves(&handle));
                }
            }
            end.store(true, Ordering::Relaxed);
        });
    }
}
