//! A watcher: a place in a feed.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio_stream::wrappers::WatchStream;

use super::{
    Published,
    feed::{Feed, Hub},
};
use crate::{Event, Range, StoreError};

/// How many events a watcher takes from its feed at once.
const GULP: usize = 128;

/// The changes of a range, in order, each once. Ends after an error: [`StoreError::Compacted`] if the watcher was so
/// slow that the history it had yet to read is gone. Ends without one when the store closes.
#[derive(Debug)]
pub struct Watch {
    range: Range,
    /// What was read from the feed and not yet handed out.
    ready: VecDeque<Arc<Event>>,
    /// All of the range up to here was handed out or is in `ready`.
    cursor: u64,
    feed: Option<Arc<Feed>>,
    bell: WatchStream<u64>,
    published: Arc<Published>,
    hub: Arc<Mutex<Hub>>,
}

impl Watch {
    pub(super) fn begin(
        range: Range,
        from: u64,
        hub: &Arc<Mutex<Hub>>,
        published: &Arc<Published>,
    ) -> Result<Self, StoreError> {
        let mut locked = hub.lock();
        let (feed, past) = locked.subscribe(&range, from)?;
        // A feed of a narrow scope is complete from now on only; the past was taken from the resource's feed. Events
        // that are in the feeds but not published yet are in the past as well: `poll_next` holds them back.
        let cursor = if range.namespace.is_none() { from } else { locked.head() };
        drop(locked);
        let bell = WatchStream::from_changes(feed.bell());
        let (published, hub) = (published.clone(), hub.clone());
        Ok(Self { range, ready: past, cursor, feed: Some(feed), bell, published, hub })
    }

    /// A revision up to which every change of the range has been handed out: what a bookmark may say. It moves on
    /// while the range is quiet.
    pub fn progress(&self) -> u64 {
        let published = self.published.revision();
        if let Some(next) = self.ready.front() {
            return (next.revision - 1).min(published);
        }
        match self.feed.as_ref().map(|feed| feed.read(self.cursor, published, 1)) {
            Some(Ok(events)) if events.is_empty() => published,
            _ => self.cursor.min(published),
        }
    }

    /// The next event that is published, if it is at hand.
    fn take(&mut self, published: u64) -> Option<Arc<Event>> {
        if self.ready.front()?.revision > published {
            return None;
        }
        self.ready.pop_front()
    }

    /// Reads on in the feed. Says whether there was anything.
    fn refill(&mut self, feed: &Feed, published: u64) -> Result<bool, StoreError> {
        let events = feed.read(self.cursor, published.max(self.cursor), GULP)?;
        let Some(last) = events.last() else {
            return Ok(false);
        };
        self.cursor = last.revision;
        self.ready.extend(events.into_iter().filter(|event| self.range.contains(&event.entry.key)));
        Ok(true)
    }
}

impl Stream for Watch {
    type Item = Result<Arc<Event>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(feed) = this.feed.clone() else {
                return Poll::Ready(None);
            };
            let published = this.published.revision();
            if let Some(event) = this.take(published) {
                return Poll::Ready(Some(Ok(event)));
            }
            if this.ready.is_empty() {
                match this.refill(&feed, published) {
                    Ok(true) => continue,
                    Ok(false) if feed.is_closed() => {
                        this.feed = None;
                        return Poll::Ready(None);
                    }
                    Ok(false) => {}
                    Err(lagged) => {
                        this.feed = None;
                        return Poll::Ready(Some(Err(lagged)));
                    }
                }
            }
            match this.bell.poll_next_unpin(cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.feed = None;
        self.hub.lock().unsubscribe(&self.range);
    }
}
