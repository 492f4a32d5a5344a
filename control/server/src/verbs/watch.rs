//! WATCH: what changes, as it changes.
//!
//! | resourceVersion | sendInitialEvents | begins with |
//! |---|---|---|
//! | none or 0 | unset | an ADDED for each object there is |
//! | N | unset | what happened after N, even if N is yet to come |
//! | any | true | an ADDED for each object there is, then a BOOKMARK that says so |
//! | any | false | what happens from now on (or after N) |
//!
//! An object that begins to match the selectors is ADDED, one that no longer does is DELETED as it last
//! matched, both at the revision of the change. Bookmarks, if allowed, come each minute. A watch ends after
//! `timeoutSeconds`, or some 30 to 60 minutes (random, so that clients do not come back all at once), or with the server. A
//! history that is gone is an ERROR event that holds a 410.
//!
//! Events are the store's bytes with a frame around them; events at hand go out together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode};
use rand::Rng as _;
use tokio::time::{Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;
use wherry_api::field::{FieldError, Path};
use wherry_api::status::Status;
use wherry_store::{At, Entry, Event, StoreError, Watch};

use super::list::{parse_revision, wait};
use super::selection::Selection;
use crate::engine::Call;
use crate::frames::{Encoder, Kind};
use crate::negotiate::{Offers, accept};
use crate::objects;
use crate::options::{Query, all_invalid};
use crate::respond;

/// How much is gathered before it is handed to the connection.
const CHUNK: usize = 64 << 10;
const SHORTEST: u64 = 30 * 60;

pub(crate) async fn run(call: &Call) -> Result<Response, Status> {
    let accepted = accept(&call.headers, Offers::Watch)?;
    let query = call.query();
    let selection = Selection::parse(call, &query)?;
    let options = Options::parse(&query)?;
    let encoder = Encoder::new(call, accepted)?;
    let content_type = accepted.format.stream_type().unwrap_or_default();
    let body = match begin(call, selection, &options, encoder).await? {
        Ok(watcher) => Body::from_stream(futures::stream::unfold(watcher, |mut watcher| async move {
            watcher.next().await.map(|chunk| (chunk, watcher))
        })),
        Err(gone) => Body::from(gone),
    };
    Ok(respond::body(StatusCode::OK, HeaderValue::from_static(content_type), body))
}

/// The watcher at its starting point; bytes of an ERROR event if that is no longer in the history.
async fn begin(
    call: &Call,
    selection: Selection,
    options: &Options,
    encoder: Encoder,
) -> Result<Result<Watcher, Bytes>, Status> {
    let store = &call.engine.store;
    let range = selection.narrow(call, call.range());
    let (initial, from) = if options.initial {
        if let Some(revision) = options.revision
            && let Err(future) = wait(call, revision).await
        {
            return refused(encoder, &future);
        }
        let list = store.list(&range, At::Latest).map_err(|e| objects::store_status(&e))?;
        let initial = list.entries.into_iter().filter(|e| selection.matches(e)).collect();
        (initial, list.revision)
    } else {
        // Who begins in the future waits for it.
        let newest = store.revision();
        (VecDeque::new(), options.revision.map_or(newest, |revision| revision.min(newest)))
    };
    let watch = match store.watch(range, from) {
        Ok(watch) => watch,
        Err(StoreError::Compacted { oldest }) => return refused(encoder, &too_old(from, oldest)),
        Err(error) => return Err(objects::store_status(&error)),
    };
    let mut bookmarks = tokio::time::interval(call.engine.bookmark_interval);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    bookmarks.reset();
    Ok(Ok(Watcher {
        selection,
        encoder,
        initial,
        initial_end: (options.initial && options.bookmark_initial).then_some(from),
        watch,
        after: options.revision.unwrap_or(0),
        bookmarks: options.bookmarks.then_some(bookmarks),
        deadline: Box::pin(tokio::time::sleep(options.timeout)),
        closing: call.closing.clone().unwrap_or_default(),
        ended: false,
    }))
}

/// Once the request was understood, what is wrong with it is told in the stream.
fn refused(mut encoder: Encoder, why: &Status) -> Result<Result<Watcher, Bytes>, Status> {
    let mut event = Vec::new();
    encoder.error(&mut event, why)?;
    Ok(Err(event.into()))
}

fn too_old(asked: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}

struct Watcher {
    selection: Selection,
    encoder: Encoder,
    /// Objects to send before anything else.
    initial: VecDeque<Arc<Entry>>,
    /// The revision of the bookmark that ends the initial events, until it is sent.
    initial_end: Option<u64>,
    watch: Watch,
    /// What happened up to this revision is known to the client.
    after: u64,
    bookmarks: Option<Interval>,
    deadline: Pin<Box<Sleep>>,
    closing: CancellationToken,
    ended: bool,
}

impl Watcher {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        if self.ended {
            return None;
        }
        let mut out = Vec::new();
        match self.fill(&mut out).await {
            Ok(()) if out.is_empty() => None,
            Ok(()) => Some(Ok(out.into())),
            Err(status) => {
                self.ended = true;
                Some(Err(status))
            }
        }
    }

    /// Waits for something to say and says it together with what else is at hand; nothing at the end.
    async fn fill(&mut self, out: &mut Vec<u8>) -> Result<(), Status> {
        while let Some(entry) = self.initial.pop_front() {
            self.encoder.event(out, Kind::Added, &entry)?;
            if out.len() >= CHUNK {
                return Ok(());
            }
        }
        if let Some(revision) = self.initial_end.take() {
            self.encoder.bookmark(out, revision, true)?;
        }
        while out.is_empty() {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => { self.ended = true; return Ok(()) }
                () = self.deadline.as_mut() => { self.ended = true; return Ok(()) }
                event = self.watch.next() => if !self.take(out, event)? { return Ok(()) },
                () = tick(&mut self.bookmarks) => {
                    let revision = self.watch.progress();
                    if revision >= self.after {
                        self.encoder.bookmark(out, revision, false)?;
                    }
                }
            }
        }
        while out.len() < CHUNK {
            let Some(event) = self.watch.next().now_or_never() else {
                break;
            };
            if !self.take(out, event)? {
                break;
            }
        }
        Ok(())
    }

    /// Writes an event if it concerns this watcher; false at the end of the stream.
    fn take(&mut self, out: &mut Vec<u8>, event: Option<Result<Arc<Event>, StoreError>>) -> Result<bool, Status> {
        match event {
            Some(Ok(event)) => {
                if event.revision > self.after {
                    self.write(out, &event)?;
                }
                return Ok(true);
            }
            Some(Err(StoreError::Compacted { oldest })) => {
                self.encoder.error(out, &too_old(self.watch.progress(), oldest))?;
            }
            Some(Err(error)) => self.encoder.error(out, &objects::store_status(&error))?,
            None => {}
        }
        self.ended = true;
        Ok(false)
    }

    fn write(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<(), Status> {
        let was = event.previous.as_ref().is_some_and(|p| self.selection.matches(p));
        let is = !event.deleted && self.selection.matches(&event.entry);
        match (was, is) {
            (false, true) => self.encoder.event(out, Kind::Added, &event.entry),
            (true, true) => self.encoder.event(out, Kind::Modified, &event.entry),
            (true, false) if event.deleted => self.encoder.event(out, Kind::Deleted, &event.entry),
            // It is shown as it last matched.
            (true, false) => match &event.previous {
                Some(previous) => self.encoder.left(out, previous, event.revision),
                None => Ok(()),
            },
            (false, false) => Ok(()),
        }
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// The parameters of a watch, checked and resolved.
struct Options {
    /// Where to begin; none for now.
    revision: Option<u64>,
    /// Whether to begin with what there is.
    initial: bool,
    /// Whether to say when that is done.
    bookmark_initial: bool,
    bookmarks: bool,
    timeout: Duration,
}

impl Options {
    fn parse(query: &Query<'_>) -> Result<Self, Status> {
        let send = query.boolean("sendInitialEvents");
        check(query, send)?;
        let revision = query.get("resourceVersion").map(parse_revision).transpose()?.filter(|r| *r > 0);
        let bookmarks = query.flag("allowWatchBookmarks");
        let timeout = match query.integer("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
            _ => Duration::from_secs(rand::rng().random_range(SHORTEST..2 * SHORTEST)),
        };
        let initial = send.unwrap_or(revision.is_none());
        Ok(Self { revision, initial, bookmark_initial: send == Some(true) && bookmarks, bookmarks, timeout })
    }
}

/// Everything that is wrong with the combination of options.
fn check(query: &Query<'_>, send: Option<bool>) -> Result<(), Status> {
    let path = Path::new("resourceVersionMatch");
    let matching = query.get("resourceVersionMatch");
    let mut errors = Vec::new();
    if send.is_some() && matching != Some("NotOlderThan") {
        let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, detail));
    }
    if let Some(matching) = matching {
        if send.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&path, detail));
        }
        if matching != "NotOlderThan" {
            errors.push(FieldError::not_supported(&path, matching, &["NotOlderThan"]));
        }
        if query.get("continue").is_some() {
            errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    all_invalid("ListOptions", &errors)
}
