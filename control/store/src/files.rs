//! What the store does with directories and files besides the log: locking, replacing, syncing.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::OpenError;

/// Adds the path to an error.
pub(crate) fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Io { path: path.to_path_buf(), source })
}

/// Makes creations, renames and removals in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a directory for the eyes of the owner only, durably.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// A file for the eyes of the owner only, created if it is not there, its content kept.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Keeps other processes off a data directory for as long as it lives, and no longer than the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        let mut file = at(&path, open_private(&path))?;
        match lock_within(&file, LOCK_PATIENCE) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only to name the holder; the lock itself is the kernel's.
                let _ = file.read_to_string(&mut holder);
                return Err(OpenError::InUse { dir: dir.to_path_buf(), holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
        let named = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = named {
            // A full disk must not keep the store from being read.
            tracing::warn!(path = %path.display(), %error, "cannot write the process id into the lock file");
        }
        Ok(Self { _file: file })
    }
}

/// How long a lock may be held by what is already ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Locks a file that is free or about to be. A process that was killed while it started a child leaves its lock to the
/// child until that has become another program.
fn lock_within(file: &File, patience: Duration) -> Result<(), TryLockError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        other => return other,
    }
    let waiting = file.try_clone().map_err(TryLockError::Error)?;
    let (told, locked) = mpsc::sync_channel(1);
    // Where the patience ends first, it ends with this process or the other one. The lock is the open file's, so one that
    // comes too late is given back with the last of its descriptors.
    thread::spawn(move || told.send(waiting.lock()));
    match locked.recv_timeout(patience) {
        Ok(result) => result.map_err(TryLockError::Error),
        Err(_) => Err(TryLockError::WouldBlock),
    }
}

/// Files of a directory that are named `<number>.<extension>`, by number.
pub(crate) fn numbered(dir: &Path, extension: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|e| e == extension)) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}
