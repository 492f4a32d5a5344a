//! The content store: `blobs/sha256/<hex>`, `refs/<hash of the reference>.json`, `tmp/`.
//!
//! A name in `blobs` or `refs` appears by rename of a synced temporary file, so that it is whole or absent,
//! whatever dies when. Temporary files are locked by the process that writes them; what a dead process left is
//! removed by the next one that opens the store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::ImageError;
use crate::record::Record;
use crate::reference::is_digest;

/// A temporary file this old whose writer holds no lock was left by a dead process. (A younger one may be
/// between its making and its locking.)
const STALE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    pub(crate) fn open(root: PathBuf) -> Result<Self, ImageError> {
        let store = Self { root };
        for dir in [store.blobs(), store.refs(), store.tmp()] {
            fs::create_dir_all(&dir).map_err(|e| ImageError::io("create", &dir, e))?;
        }
        store.sweep();
        Ok(store)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where the blob of a valid digest lies, whether it is there or not.
    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        debug_assert!(is_digest(digest), "{digest} was not checked");
        self.blobs().join(digest.trim_start_matches("sha256:"))
    }

    /// Whether the blob is there with this size. Its content was verified when it got its name.
    pub(crate) fn has(&self, digest: &str, size: u64) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// A small blob's content.
    pub(crate) fn read(&self, digest: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let path = self.path(digest);
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?.take(limit + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes: Vec<u8> = read().map_err(|e| ImageError::io("read", &path, e))?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge { what: digest.into(), limit, reason: "what is read into memory" });
        }
        Ok(bytes)
    }

    /// Begins a blob of at most `limit` bytes.
    pub(crate) fn writer(&self, what: &str, limit: u64, reason: &'static str) -> Result<BlobWriter, ImageError> {
        let temp = self.temp()?;
        Ok(BlobWriter {
            store: self.clone(),
            what: what.to_owned(),
            temp,
            hasher: Sha256::new(),
            written: 0,
            limit,
            reason,
        })
    }

    /// Stores a small blob that we made ourselves.
    pub(crate) fn put(&self, what: &str, bytes: &[u8]) -> Result<String, ImageError> {
        let mut writer = self.writer(what, bytes.len() as u64, "its own size")?;
        writer.write(bytes)?;
        writer.finish(None)
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), ImageError> {
        let path = self.record_path(&record.reference);
        let bytes = serde_json::to_vec_pretty(record).map_err(|e| ImageError::io("write", &path, e.into()))?;
        let mut temp = self.temp()?;
        temp.write_all(&bytes).map_err(|e| ImageError::io("write", temp.path(), e))?;
        self.publish(temp, &path)
    }

    /// The record of a normalised reference. One that can't be read counts as absent: it is pulled again.
    pub(crate) fn record(&self, reference: &str) -> Option<Record> {
        Self::read_record(&self.record_path(reference)).filter(|record| record.reference == reference)
    }

    pub(crate) fn records(&self) -> Result<Vec<Record>, ImageError> {
        let dir = self.refs();
        let entries = fs::read_dir(&dir).map_err(|e| ImageError::io("list", &dir, e))?;
        Ok(entries.filter_map(Result::ok).filter_map(|entry| Self::read_record(&entry.path())).collect())
    }

    pub(crate) fn forget(&self, reference: &str) -> Result<bool, ImageError> {
        let path = self.record_path(reference);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&self.refs()).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(ImageError::io("remove", &path, e)),
        }
    }

    /// Held while a record is written together with a look at its blobs, and while blobs are removed: so that no blob goes that a
    /// record begins to name, in whichever process.
    pub(crate) fn commit(&self) -> Result<File, ImageError> {
        let path = self.root.join("commit.lock");
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|e| ImageError::io("lock", &path, e))
    }

    /// When an image was used last under this name, as far as that was noted.
    pub(crate) fn used_at(&self, reference: &str) -> Option<SystemTime> {
        fs::metadata(self.record_path(reference)).ok()?.modified().ok()
    }

    /// Notes that it is used now. Best effort: it decides about an order only.
    pub(crate) fn touch(&self, reference: &str) {
        if let Ok(file) = File::open(self.record_path(reference)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Removes the blobs of which `goes` says so, by digest and age; how many bytes that frees.
    pub(crate) fn remove_blobs(&self, goes: impl Fn(&str, Duration) -> bool) -> Result<u64, ImageError> {
        let (dir, now) = (self.blobs(), SystemTime::now());
        let mut freed = 0;
        for entry in fs::read_dir(&dir).map_err(|e| ImageError::io("list", &dir, e))?.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let age = meta.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
            if !goes(&format!("sha256:{}", entry.file_name().display()), age) {
                continue;
            }
            match fs::remove_file(entry.path()) {
                Ok(()) => freed += meta.len(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(ImageError::io("remove", entry.path(), e)),
            }
        }
        Ok(freed)
    }

    fn record_path(&self, reference: &str) -> PathBuf {
        self.refs().join(format!("{}.json", hex::encode(Sha256::digest(reference))))
    }

    fn read_record(path: &Path) -> Option<Record> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn temp(&self) -> Result<NamedTempFile, ImageError> {
        let dir = self.tmp();
        let temp = NamedTempFile::new_in(&dir).map_err(|e| ImageError::io("create a file in", &dir, e))?;
        temp.as_file().lock().map_err(|e| ImageError::io("lock", temp.path(), e))?;
        Ok(temp)
    }

    fn publish(&self, temp: NamedTempFile, path: &Path) -> Result<(), ImageError> {
        use std::os::unix::fs::PermissionsExt;
        temp.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))
            .map_err(|e| ImageError::io("set the mode of", temp.path(), e))?;
        temp.as_file().sync_all().map_err(|e| ImageError::io("sync", temp.path(), e))?;
        temp.persist(path).map_err(|e| ImageError::io("create", path, e.error))?;
        sync_dir(path.parent().unwrap_or(&self.root))
    }

    /// Removes what dead processes left behind. Best effort: it costs space only.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.tmp()) else { return };
        let now = SystemTime::now();
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let Ok(file) = OpenOptions::new().read(true).open(&path) else { continue };
            let old = file
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > STALE));
            if old && file.try_lock().is_ok() {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn sync_dir(dir: &Path) -> Result<(), ImageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| ImageError::io("sync", dir, e))
}

