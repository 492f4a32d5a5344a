//! A network namespace that outlives the process: made on a thread of its own, kept by a bind mount.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::NetworkError;

const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// An open namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    path: PathBuf,
    fd: OwnedFd,
}

impl Netns {
    /// Opens the namespace kept at `path`, or makes it. The flag says whether it was made.
    pub(crate) fn open_or_create(path: &Path) -> Result<(Self, bool), NetworkError> {
        let fail = |source| NetworkError::Namespace { name: path.display().to_string(), source };
        if let Some(found) = Self::open(path).map_err(fail)? {
            return Ok((found, false));
        }
        pin(path, CloneFlags::CLONE_NEWNET).map_err(fail)?;
        match Self::open(path).map_err(fail)? {
            Some(made) => Ok((made, true)),
            None => Err(fail(io::Error::other("the bind mount did not take"))),
        }
    }

    /// Opens the namespace kept at `path`; none where there is no file, or an empty one left by a reboot.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if fstatfs(&file)?.filesystem_type() != NSFS_MAGIC {
            return Ok(None);
        }
        Ok(Some(Self { path: path.to_owned(), fd: file.into() }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Runs `f` on this thread inside the namespace. `f` must not wait for another task.
    ///
    /// The thread is back in the process' own namespace when this returns. Should the way back fail, the
    /// process ends: a worker left in a Pod's network would serve others from there.
    pub(crate) fn enter<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = home()?;
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let back = Back(home);
        let result = f();
        drop(back);
        result
    }
}

/// Makes a namespace and keeps it at `path`.
pub(crate) fn pin(path: &Path, kind: CloneFlags) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    let target = path.to_owned();
    let name = if kind == CloneFlags::CLONE_NEWIPC { "ipc" } else { "net" };
    // A namespace belongs to a thread: this one makes it, pins it with a bind mount, and ends.
    let made = std::thread::spawn(move || -> io::Result<()> {
        unshare(kind)?;
        let (source, none) = (format!("/proc/thread-self/ns/{name}"), None::<&str>);
        mount(Some(&*source), &target, none, MsFlags::MS_BIND, none)?;
        Ok(())
    });
    made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes it panicked")))
}

/// Whether a namespace is kept at `path`: not where there is no file, or an empty one left by a reboot.
pub(crate) fn is_namespace(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => Ok(fstatfs(&file)?.filesystem_type() == NSFS_MAGIC),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Unpins the namespace at `path`; it ends when its last process and socket do.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(nix::errno::Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    fs::remove_file(path)
}

/// The namespace that the process was started in.
fn home() -> io::Result<&'static OwnedFd> {
    static HOME: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Ok(home);
    }
    // The main thread never enters another namespace.
    let fd: OwnedFd = File::open("/proc/self/ns/net")?.into();
    Ok(HOME.get_or_init(|| fd))
}

struct Back(&'static OwnedFd);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET) {
            tracing::error!(%error, "cannot leave a network namespace");
            std::process::abort();
        }
    }
}
