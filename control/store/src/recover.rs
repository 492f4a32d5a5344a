//! From the files of a data directory to the state: what a start does.
//!
//! The base is the index if it is sound, else the newest sound checkpoint, else nothing; every record of the log after
//! the base is replayed on top, which also gives the watch history back. A start that follows a power cut skips some
//! revisions: those may have been shown to clients and then lost with writes that were not durable.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Event, OpenError, Options,
    cache::{Cache, State},
    checkpoint,
    codec::Reader,
    files::{self, Lock},
    index::Index,
    log::{
        self, Log,
        head::Head,
        record::{self, Kind, Record},
        scan::{self, Tail},
    },
    seal,
};

/// How many revisions may be unsynced, and are skipped after a power cut.
pub(crate) const UNSYNCED_MOST: u64 = 10_000;
/// How many replayed events are published at once.
const REPLAY_BATCH: usize = 4096;

/// Where the parts of a data directory lie.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) log: PathBuf,
    pub(crate) checkpoints: PathBuf,
    pub(crate) index: PathBuf,
}

impl Layout {
    /// Creates the directories that are missing.
    pub(crate) fn create(dir: &Path) -> Result<Self, OpenError> {
        let layout = Self { log: dir.join("log"), checkpoints: dir.join("checkpoints"), index: dir.join("index") };
        for dir in [dir, &layout.log, &layout.checkpoints, &layout.index] {
            files::at(dir, files::create_dir(dir))?;
        }
        Ok(layout)
    }
}

/// An opened data directory.
pub(crate) struct Recovered {
    pub(crate) lock: Lock,
    pub(crate) layout: Layout,
    pub(crate) cache: Cache,
    pub(crate) log: Log,
    pub(crate) index: Option<Index>,
}

/// Opens a data directory, or creates it.
pub(crate) fn recover(dir: &Path, options: &Options) -> Result<Recovered, OpenError> {
    files::at(dir, files::create_dir(dir))?;
    let lock = Lock::take(dir)?;
    let outdated = seal::is_outdated(dir, &options.codec)?;
    let layout = Layout::create(dir)?;
    files::at(&layout.checkpoints, checkpoint::sweep(&layout.checkpoints))?;
    let segments = files::at(&layout.log, files::numbered(&layout.log, "log"))?;
    let head_path = layout.log.join("head");
    let head = if head_path.exists() || !segments.is_empty() { Head::read(&head_path) } else { None };

    let (mut index, indexed) = Index::start(&layout.index, options.codec.clone(), options.index_patience);
    let from_index = match indexed {
        Some(base) if segments.first().is_some_and(|(first, _)| *first <= base.revision + 1) => {
            let revision = base.revision;
            let replayed = replay(base, &layout, head.as_ref(), options)?;
            // An index that is ahead of the log belongs to another time.
            let fits = replayed.1.is_some_and(|tail| tail.revision >= revision);
            if !fits {
                tracing::warn!(revision, "the index is ahead of the log; it is not used");
            }
            fits.then_some(replayed)
        }
        _ => None,
    };
    let (cache, tail) = match from_index {
        Some(replayed) => replayed,
        None => from_checkpoint(&layout, head.as_ref(), options)?,
    };
    let mut log = resume(&layout, tail, &cache, options)?;
    if tail.is_some() && !head.as_ref().is_some_and(Head::is_exact) {
        skip(&layout, &mut log, &cache)?;
    }
    if outdated {
        if !segments.is_empty() {
            tracing::info!("the state is written anew: what is encrypted, or with which key, has changed");
            seal::renew(&layout, &mut log, &cache.state(), &options.codec)?;
            index.take().into_iter().for_each(Index::close);
            files::at(&layout.index, std::fs::remove_dir_all(&layout.index))?;
            files::at(&layout.index, files::create_dir(&layout.index))?;
            index = Index::start(&layout.index, options.codec.clone(), options.index_patience).0;
        }
        seal::note(dir, &options.codec)?;
    }
    tracing::info!(revision = cache.revision(), dir = %dir.display(), "the store is open");
    Ok(Recovered { lock, layout, cache, log, index })
}

fn from_checkpoint(
    layout: &Layout,
    head: Option<&Head>,
    options: &Options,
) -> Result<(Cache, Option<Tail>), OpenError> {
    let base = checkpoint::newest(&layout.checkpoints, &options.codec)?;
    let revision = base.as_ref().map(|base| base.revision);
    let (cache, tail) = replay(base.unwrap_or_default(), layout, head, options)?;
    match (revision, tail) {
        (Some(revision), tail) if tail.is_none_or(|tail| tail.revision < revision) => Err(OpenError::Damaged {
            path: layout.log.clone(),
            offset: 0,
            detail: format!("the log ends before the newest checkpoint, which is at revision {revision}"),
        }),
        _ => Ok((cache, tail)),
    }
}

/// Replays the log on top of `base`.
fn replay(
    base: State,
    layout: &Layout,
    head: Option<&Head>,
    options: &Options,
) -> Result<(Cache, Option<Tail>), OpenError> {
    let mut state = base.clone();
    let cache = Cache::new(base, options.window);
    let mut reader = options.codec.reader();
    let mut events: Vec<Arc<Event>> = Vec::new();
    let tail = scan::replay(&layout.log, state.revision, head, &mut |record| {
        if let Some(event) = event(&state, &mut reader, record)? {
            state.apply(&event);
            events.push(Arc::new(event));
        }
        state.revision = record.revision;
        if events.len() >= REPLAY_BATCH {
            drop(cache.publish(state.clone(), std::mem::take(&mut events)));
        }
        Ok(())
    })?;
    drop(cache.publish(state, events));
    Ok((cache, tail))
}

/// What a record did to the state.
fn event(state: &State, reader: &mut Reader, record: Record<'_>) -> Result<Option<Event>, &'static str> {
    if record.kind == Kind::Skip {
        return Ok(None);
    }
    let mut entry = reader.entry(record.body)?;
    if entry.revision != record.revision {
        return Err("the object is of another revision than its record");
    }
    let previous = state.get(&entry.key).cloned();
    let deleted = record.kind == Kind::Delete;
    match &previous {
        Some(previous) => entry.key = previous.key.clone(),
        None if deleted => return Err("an object is deleted that does not exist"),
        None => {}
    }
    Ok(Some(Event { revision: record.revision, entry: Arc::new(entry), previous, deleted }))
}

/// Opens the log's end for appending.
fn resume(layout: &Layout, tail: Option<Tail>, cache: &Cache, options: &Options) -> Result<Log, OpenError> {
    let tail = match tail {
        Some(tail) => tail,
        None => {
            let before = cache.revision();
            files::at(&layout.log, Log::create_segment(&layout.log, before))?;
            Tail { segment: before + 1, length: log::SEGMENT_HEADER as u64, revision: before }
        }
    };
    let log = Log::resume(&layout.log, tail.segment, tail.length, tail.revision, options.hook.clone());
    files::at(&layout.log, log)
}

/// Voids the revisions that a power cut may have taken back.
fn skip(layout: &Layout, log: &mut Log, cache: &Cache) -> Result<(), OpenError> {
    let mut state = State::clone(&cache.state());
    state.revision += UNSYNCED_MOST + 1;
    let mut bytes = Vec::new();
    record::put(&mut bytes, state.revision, log.synced(), Kind::Skip, |_| ());
    let appended = log.append(&bytes, state.revision, true).map_err(std::io::Error::other);
    files::at(&layout.log, appended)?;
    drop(cache.publish(state, Vec::new()));
    Ok(())
}