/// A blob on its way in. Dropped before [`finish`](Self::finish), it leaves nothing behind.
pub(crate) struct BlobWriter {
    store: Store,
    what: String,
    temp: NamedTempFile,
    hasher: Sha256,
    written: u64,
    limit: u64,
    reason: &'static str,
}

impl BlobWriter {
    /// Takes the next bytes; refuses them before they reach the disk where they are too many.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        if self.written + bytes.len() as u64 > self.limit {
            return Err(ImageError::TooLarge { what: self.what.clone(), limit: self.limit, reason: self.reason });
        }
        self.temp.write_all(bytes).map_err(|e| ImageError::io("write", self.temp.path(), e))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// How much has come so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Verifies, syncs and names the blob. Returns its digest.
    pub(crate) fn finish(self, expected: Option<&str>) -> Result<String, ImageError> {
        let actual = format!("sha256:{}", hex::encode(self.hasher.finalize()));
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(ImageError::DigestMismatch { what: self.what, expected: expected.into(), actual });
        }
        self.store.publish(self.temp, &self.store.path(&actual))?;
        Ok(actual)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn tmp_files(store: &Store) -> usize {
        fs::read_dir(store.tmp()).unwrap().count()
    }

    #[test]
    fn a_blob_is_named_by_its_content_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().into()).unwrap();
        let digest = store.put("x", b"hello").unwrap();
        assert_eq!(digest, "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert!(store.has(&digest, 5) && !store.has(&digest, 4));

        let mut writer = store.writer("x", 10, "a test").unwrap();
        writer.write(b"other").unwrap();
        assert!(matches!(writer.finish(Some(&digest)), Err(ImageError::DigestMismatch { .. })));
        let mut writer = store.writer("x", 3, "a test").unwrap();
        assert!(matches!(writer.write(b"four"), Err(ImageError::TooLarge { .. })));
        drop(writer);
        assert_eq!(tmp_files(&store), 0);
        assert_eq!(fs::read_dir(store.blobs()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_dead_processes_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().into()).unwrap();
        let age = |file: &File| file.set_modified(SystemTime::now() - 2 * STALE).unwrap();
        let living = store.temp().unwrap();
        age(living.as_file());
        age(&File::create(store.tmp().join("dead")).unwrap());
        File::create(store.tmp().join("young")).unwrap();
        Store::open(dir.path().into()).unwrap();
        assert!(living.path().exists() && store.tmp().join("young").exists() && !store.tmp().join("dead").exists());
    }
}
