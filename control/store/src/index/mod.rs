//! The index: the state in sled at a revision, trailing the log.
//!
//! Its use: a start reads the state from it and replays only the log's last stretch, instead of a whole checkpoint and
//! all that followed. It is never the truth. sled may panic, hang, lose keys or refuse to open, so it lives on a thread
//! of its own, under a time limit, and what it holds counts only if every byte proves right ([`content`]). If anything
//! is amiss it is thrown away and built anew; no write ever waits for it.
//!
//! It stays behind the log on purpose ([`crate::Options::index_lag`]): what is replayed at start is the history that
//! watches resume from.

mod content;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::{cache::State, codec::Codec, files};
use content::Content;

/// How long a close waits for the index to finish what it does.
const FAREWELL: Duration = Duration::from_secs(5);

/// The handle to the index's thread.
#[derive(Debug)]
pub(crate) struct Index {
    advance: SyncSender<Arc<State>>,
    done: Receiver<()>,
}

impl Index {
    /// Opens the index and gives the state it holds, if it is sound and was read within `patience`.
    pub(crate) fn start(dir: &Path, codec: Codec, patience: Duration) -> (Option<Self>, Option<State>) {
        let (advance, states) = sync_channel(1);
        let (farewell, done) = sync_channel(1);
        let (found, loaded) = sync_channel(1);
        let dir = dir.to_path_buf();
        let run = move || {
            Worker { dir, codec }.run(&found, &states);
            let _ = farewell.try_send(());
        };
        if let Err(error) = thread::Builder::new().name("store-index".into()).spawn(run) {
            tracing::warn!(%error, "the index has no thread; the store goes on without it");
            return (None, None);
        }
        match loaded.recv_timeout(patience) {
            Ok(state) => (Some(Self { advance, done }), state),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(?patience, "the index did not open in time; the store goes on without it");
                (None, None)
            }
            Err(RecvTimeoutError::Disconnected) => (None, None),
        }
    }

    /// Hands over a state that is on disk in the log. Skipped if the index is still busy with an older one.
    pub(crate) fn advance(&self, state: Arc<State>) {
        let _ = self.advance.try_send(state);
    }

    /// Lets the index end, for a bounded time.
    pub(crate) fn close(self) {
        drop(self.advance);
        if self.done.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the index is left behind: it did not end in time");
        }
    }
}

struct Worker {
    dir: PathBuf,
    codec: Codec,
}

impl Worker {
    fn run(&self, found: &SyncSender<Option<State>>, states: &Receiver<Arc<State>>) {
        let (mut content, state) = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(error, "the index cannot be created; the store goes on without it");
                return;
            }
        };
        if found.send(state).is_err() {
            return;
        }
        // What is handed over is applied when the next one comes: the index trails by at least one lag.
        let mut waiting: Option<Arc<State>> = None;
        while let Ok(next) = states.recv() {
            let Some(state) = waiting.replace(next) else {
                continue;
            };
            if let Err(error) = guard(|| content.advance(&state)) {
                tracing::warn!(error, "the index failed; it is rebuilt");
                drop_guarded(content);
                match self.create() {
                    Ok(fresh) => content = fresh,
                    Err(error) => {
                        tracing::warn!(error, "the index cannot be rebuilt; the store goes on without it");
                        return;
                    }
                }
            }
        }
        drop_guarded(content);
    }

    /// Opens what is there, or an empty index if that is not sound.
    fn open(&self) -> Result<(Content, Option<State>), String> {
        // A file that stays behind if sled ends the process rather than panics: the next start does not try again.
        let opening = self.dir.join("opening");
        if opening.exists() {
            tracing::warn!("the index did not survive its last opening; it is rebuilt");
        } else if let Some(path) = self.newest() {
            fs::write(&opening, b"").map_err(|error| error.to_string())?;
            let loaded = guard(|| Content::load(&path, &self.codec));
            fs::remove_file(&opening).map_err(|error| error.to_string())?;
            match loaded {
                Ok((content, state)) => return Ok((content, state)),
                Err(error) => tracing::warn!(error, "the index is not sound; it is rebuilt"),
            }
        }
        let content = self.create()?;
        if opening.exists() {
            fs::remove_file(&opening).map_err(|error| error.to_string())?;
        }
        Ok((content, None))
    }

    /// An empty index in a directory of its own, so that a stuck predecessor cannot disturb it.
    fn create(&self) -> Result<Content, String> {
        let old = self.generations();
        let next = old.last().map_or(1, |(number, _)| number + 1);
        for (_, path) in old {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "an old index cannot be removed");
            }
        }
        guard(|| Content::create(&self.dir.join(format!("{next}.sled")), &self.codec))
    }

    fn newest(&self) -> Option<PathBuf> {
        self.generations().pop().map(|(_, path)| path)
    }

    fn generations(&self) -> Vec<(u64, PathBuf)> {
        files::numbered(&self.dir, "sled").unwrap_or_default()
    }
}

/// Runs what calls sled; a panic becomes an error.
fn guard<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("for an unknown reason")))
    })
}

fn drop_guarded(content: Content) {
    if let Err(error) = guard(|| {
        drop(content);
        Ok(())
    }) {
        tracing::warn!(error, "the index failed to close");
    }
}
