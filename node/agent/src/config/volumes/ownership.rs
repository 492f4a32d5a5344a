//! fsGroup: a volume belongs to the Pod's group, with all that lies in it.
//!
//! Other Pods may be at work in the volume meanwhile: every file is opened from the root by the kernel without following any
//! link, and changed by that handle.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Whom a Pod's volumes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) group: u32,
    /// Only where the root does not belong to the group yet.
    on_mismatch: bool,
}

const READ_WRITE: u32 = 0o660;
const EXECUTE: u32 = 0o110;
const SET_GROUP: u32 = 0o2000;

impl Ownership {
    /// As the Pod's `fsGroup` and `fsGroupChangePolicy` say; none without a group.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let context = pod.spec.as_ref()?.security_context.as_ref()?;
        let group = u32::try_from(context.fs_group?).ok()?;
        Some(Self { group, on_mismatch: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch") })
    }

    /// Gives everything in the volume to the group.
    pub(super) fn apply(&self, volume: &Path) -> io::Result<()> {
        let root = fs::metadata(volume)?;
        let wanted = READ_WRITE | EXECUTE | SET_GROUP;
        if self.on_mismatch && root.gid() == self.group && root.mode() & wanted == wanted {
            return Ok(());
        }
        let root = File::open(volume)?;
        let mut directories = vec![PathBuf::from(".")];
        while let Some(directory) = directories.pop() {
            let handle = open(&root, &directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            for entry in fs::read_dir(path_of(&handle))? {
                let entry = directory.join(entry?.file_name());
                match open(&root, &entry, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
                    Ok(handle) if self.give(&handle)? => directories.push(entry),
                    Ok(_) => {}
                    // It went meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        // The root comes last: that it is right says that all is.
        self.give(&root.into()).map(drop)
    }

    /// Whether it is a directory.
    fn give(&self, handle: &OwnedFd) -> io::Result<bool> {
        let path = path_of(handle);
        let meta = fs::metadata(&path)?;
        if meta.file_type().is_symlink() {
            return Ok(false);
        }
        chown(&path, None, Some(self.group))?;
        let mut mode = meta.mode() | READ_WRITE;
        if meta.is_dir() {
            mode |= EXECUTE | SET_GROUP;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
        Ok(meta.is_dir())
    }
}

fn open(root: &File, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).resolve(resolve);
    Ok(openat2(root, path, how)?)
}

/// The name by which the kernel finds the open file itself, whatever its path means by now.
fn path_of(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn everything_in_a_volume_is_the_groups_and_nothing_outside() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("v"), dir.path().join("secret"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(volume.join("a/b/file"), "").unwrap();
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&outside, volume.join("link")).unwrap();
        symlink(dir.path(), volume.join("a/up")).unwrap();
        let always = Ownership { group: 4321, on_mismatch: false };
        always.apply(&volume).unwrap();
        let seen = |path: &Path| (fs::metadata(path).unwrap().gid(), fs::metadata(path).unwrap().mode() & 0o7777);
        assert_eq!(seen(&volume.join("a/b/file")), (4321, 0o664));
        assert_eq!(seen(&volume.join("a/b")), (4321, 0o2775));
        assert_eq!(seen(&volume).0, 4321);
        assert_eq!(seen(&outside), (0, 0o600));
        assert_ne!(seen(dir.path()).0, 4321);
        fs::write(volume.join("late"), "").unwrap();
        chown(volume.join("late"), None, Some(0)).unwrap();
        Ownership { on_mismatch: true, ..always }.apply(&volume).unwrap();
        assert_eq!(seen(&volume.join("late")).0, 0, "the root is right already");
        always.apply(&volume).unwrap();
        assert_eq!(seen(&volume.join("late")).0, 4321);
    }
}
