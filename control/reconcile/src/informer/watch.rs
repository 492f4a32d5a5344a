//! The one watch of a kind: list, follow, resume, list again.
//!
//! ```text
//! Empty ──streaming list (or LIST in pages)──▶ At(rv) ──watch──▶ At(rv') ── broken ──▶ watch again from rv'
//!   ▲                                                              │
//!   └───────────────────────── 410 Expired ────────────────────────┘
//! ```
//!
//! A failure is retried with exponential backoff, at once if the stream had made progress. A server that refuses
//! streaming lists is listed in pages instead.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Filter, Kind, cache::Cache, revision_of};
use crate::Backoff;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
const PAGE: u32 = 500;
const WATCH_SECONDS: u32 = 290;
/// A server that has not ended its watch this long after it should have is gone without a word.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);
/// A stream that lasted this long did not fail at once, so the next one starts without delay.
const HEALTHY: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
enum WatchError {
    #[error("the request failed: {0}")]
    Request(#[source] kube::Error),
    #[error("the stream failed: {0}")]
    Stream(#[source] kube::Error),
    #[error("the server answered: {}", .0.message)]
    Status(Box<Status>),
    #[error("the streaming list ended before it was complete")]
    Incomplete,
    #[error("nothing was heard for longer than the watch lasts")]
    Silent,
}

impl WatchError {
    fn status(&self) -> Option<&Status> {
        match self {
            Self::Request(kube::Error::Api(status)) | Self::Stream(kube::Error::Api(status)) | Self::Status(status) => {
                Some(status)
            }
            _ => None,
        }
    }

    /// The position is no longer served: list again.
    fn is_expired(&self) -> bool {
        self.status().is_some_and(|status| {
            status.code == 410 || status.reason == "Expired" || status.message.contains("Too large resource version")
        })
    }

    /// The server does not know streaming lists.
    fn is_unsupported(&self) -> bool {
        matches!(self, Self::Incomplete) || self.status().is_some_and(|status| matches!(status.code, 400 | 405 | 422))
    }
}

struct Watcher<K> {
    api: Api<K>,
    filter: Filter,
    cache: Arc<Cache<K>>,
    /// The resource version up to which the cache is complete.
    position: Option<String>,
    streaming: bool,
}

/// Keeps `cache` equal to what the server holds, until `cancel`.
pub(super) async fn drive<K: Kind>(api: Api<K>, filter: Filter, cache: Arc<Cache<K>>, cancel: CancellationToken) {
    let resource = api.resource_url().to_owned();
    let mut watcher = Watcher { api, filter, cache: cache.clone(), position: None, streaming: true };
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(15));
    loop {
        let started = Instant::now();
        let before = cache.revision();
        let Some(result) = cancel.run_until_cancelled(watcher.session()).await else {
            break;
        };
        if cache.revision() > before || started.elapsed() >= HEALTHY {
            backoff.reset();
        }
        if let Err(error) = result {
            watcher.recover(&error);
            if backoff.failures() >= 3 {
                warn!(resource, %error, "watch failed");
            } else {
                debug!(resource, %error, "watch failed");
            }
        }
        let delay = tokio::time::sleep(backoff.next_delay());
        if cancel.run_until_cancelled(delay).await.is_none() {
            break;
        }
    }
    cache.close();
}

impl<K: Kind> Watcher<K> {
    /// One connection: catches up if need be, then follows until the stream ends.
    async fn session(&mut self) -> Result<(), WatchError> {
        if self.position.is_none() {
            if self.streaming {
                let stream = self.api.watch(&self.params(true), "").await;
                let mut stream = pin!(stream.map_err(WatchError::Request)?);
                self.catch_up(&mut stream).await?;
                return self.follow(&mut stream).await;
            }
            self.list().await?;
        }
        let position = self.position.clone().unwrap_or_default();
        let stream = self.api.watch(&self.params(false), &position).await;
        let mut stream = pin!(stream.map_err(WatchError::Request)?);
        self.follow(&mut stream).await
    }

