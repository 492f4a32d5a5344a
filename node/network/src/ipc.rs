//! What the containers of a Pod share beside the network: an IPC namespace and the memory at `/dev/shm`. Kept by mounts, as
//! the network is, so that both outlive any one container and this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use wherry_runtime::SharedMemory;

use crate::NetworkError;
use crate::netns::{is_namespace, pin, remove};
use crate::processes;

/// As large as the runtimes' usual `/dev/shm`.
const OPTIONS: &str = "mode=1777,size=64m";

fn places(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ipc"), dir.join("shm"))
}

/// The machine's own (`hostIPC`).
pub(crate) fn of_the_machine() -> SharedMemory {
    SharedMemory { namespace: None, shm: "/dev/shm".into() }
}

/// Makes what is missing below `dir`.
pub(crate) fn open_or_create(dir: &Path) -> Result<SharedMemory, NetworkError> {
    let fail = |source| NetworkError::Namespace { name: dir.display().to_string(), source };
    let (namespace, shm) = places(dir);
    let make = || -> io::Result<()> {
        fs::create_dir_all(&shm)?;
        if !is_namespace(&namespace)? {
            pin(&namespace, CloneFlags::CLONE_NEWIPC)?;
        }
        if !is_mounted(dir, &shm)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(OPTIONS))?;
        }
        Ok(())
    };
    make().map_err(fail)?;
    Ok(SharedMemory { namespace: Some(namespace), shm })
}

/// Whether a tmpfs of our own is at `path`; the directory around it may lie on another one.
fn is_mounted(dir: &Path, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let tmpfs = statfs(path)?.filesystem_type() == TMPFS_MAGIC;
    Ok(tmpfs && fs::metadata(path)?.dev() != fs::metadata(dir)?.dev())
}

/// Takes everything below `dir` away. Idempotent.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    let (namespace, shm) = places(dir);
    processes::end(dir)?;
    remove(&namespace)?;
    match umount2(&shm, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    for path in [shm, PathBuf::from(dir)] {
        match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// As [`clear`], of every Pod of every node below `dir`.
pub(crate) fn clear_all(dir: &Path) -> io::Result<()> {
    for node in entries(dir)? {
        for pod in entries(&node)? {
            clear(&pod)?;
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
