//! A container's mounts as WASI preopens: exactly the mounts, never a root.
//!
//! WASI opens directories, so a mounted file is seen in a directory made for it: under the runtime's own directory lies one
//! for each container and parent, with hard links to the files, so that what the guest writes (the termination log) is written to the
//! source. A read-only file is copied instead, so that no write can reach it. Where a directory is mounted at the same
//! place, it is what the guest sees.
//!
//! Directories of copies alone lie in memory, where the node has a place for them there: a copy may be a Secret's. What lies in memory is
//! never copied to a disk; who wants it beside a file that is written is told.
//!
//! All this is made when it is needed first, and so are the sources themselves: a program that cannot open files has none, unless
//! somebody copies from or to its mounts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};
use wherry_runtime::Mount;

use crate::copy::Tree;

/// The largest read-only file that is copied.
const COPIED_BYTES: u64 = 16 << 20;

/// Where files are staged.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    /// Directories with links, on the disk of what they link to.
    pub(crate) links: PathBuf,
    /// Directories of copies alone.
    pub(crate) copies: PathBuf,
}

impl Staging {
    /// Directories of one runtime's own: see [`staging`].
    pub(crate) fn new(links: &Path, copies: &Path) -> io::Result<Self> {
        let links = staging(links)?;
        Ok(Self { copies: staging(copies)?, links })
    }

    /// A container's.
    pub(crate) fn of(&self, id: &str) -> Self {
        Self { links: self.links.join(id), copies: self.copies.join(id) }
    }
}

/// A directory under `dir` for one runtime's staged files. Those of processes that are no more are removed: containers do not
/// outlive their process.
fn staging(dir: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let all = dir.join("mounts");
    fs::create_dir_all(&all)?;
    for entry in fs::read_dir(&all)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split_once('-')).map(|(pid, _)| Path::new("/proc").join(pid));
        if !owner.is_some_and(|process| process.exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(all.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))))
}

/// Directories that a guest sees. The directory made for files goes with it.
pub(crate) struct Mounts {
    wanted: Vec<Mount>,
    staging: Staging,
    preopens: OnceLock<Vec<Preopen>>,
    /// Held while they are made.
    making: Mutex<()>,
}

struct Preopen {
    source: PathBuf,
    target: String,
    permissions: FsPerms,
}

impl Mounts {
    /// Of `wanted`; files will go under `staging`, which is this container's alone.
    pub(crate) fn new(wanted: Vec<Mount>, staging: Staging) -> Self {
        Self { wanted, staging, preopens: OnceLock::new(), making: Mutex::default() }
    }