    fn recover(&mut self, error: &WatchError) {
        if error.is_expired() {
            self.position = None;
        } else if self.position.is_none() && self.streaming && error.is_unsupported() {
            self.streaming = false;
        }
    }

    fn params(&self, initial: bool) -> WatchParams {
        WatchParams {
            label_selector: self.filter.labels.clone(),
            field_selector: self.selector(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events: initial,
        }
    }

    /// The field selector; a namespace is one more field, so that one code path serves all filters.
    fn selector(&self) -> Option<String> {
        let namespace = self.filter.namespace.as_ref().map(|name| format!("metadata.namespace={name}"));
        match (&self.filter.fields, namespace) {
            (Some(fields), Some(namespace)) => Some(format!("{fields},{namespace}")),
            (fields, namespace) => namespace.or_else(|| fields.clone()),
        }
    }

    async fn list(&mut self) -> Result<(), WatchError> {
        let mut params = ListParams {
            label_selector: self.filter.labels.clone(),
            field_selector: self.selector(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = self.api.list(&params).await.map_err(WatchError::Request)?;
            objects.extend(page.items.into_iter().map(slim));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version.unwrap_or_default();
                    self.complete(objects, version);
                    return Ok(());
                }
            }
        }
    }

    async fn catch_up(
        &mut self,
        stream: &mut (impl Stream<Item = kube::Result<WatchEvent<K>>> + Unpin),
    ) -> Result<(), WatchError> {
        let mut objects = Vec::new();
        loop {
            match next(stream).await? {
                None => return Err(WatchError::Incomplete),
                Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => objects.push(slim(object)),
                Some(WatchEvent::Deleted(object)) => {
                    let key = crate::ObjectKey::of(&object);
                    objects.retain(|known| crate::ObjectKey::of(known) != key);
                }
                Some(WatchEvent::Bookmark(mark)) if mark.metadata.annotations.contains_key(INITIAL_EVENTS_END) => {
                    self.complete(objects, mark.metadata.resource_version);
                    return Ok(());
                }
                Some(WatchEvent::Bookmark(_)) => {}
                Some(WatchEvent::Error(status)) => return Err(WatchError::Status(status)),
            }
        }
    }

    async fn follow(
        &mut self,
        stream: &mut (impl Stream<Item = kube::Result<WatchEvent<K>>> + Unpin),
    ) -> Result<(), WatchError> {
        while let Some(event) = next(stream).await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.position = object.meta().resource_version.clone();
                    self.cache.apply(slim(object));
                }
                WatchEvent::Deleted(object) => {
                    self.position = object.meta().resource_version.clone();
                    self.cache.delete(object);
                }
                WatchEvent::Bookmark(mark) => {
                    self.cache.advance(mark.metadata.resource_version.parse().unwrap_or(0));
                    self.position = Some(mark.metadata.resource_version);
                }
                WatchEvent::Error(status) => return Err(WatchError::Status(status)),
            }
        }
        Ok(())
    }

    fn complete(&mut self, objects: Vec<K>, version: String) {
        let newest = objects.iter().map(revision_of).max().unwrap_or(0);
        let revision = version.parse().unwrap_or(0).max(newest);
        self.cache.replace(objects, revision);
        self.position = Some(version);
    }
}

async fn next<T>(stream: &mut (impl Stream<Item = kube::Result<T>> + Unpin)) -> Result<Option<T>, WatchError> {
    loop {
        match timeout(SILENCE, stream.next()).await {
            Err(_) => return Err(WatchError::Silent),
            // One object that this version cannot read must not hide all others: the stream goes on behind it.
            Ok(Some(Err(kube::Error::SerdeError(error)))) => {
                warn!(%error, "skipped an object that cannot be decoded")
            }
            Ok(item) => return item.transpose().map_err(WatchError::Stream),
        }
    }
}

fn slim<K: Kind>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
