//! Compiled code on disk, by the image's digest and the engine's version and settings.
//!
//! Mapping compiled code runs it: a file that anyone else wrote would be arbitrary code in this process. So the
//! directory is private (0700), and each `.cwasm` has beside it a `.mac` of its name and content under a key that never
//! leaves the directory. A file without its right MAC does not exist for us and is written anew. Both are written to
//! temporary names and renamed, the MAC first: a crash leaves at worst a MAC without its file.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;

/// The directory of compiled code.
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    engine: u64,
    /// The most that all files may have, bytes.
    room: u64,
}

impl Cache {
    /// Opens (or makes) the directory and its key.
    pub(crate) fn open(dir: &Path, engine: &Engine, room: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir: dir.to_owned(), key: key(dir)?, engine: hasher.finish(), room })
    }

    /// The path of our own, unchanged compiled code for `digest`; none where there is none.
    pub(crate) fn find(&self, digest: &str) -> Option<PathBuf> {
        let name = self.name(digest)?;
        let path = self.dir.join(&name);
        let expected = fs::read(self.dir.join(format!("{name}.mac"))).ok()?;
        let mac = self.mac(&name, &fs::read(&path).ok()?);
        if mac[..] == expected[..] {
            // Its time says when it was used last.
            if let Ok(file) = File::open(&path) {
                let _ = file.set_modified(SystemTime::now());
            }
            return Some(path);
        }
        tracing::warn!(file = %path.display(), "compiled code is not as it was written; it is compiled again");
        None
    }

    /// Keeps compiled code for `digest`.
    pub(crate) fn keep(&self, digest: &str, code: &[u8]) -> io::Result<PathBuf> {
        let name = self.name(digest).ok_or(io::ErrorKind::InvalidInput)?;
        write_whole(&self.dir, &format!("{name}.mac"), &self.mac(&name, code))?;
        let path = write_whole(&self.dir, &name, code)?;
        self.sweep(&path);
        Ok(path)
    }

    /// Removes what was compiled for `digest`, for this and any other engine.
    pub(crate) fn forget(&self, digest: &str) {
        let Some(hex) = digest.strip_prefix("sha256:").filter(|hex| self.name(digest).is_some() && !hex.is_empty())
        else {
            return;
        };
        for file in self.files() {
            if file.path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(hex)) {
                remove(&file.path);
            }
        }
    }

    /// Of what there is compiled code, for this or another engine.
    pub(crate) fn digests(&self) -> BTreeSet<String> {
        self.names().into_iter().map(|(digest, _)| digest).collect()
    }

    /// Of what there is compiled code for this engine, by its name: whether it is as it was written is seen when it is used.
    pub(crate) fn usable(&self) -> BTreeSet<String> {
        let ours = self.names().into_iter().filter(|(digest, name)| self.name(digest).as_ref() == Some(name));
        ours.map(|(digest, _)| digest).collect()
    }

    /// The digests of what was compiled, and the names of the files of it.
    fn names(&self) -> Vec<(String, String)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let code = names.filter(|name| name.ends_with(".cwasm"));
        code.filter_map(|name| Some((format!("sha256:{}", name.split_once('-')?.0), name))).collect()
    }

    /// Removes what was used least lately until the rest fits; `kept` stays. What is mapped stays usable: only its name goes.
    fn sweep(&self, kept: &Path) {
        let mut files = self.files();
        files.sort_by_key(|file| file.used);
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        for file in files.iter().filter(|file| file.path != kept) {
            if total <= self.room {
                return;
            }
            remove(&file.path);
            total -= file.bytes;
        }
    }

    /// The files of compiled code.
    fn files(&self) -> Vec<Kept> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let code = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"));
        code.filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(Kept { path: entry.path(), bytes: meta.len(), used: meta.modified().ok()? })
        })
        .collect()
    }

    fn name(&self, digest: &str) -> Option<String> {
        let hex = digest.strip_prefix("sha256:")?;
        let valid = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        valid.then(|| format!("{hex}-{:016x}.cwasm", self.engine))
    }

    /// HMAC-SHA256 (RFC 2104) of the name's length, the name and the content.
    fn mac(&self, name: &str, code: &[u8]) -> [u8; 32] {
        let pad = |with: u8| {
            let mut block = [with; 64];
            block.iter_mut().zip(self.key).for_each(|(byte, key)| *byte ^= key);
            block
        };
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update((name.len() as u64).to_be_bytes())
            .chain_update(name)
            .chain_update(code)
            .finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

/// A file of compiled code.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Removes a file of compiled code, and its MAC after it.
fn remove(code: &Path) {
    let mut mac = code.as_os_str().to_owned();
    mac.push(".mac");
    for path in [code, Path::new(&mac)] {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), %error, "compiled code can't be removed");
        }
    }
}

/// The directory's key; made where there is none yet. Of several makers at once, one wins.
fn key(dir: &Path) -> io::Result<[u8; 32]> {
    let path = dir.join("key");
    if !path.exists() {
        let fresh = temporary(dir);
        private(&fresh)?.write_all(&rand::random::<[u8; 32]>())?;
        let linked = fs::hard_link(&fresh, &path);
        fs::remove_file(&fresh)?;
        if let Err(error) = linked
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
    }
    let mut key = [0; 32];
    File::open(path)?.read_exact(&mut key)?;
    Ok(key)
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn temporary(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let (temporary, path) = (temporary(dir), dir.join(name));
    // A leftover of a process that had our id.
    let _ = fs::remove_file(&temporary);
    let written =
        private(&temporary).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn only_what_we_wrote_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), &Engine::default(), u64::MAX).unwrap();
        assert_eq!(cache.find(&digest('a')), None);
        let path = cache.keep(&digest('a'), b"code").unwrap();
        assert_eq!(cache.find(&digest('a')), Some(path.clone()));

        let again = Cache::open(dir.path(), &Engine::default(), u64::MAX).unwrap();
        assert_eq!(again.find(&digest('a')), Some(path.clone()), "the key is the directory's");

        let other = cache.keep(&digest('b'), b"other").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(cache.find(&digest('a')), None, "another image's code");
        fs::write(&path, b"evil").unwrap();
        assert_eq!(cache.find(&digest('a')), None, "changed code");
        fs::remove_file(format!("{}.mac", path.display())).unwrap();
        assert_eq!(cache.find(&digest('a')), None, "code without its MAC");
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_forgotten_or_least_used_goes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), &Engine::default(), 25).unwrap();
        let age = |path: &Path, seconds: u64| {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            File::open(path).unwrap().set_modified(time).unwrap();
        };
        let [a, b] = ['a', 'b'].map(|digit| cache.keep(&digest(digit), &[0; 10]).unwrap());
        age(&a, 1);
        age(&b, 2);
        assert!(cache.find(&digest('a')).is_some(), "used again");
        cache.keep(&digest('c'), &[0; 10]).unwrap();
        assert_eq!((cache.find(&digest('a')).is_some(), cache.find(&digest('b')).is_some()), (true, false));
        cache.keep(&digest('d'), &[0; 100]).unwrap();
        assert!(cache.find(&digest('d')).is_some(), "what was asked for last is kept, however large");
        assert_eq!(cache.digests(), BTreeSet::from([digest('d')]));
        cache.forget(&digest('d'));
        cache.forget("sha256:");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["key"]);
    }

    #[test]
    fn a_digest_is_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), &Engine::default(), u64::MAX).unwrap();
        for digest in ["sha256:../../etc/passwd", "a", "sha256:", &digest('A')] {
            assert!(cache.find(digest).is_none() && cache.keep(digest, b"").is_err(), "{digest}");
        }
    }
}