    /// Makes what instances will open, so that it is known here whether it can be. Does file I/O.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.preopens().map(drop)
    }

    fn preopens(&self) -> io::Result<&[Preopen]> {
        if let Some(made) = self.preopens.get() {
            return Ok(made);
        }
        let _one_at_a_time = self.making.lock();
        if let Some(made) = self.preopens.get() {
            return Ok(made);
        }
        // What a failed attempt left would be in the way.
        self.clear();
        let made = self.make()?;
        Ok(self.preopens.get_or_init(|| made))
    }

    fn make(&self) -> io::Result<Vec<Preopen>> {
        let mut preopens = Vec::new();
        let mut files: BTreeMap<PathBuf, Vec<&Mount>> = BTreeMap::new();
        for mount in &self.wanted {
            let named = |error: io::Error| {
                io::Error::new(
                    error.kind(),
                    format!("mount {}: {}: {error}", mount.target.display(), mount.source.display()),
                )
            };
            mount.make().map_err(named)?;
            if fs::metadata(&mount.source).map_err(named)?.is_dir() {
                preopens.push(Preopen {
                    source: mount.source.clone(),
                    target: mount.target.display().to_string(),
                    permissions: if mount.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite },
                });
            } else {
                files.entry(mount.target.parent().unwrap_or(Path::new("/")).to_owned()).or_default().push(mount);
            }
        }
        for (index, (parent, files)) in files.into_iter().enumerate() {
            let target = parent.display().to_string();
            if !preopens.iter().any(|preopen| preopen.target == target) {
                preopens.push(self.stage(index, target, &files)?);
            }
        }
        Ok(preopens)
    }

    fn stage(&self, index: usize, target: String, files: &[&Mount]) -> io::Result<Preopen> {
        let writable = files.iter().any(|file| !file.read_only);
        let base = if writable { &self.staging.links } else { &self.staging.copies };
        let source = base.join(index.to_string());
        fs::create_dir_all(&source)?;
        let leaves_memory = writable && !in_memory(&source)?;
        for file in files {
            let name = file
                .target
                .file_name()
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file is mounted at /"))?;
            let place = source.join(name);
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("mount {}: {error}", file.target.display()));
            if !file.read_only {
                link(file, &place).map_err(named)?;
            } else if leaves_memory && in_memory(&file.source).map_err(named)? {
                let problem = "a file that lies in memory would be copied to the disk, beside a file there that is written; mount it in another directory";
                return Err(named(io::Error::new(io::ErrorKind::InvalidInput, problem)));
            } else if fs::metadata(&file.source).map_err(named)?.len() <= COPIED_BYTES {
                fs::copy(&file.source, &place).map_err(named)?;
            } else {
                return Err(named(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "a read-only file of more than 16 MiB; mount its directory",
                )));
            }
        }
        Ok(Preopen { source, target, permissions: if writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly } })
    }

    pub(crate) fn count(&self) -> io::Result<usize> {
        self.preopens().map(<[_]>::len)
    }

    /// Opens them for one instance.
    pub(crate) fn open(&self, wasi: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for Preopen { source, target, permissions } in self.preopens()? {
            wasi.preopened_dir(source, target, *permissions)
                .map_err(|error| error.context(format!("mount {target}")))?;
        }
        Ok(())
    }

    /// Opens them for a copy.
    pub(crate) fn tree(&self) -> io::Result<Tree> {
        let mut tree = Tree::new();
        for Preopen { source, target, permissions } in self.preopens()? {
            tree.add(source, target.clone(), matches!(permissions, FsPerms::ReadWrite))?;
        }
        Ok(tree)
    }

    /// Removes what is staged.
    fn clear(&self) {
        for dir in [&self.staging.links, &self.staging.copies] {
            if let Err(error) = fs::remove_dir_all(dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %dir.display(), %error, "a container's mounts are left behind");
            }
        }
    }
}

/// Whether what lies there is kept in memory alone.
fn in_memory(path: &Path) -> io::Result<bool> {
    /// `TMPFS_MAGIC` of the kernel's `linux/magic.h`.
    const TMPFS: u64 = 0x0102_1994;
    // The type's width differs between architectures.
    let kind = rustix::fs::statfs(path)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == TMPFS))
}

