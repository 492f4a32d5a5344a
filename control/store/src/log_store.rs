//! The real store: a data directory, its committer, and reads from memory.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{
    At, Entry, Key, List, OpenError, Options, Range, Store, StoreError, Watch, Write,
    cache::Cache,
    checkpoint,
    codec::Codec,
    committer::{Committer, Refusal, Request},
    files::{self, Lock},
    keeper::Keeper,
    log::Log,
    recover::{Layout, Recovered, recover},
};

/// How many writes may wait for the committer; more wait for room.
const QUEUE: usize = 4096;
/// How far a restored store's revisions are above its backup's: above all that were issued after the backup.
const RESTORE_GAP: u64 = 1_000_000_000;

/// A [`Store`] in a directory. One process at a time; closed by [`LogStore::close`] or when dropped.
#[derive(Debug)]
pub struct LogStore {
    cache: Arc<Cache>,
    requests: mpsc::Sender<Request>,
    refusal: Refusal,
    codec: Codec,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// Opens the store in `dir`, which is created if it is not there. Blocks while the state is read.
pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<LogStore, OpenError> {
    let dir = dir.as_ref();
    let Recovered { lock, layout, cache, log, index } = recover(dir, &options)?;
    let cache = Arc::new(cache);
    let refusal = Refusal::default();
    let (requests, received) = mpsc::channel(QUEUE);
    let keeper = files::at(dir, Keeper::start(layout, options.codec.clone()))?;
    let codec = options.codec.clone();
    let indexed = cache.revision();
    let committer =
        Committer { cache: cache.clone(), log, index, keeper, options, refusal: refusal.clone(), indexed, lock };
    let spawned = thread::Builder::new().name("store-committer".into()).spawn(move || committer.run(received));
    let committer = Mutex::new(Some(files::at(dir, spawned)?));
    Ok(LogStore { cache, requests, refusal, codec, committer })
}

impl LogStore {
    /// Writes a backup of the newest committed state to `file`: a checkpoint. Gives its revision. Blocks.
    pub fn backup(&self, file: &Path) -> io::Result<u64> {
        let state = self.cache.state();
        checkpoint::write(file, &state, &self.codec)?;
        Ok(state.revision)
    }

    /// Makes an empty or missing `dir` hold what a backup holds. Its revisions go on far above all that were issued,
    /// so that whatever clients remember is answered with "too old" rather than with another history.
    pub fn restore(dir: &Path, backup: &Path, options: &Options) -> Result<u64, OpenError> {
        let mut state = checkpoint::read(backup, &options.codec).map_err(|detail| OpenError::Damaged {
            path: backup.to_path_buf(),
            offset: 0,
            detail,
        })?;
        files::at(dir, files::create_dir(dir))?;
        let _lock = Lock::take(dir)?;
        let layout = Layout::create(dir)?;
        let used = files::at(&layout.log, fs::read_dir(&layout.log))?.next().is_some();
        if used {
            let source =
                io::Error::new(io::ErrorKind::AlreadyExists, "there is a store here; restore into another directory");
            return Err(OpenError::Io { path: dir.to_path_buf(), source });
        }
        state.revision += RESTORE_GAP;
        let path = checkpoint::path(&layout.checkpoints, state.revision);
        files::at(&path, checkpoint::write(&path, &state, &options.codec))?;
        files::at(&layout.log, Log::create_segment(&layout.log, state.revision))?;
        Ok(state.revision)
    }

    /// Finishes the writes that wait, ends all watches and leaves the directory in order, free for the next process.
    pub async fn close(&self) {
        let Some(committer) = self.committer.lock().take() else {
            return;
        };
        let _ = self.requests.send(Request::Close).await;
        let _ = tokio::task::spawn_blocking(move || committer.join()).await;
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        let Some(committer) = self.committer.get_mut().take() else {
            return;
        };
        // Replaced by one without a receiver: the committer ends when it has done what waits.
        self.requests = mpsc::channel(1).0;
        let _ = committer.join();
    }
}

#[async_trait]
impl Store for LogStore {
    fn revision(&self) -> u64 {
        self.cache.revision()
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.cache.get(key)
    }

    fn list(&self, range: &Range, at: At) -> Result<List, StoreError> {
        self.cache.list(range, at)
    }

    async fn write(&self, write: Write) -> Result<Arc<Entry>, StoreError> {
        if let Some(reason) = self.refusal() {
            return Err(StoreError::ReadOnly(reason));
        }
        let (answer, answered) = oneshot::channel();
        let request = Request::Write(Box::new(write), answer);
        self.requests.send(request).await.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    fn watch(&self, range: Range, from: u64) -> Result<Watch, StoreError> {
        self.cache.watch(range, from)
    }

    fn refusal(&self) -> Option<Arc<str>> {
        self.refusal.read().clone()
    }

    fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.cache.compact(revision)
    }

    async fn wait_for(&self, revision: u64, timeout: Duration) -> Result<(), StoreError> {
        self.cache.wait_for(revision, timeout).await
    }
}
