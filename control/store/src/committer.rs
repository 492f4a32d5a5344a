//! The one writer: gathers writes, makes them one batch of the log, publishes and answers.
//!
//! ```text
//! gather -> check each in order -> one append -> one fdatasync -> publish -> answer all -> wake watchers
//! ```
//! While one batch waits for the disk the next one gathers, so the disk is waited for once for many writes. A failed
//! append leaves the log as it was and fails its batch; a failed sync ends all writing ([`StoreError::ReadOnly`]).

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Entry, Event, Options, StoreError, Write, batch,
    cache::{Cache, State},
    files::Lock,
    index::Index,
    keeper::Keeper,
    log::{
        AppendError, Log,
        record::{self, Kind},
    },
    options::Step,
    recover::UNSYNCED_MOST,
};

/// How many writes become one batch at most.
const BATCH_WRITES: usize = 1024;
/// How many bytes of records become one batch, but for the last write.
const BATCH_BYTES: usize = 8 << 20;

type Answer = Result<Arc<Entry>, StoreError>;

/// What is asked of the committer.
pub(crate) enum Request {
    /// Make a change.
    Write(Box<Write>, oneshot::Sender<Answer>),
    /// Finish and end.
    Close,
}

/// Why no write is taken any more; shared with the store's handle.
pub(crate) type Refusal = Arc<RwLock<Option<Arc<str>>>>;

/// The committer's thread.
pub(crate) struct Committer {
    pub(crate) cache: Arc<Cache>,
    pub(crate) log: Log,
    pub(crate) index: Option<Index>,
    pub(crate) keeper: Keeper,
    pub(crate) options: Options,
    pub(crate) refusal: Refusal,
    /// The newest revision that was handed to the index.
    pub(crate) indexed: u64,
    /// Held to the very end.
    pub(crate) lock: Lock,
}

/// A write that passed its checks.
struct Accepted {
    answer: oneshot::Sender<Answer>,
    entry: Arc<Entry>,
}

/// What is to be committed together.
#[derive(Default)]
struct Batch {
    records: Vec<u8>,
    events: Vec<Arc<Event>>,
    accepted: Vec<Accepted>,
    refused: Vec<(oneshot::Sender<Answer>, StoreError)>,
    durable: bool,
}

impl Committer {
    /// Works until asked to close, or until nobody can ask any more.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut open = true;
        while open {
            let Some(first) = requests.blocking_recv() else {
                break;
            };
            let mut batch = Batch::default();
            let mut state = State::clone(&self.cache.state());
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Write(write, answer) => self.check(&mut state, &mut batch, *write, answer),
                    Request::Close => {
                        open = false;
                        break;
                    }
                }
                let full = batch.accepted.len() >= BATCH_WRITES || batch.records.len() >= BATCH_BYTES;
                next = if full { None } else { requests.try_recv().ok() };
            }
            self.commit(state, batch);
        }
        requests.close();
        while let Ok(request) = requests.try_recv() {
            if let Request::Write(_, answer) = request {
                let _ = answer.send(Err(StoreError::Closed));
            }
        }
        self.finish();
    }

    /// Checks a write against the state that the batch has reached so far and adds it to the batch.
    fn check(&self, state: &mut State, batch: &mut Batch, write: Write, answer: oneshot::Sender<Answer>) {
        let durable = write.durable;
        let event = match batch::decide(state, write, state.revision + 1) {
            Ok(event) if self.options.codec.fits(&event.entry, record::MOST) => event,
            Ok(_) => {
                let text = "the object is too large for the store".into();
                return batch.refused.push((answer, StoreError::Io(text)));
            }
            Err(error) => return batch.refused.push((answer, error)),
        };
        let kind = if event.deleted { Kind::Delete } else { Kind::Put };
        record::put(&mut batch.records, event.revision, self.log.synced(), kind, |out| {
            self.options.codec.put(out, &event.entry);
        });
        state.apply(&event);
        batch.durable |= durable;
        batch.accepted.push(Accepted { answer, entry: event.entry.clone() });
        batch.events.push(Arc::new(event));
    }

    fn commit(&mut self, state: State, batch: Batch) {
        let Batch { records, events, accepted, refused, durable } = batch;
        let written = if events.is_empty() { Ok(()) } else { self.append(&records, state.revision, durable) };
        match written {
            Ok(()) => {
                let wake = (!events.is_empty()).then(|| self.cache.publish(state, events));
                // Past the append nothing can fail; the hook is there for tests that end the process.
                let _ = (self.options.hook)(Step::Published);
                for Accepted { answer, entry } in accepted {
                    let _ = answer.send(Ok(entry));
                }
                for (answer, error) in refused {
                    let _ = answer.send(Err(error));
                }
                drop(wake);
                let _ = (self.options.hook)(Step::Acknowledged);
                self.trail();
            }
            Err(error) => {
                // A refusal may rest on a write of the same batch that was not made, so it is not told either.
                let answers = accepted.into_iter().map(|a| a.answer).chain(refused.into_iter().map(|(a, _)| a));
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn append(&mut self, records: &[u8], revision: u64, durable: bool) -> Result<(), StoreError> {
        if let Some(reason) = self.refusal.read().clone() {
            return Err(StoreError::ReadOnly(reason));
        }
        let mut append = || {
            if self.log.segment_length() >= self.options.segment_bytes {
                self.log.roll()?;
                self.keeper.checkpoint(self.cache.state());
            }
            self.log.append(records, revision, durable || self.log.unsynced() + 1024 >= UNSYNCED_MOST)
        };
        append().map_err(|error| match error {
            AppendError::Rejected(error) => {
                tracing::error!(%error, "a batch of writes could not be written");
                StoreError::Io(error.to_string().into())
            }
            AppendError::Fatal(text) => self.refuse(&text),
        })
    }

    /// Ends all writing.
    fn refuse(&self, text: &str) -> StoreError {
        let reason: Arc<str> = format!("the log could not be written: {text}; restart once the disk is sound").into();
        tracing::error!(%reason, "the store is read-only from now on");
        *self.refusal.write() = Some(reason.clone());
        StoreError::ReadOnly(reason)
    }

    /// Hands the state to the index when it has moved on far enough.
    fn trail(&mut self) {
        let revision = self.cache.revision();
        let Some(index) = &self.index else { return };
        if revision - self.indexed < self.options.index_lag {
            return;
        }
        // The index must never be ahead of what is on disk in the log.
        if self.log.unsynced() > 0
            && let Err(error) = self.log.sync()
        {
            self.refuse(&error.to_string());
            return;
        }
        self.indexed = revision;
        index.advance(self.cache.state());
    }

    fn finish(self) {
        self.cache.close();
        if self.refusal.read().is_none() {
            self.log.close();
        }
        self.keeper.close();
        if let Some(index) = self.index {
            index.close();
        }
        drop(self.lock);
    }
}