/// Another link to a mounted file: to the open one where there is one, since its path may be a mount point, and none leads into
/// another filesystem.
fn link(file: &Mount, place: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::{AsFd as _, AsRawFd as _};
    match &file.handle {
        Some(handle) => {
            let open = format!("/proc/self/fd/{}", handle.0.as_fd().as_raw_fd());
            Ok(linkat(CWD, open, CWD, place, AtFlags::SYMLINK_FOLLOW)?)
        }
        None => fs::hard_link(&file.source, place),
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use wherry_runtime::Handle;

    use super::*;

    #[test]
    fn files_are_staged_and_cleaned_up() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("volume")).unwrap();
        fs::write(at("hosts"), "127.0.0.1 localhost").unwrap();
        fs::write(at("log"), "").unwrap();
        let mount = |source: &str, target: &str, read_only| Mount {
            source: at(source),
            target: target.into(),
            read_only,
            ..Mount::default()
        };
        let mounts = [
            mount("volume", "/data", true),
            mount("hosts", "/etc/hosts", true),
            mount("log", "/dev/termination-log", false),
            mount("hosts", "/data/hosts", true),
        ];
        let staging = || Staging { links: at("staging"), copies: at("copies") };
        let made = Mounts::new(mounts.to_vec(), staging());
        assert!(!at("staging").exists() && !at("copies").exists(), "nothing needs it yet");
        made.prepare().unwrap();
        let preopens = made.preopens().unwrap();
        let seen: Vec<(&str, bool)> =
            preopens.iter().map(|p| (p.target.as_str(), matches!(p.permissions, FsPerms::ReadWrite))).collect();
        assert_eq!(seen, [("/data", false), ("/dev", true), ("/etc", false)]);
        fs::write(preopens[1].source.join("termination-log"), "done").unwrap();
        assert_eq!(fs::read_to_string(at("log")).unwrap(), "done");
        assert!(preopens[2].source.starts_with(at("copies")) && preopens[1].source.starts_with(at("staging")));
        drop(made);
        assert!(!at("staging").exists() && !at("copies").exists() && at("log").exists());

        // A file that is known by a handle alone.
        let handle = Handle(std::sync::Arc::new(fs::File::open(at("log")).unwrap()));
        let held = Mount { handle: Some(handle), ..mount("elsewhere", "/x/log", false) };
        fs::write(at("elsewhere"), "").unwrap();
        let made = Mounts::new(vec![held], staging());
        fs::write(made.preopens().unwrap()[0].source.join("log"), "again").unwrap();
        assert_eq!(fs::read_to_string(at("log")).unwrap(), "again");
        drop(made);

        let made = Mounts::new(vec![mount("log", "/y/log", false), mount("later", "/x", false)], staging());
        let missing = made.prepare().unwrap_err();
        assert!(missing.to_string().contains("/x"), "{missing}");
        fs::write(at("later"), "").unwrap();
        assert_eq!(made.count().unwrap(), 2, "what failed may succeed later");
    }

    #[test]
    fn sources_are_made_when_they_are_needed() {
        use std::sync::atomic::AtomicBool;
        struct Late(PathBuf, AtomicBool);
        impl wherry_runtime::Make for Late {
            fn make(&self) -> io::Result<()> {
                if self.1.load(Ordering::Relaxed) {
                    fs::write(&self.0, "late")
                } else {
                    Err(io::Error::other("not yet"))
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let late = std::sync::Arc::new(Late(at("late"), AtomicBool::new(false)));
        let maker = wherry_runtime::Maker(late.clone());
        let mount = Mount { source: at("late"), target: "/x/late".into(), maker: Some(maker), ..Mount::default() };
        let made = Mounts::new(vec![mount], Staging { links: at("staging"), copies: at("copies") });
        assert!(made.prepare().unwrap_err().to_string().contains("not yet"));
        late.1.store(true, Ordering::Relaxed);
        assert!(!at("late").exists());
        made.prepare().unwrap();
        assert_eq!(fs::read_to_string(made.preopens().unwrap()[0].source.join("late")).unwrap(), "late");
    }

    #[test]
    fn what_lies_in_memory_is_not_copied_to_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let at = |name: &str| dir.path().join(name);
        let secret = memory.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        fs::write(at("log"), "").unwrap();
        let mount = |source: PathBuf, target: &str, read_only| Mount {
            source,
            target: target.into(),
            read_only,
            ..Mount::default()
        };
        let staging = || Staging { links: at("staging"), copies: memory.path().join("copies") };
        let alone = mount(secret.clone(), "/x/secret", true);
        let made = Mounts::new(vec![alone.clone()], staging());
        assert!(made.preopens().unwrap()[0].source.starts_with(memory.path()));
        drop(made);
        let both = Mounts::new(vec![alone, mount(at("log"), "/x/log", false)], staging());
        if in_memory(dir.path()).unwrap() == in_memory(memory.path()).unwrap() {
            return both.prepare().unwrap();
        }
        let refused = both.prepare().unwrap_err().to_string();
        assert!(refused.contains("mount /x/secret: a file that lies in memory"), "{refused}");
        assert!(!at("staging/0/secret").exists());
    }
}
