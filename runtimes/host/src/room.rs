//! The mounts of a host's containers, made in the host's own mount namespace by its agent.
//!
//! A mount is cloned where the agent sees it (`open_tree`), made read-only or not, without set-user bits, devices and programs, and put in its
//! place by a thread that has gone into the host's namespace (`move_mount`) and ends there. So the machine sees nothing of it, a host reaches
//! nothing above it, and it is gone when the host is. WASI opens directories: a mounted file is in a directory made for it and its
//! neighbours, unless a directory is mounted there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;
use wherry_runtime::{ContainerId, Mount, RuntimeError};

use crate::sandbox::MOUNTS;
use crate::wire::Place;

mod kernel;

/// A host's mount namespace.
pub(crate) struct Room {
    namespace: File,
}

/// A directory that a container sees.
struct Stand {
    target: PathBuf,
    read_only: bool,
    holds: Holds,
}

enum Holds {
    Directory(OwnedFd),
    Files(Vec<(OsString, OwnedFd)>),
}

impl Room {
    /// That of a process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { namespace: File::open(format!("/proc/{pid}/ns/mnt"))? })
    }

    /// Mounts what a container sees. Tells where it lies in the host's root.
    pub(crate) async fn bring(&self, id: &ContainerId, mounts: &[Mount]) -> Result<Vec<Place>, RuntimeError> {
        if mounts.is_empty() {
            return Ok(Vec::new());
        }
        let stands = stands(mounts).map_err(|error| RuntimeError::InvalidSpec(error.to_string()))?;
        let base = base(id);
        let placed = self.inside(move || place(&base, stands)).await;
        placed.map_err(|error| RuntimeError::Failed(format!("mounts: {error}")))
    }

    /// Unmounts it.
    pub(crate) async fn clear(&self, id: &ContainerId) -> io::Result<()> {
        let base = base(id);
        self.inside(move || clear(&base)).await
    }

    /// Has `work` done in the namespace, by a thread that cannot come back.
    async fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let namespace = self.namespace.try_clone()?;
        let (tell, told) = oneshot::channel();
        thread::Builder::new().name("wasm-host-mounts".into()).spawn(move || {
            let go = || -> io::Result<()> {
                unshare(CloneFlags::CLONE_FS)?;
                Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?)
            };
            drop(tell.send(go().and_then(|()| work())));
        })?;
        told.await.map_err(|_| io::Error::other("the thread that makes them panicked"))?
    }
}

fn base(id: &ContainerId) -> PathBuf {
    Path::new(MOUNTS).join(&id.0)
}

/// Clones all mounts; one that cannot be is named.
fn stands(mounts: &[Mount]) -> io::Result<Vec<Stand>> {
    let mut stands = Vec::new();
    let mut files: BTreeMap<PathBuf, (bool, Vec<(OsString, OwnedFd)>)> = BTreeMap::new();
    for mount in mounts {
        let (target, source) = (&mount.target, &mount.source);
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("mount {}: {}: {error}", target.display(), source.display()))
        };
        mount.make().map_err(named)?;
        let is_directory = fs::metadata(source).map_err(named)?.is_dir();
        let tree = kernel::clone(source, mount.read_only).map_err(named)?;
        if is_directory {
            let holds = Holds::Directory(tree);
            stands.push(Stand { target: target.clone(), read_only: mount.read_only, holds });
            continue;
        }
        let name = target.file_name().ok_or_else(|| named(io::Error::other("a file is mounted at /")))?.to_owned();
        let parent = target.parent().unwrap_or(Path::new("/")).to_owned();
        let (read_only, beside) = files.entry(parent).or_insert((true, Vec::new()));
        *read_only &= mount.read_only;
        beside.push((name, tree));
    }
    for (target, (read_only, files)) in files {
        if !stands.iter().any(|stand| stand.target == target) {
            stands.push(Stand { target, read_only, holds: Holds::Files(files) });
        }
    }
    Ok(stands)
}

/// Puts them below `base`, in the namespace that the thread is in.
fn place(base: &Path, stands: Vec<Stand>) -> io::Result<Vec<Place>> {
    fs::create_dir(base)?;
    let mut places = Vec::new();
    for (index, Stand { target, read_only, holds }) in stands.into_iter().enumerate() {
        let source = base.join(index.to_string());
        fs::create_dir(&source)?;
        match holds {
            Holds::Directory(tree) => kernel::attach(&tree, &source)?,
            Holds::Files(files) => {
                for (name, tree) in files {
                    let file = source.join(name);
                    File::create(&file)?;
                    kernel::attach(&tree, &file)?;
                }
            }
        }
        places.push(Place { source, target, read_only });
    }
    Ok(places)
}

fn clear(base: &Path) -> io::Result<()> {
    for stand in entries(base)? {
        if umount2(&stand, MntFlags::MNT_DETACH).is_err() {
            // A directory of files: they are the mounts.
            for file in entries(&stand)? {
                umount2(&file, MntFlags::MNT_DETACH)?;
                fs::remove_file(file)?;
            }
        }
        // What is a mount still is not removed by this.
        fs::remove_dir(stand)?;
    }
    match fs::remove_dir(base) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
