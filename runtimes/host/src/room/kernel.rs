//! The kernel's newer calls for mounts, which no library here offers.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;
const ATTR_NOEXEC: u64 = 8;

/// `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn outcome(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A mount of what lies at `path`, with all that is mounted beneath it, attached nowhere yet: no programs, no devices.
#[allow(unsafe_code, reason = "system calls without a wrapper")]
pub(super) fn clone(path: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
    // SAFETY: the path is a string that ends with zero and outlives the call.
    let made = outcome(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let made = i32::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel made it for us a moment ago, and nobody else knows it.
    let tree = unsafe { OwnedFd::from_raw_fd(made) };
    let set = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | if read_only { ATTR_RDONLY } else { 0 };
    let attributes = Attributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH as u32 | AT_RECURSIVE;
    // SAFETY: the descriptor is open, the path an empty string, and the attributes are what the kernel takes them for.
    outcome(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })?;
    Ok(tree)
}

/// Attaches it at `path`.
#[allow(unsafe_code, reason = "a system call without a wrapper")]
pub(super) fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    // SAFETY: the descriptor is open, and both paths are strings that end with zero and outlive the call.
    outcome(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}
