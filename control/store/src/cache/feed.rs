//! The recent events, in one feed a watched scope.
//!
//! Every resource has a feed of all its events: the history. A scope (a namespace or a single object) gets a feed of
//! its own while someone watches it, so that a thousand watches of one object each sleep through what happens to the
//! others. A watcher holds no buffer but its place in a feed; one that falls behind the window is cut off.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::RwLock;

use crate::{Event, Key, Range, StoreError};

/// How much history is kept. The first bound that is reached counts.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// For how long.
    pub age: Duration,
    /// How many events.
    pub events: usize,
    /// How many bytes of objects.
    pub bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { age: Duration::from_secs(600), events: 65_536, bytes: 128 << 20 }
    }
}

/// What a watcher can ask for: all of a resource, a namespace of it, or one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    resource: Arc<str>,
    namespace: Option<Arc<str>>,
    name: Option<Arc<str>>,
}

impl Scope {
    /// The narrowest scope that covers a range.
    pub(crate) fn of(range: &Range) -> Self {
        let namespace = range.namespace.clone();
        let name = namespace.as_ref().and(range.name.clone());
        Self { resource: range.resource.clone(), namespace, name }
    }

    fn narrow(key: &Key) -> [Self; 2] {
        let namespace = Self { resource: key.resource.clone(), namespace: Some(key.namespace.clone()), name: None };
        let object = Self { name: Some(key.name.clone()), ..namespace.clone() };
        [namespace, object]
    }
}

/// The events of one scope, oldest first, and a bell that rings when there are more.
#[derive(Debug)]
pub(crate) struct Feed {
    log: RwLock<Log>,
    bell: tokio::sync::watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    /// Events up to and including this revision may be missing.
    floor: u64,
    events: VecDeque<Arc<Event>>,
    closed: bool,
}

impl Feed {
    fn new(floor: u64) -> Arc<Self> {
        let log = Log { floor, events: VecDeque::new(), closed: false };
        Arc::new(Self { log: RwLock::new(log), bell: tokio::sync::watch::Sender::new(floor) })
    }

    pub(crate) fn wake(&self, revision: u64) {
        self.bell.send_replace(revision);
    }

    pub(crate) fn bell(&self) -> tokio::sync::watch::Receiver<u64> {
        self.bell.subscribe()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.log.read().closed
    }

    /// Up to `most` events after `after` and no later than `until`.
    pub(crate) fn read(&self, after: u64, until: u64, most: usize) -> Result<Vec<Arc<Event>>, StoreError> {
        let log = self.log.read();
        if after < log.floor {
            return Err(StoreError::Compacted { oldest: log.floor });
        }
        let start = log.events.partition_point(|event| event.revision <= after);
        Ok(log.events.range(start..).take_while(|event| event.revision <= until).take(most).cloned().collect())
    }

    fn push(&self, event: &Arc<Event>, floor: u64) {
        let mut log = self.log.write();
        // A narrow feed is pruned when it grows.
        log.prune(floor);
        log.events.push_back(event.clone());
    }
}

impl Log {
    fn prune(&mut self, floor: u64) {
        while self.events.front().is_some_and(|event| event.revision <= floor) {
            if let Some(event) = self.events.pop_front() {
                self.floor = event.revision;
            }
        }
    }
}

/// All feeds.
#[derive(Debug)]
pub(crate) struct Hub {
    window: Window,
    /// Where the history began: the floor of a resource of which nothing has been dropped.
    base: u64,
    /// The newest revision that was pushed.
    head: u64,
    /// The revision of the last event that was dropped from the window.
    floor: u64,
    /// All events of the window in order, for pruning.
    order: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    resources: HashMap<Arc<str>, Arc<Feed>>,
    narrow: HashMap<Scope, Weak<Feed>>,
    closed: bool,
}

impl Hub {
    pub(crate) fn new(base: u64, window: Window) -> Self {
        Self {
            window,
            base,
            head: base,
            floor: base,
            order: VecDeque::new(),
            bytes: 0,
            resources: HashMap::new(),
            narrow: HashMap::new(),
            closed: false,
        }
    }

    /// Takes events in and gives the feeds to wake, each once.
    pub(crate) fn push(&mut self, events: Vec<Arc<Event>>) -> Vec<Arc<Feed>> {
        let now = Instant::now();
        let mut touched: Vec<Arc<Feed>> = Vec::new();
        for event in events {
            let feed = self.resource(&event.entry.key.resource);
            feed.log.write().events.push_back(event.clone());
            note(&mut touched, feed);
            if !self.narrow.is_empty() {
                for scope in Scope::narrow(&event.entry.key) {
                    if let Some(feed) = self.narrow.get(&scope).and_then(Weak::upgrade) {
                        feed.push(&event, self.floor);
                        note(&mut touched, feed);
                    }
                }
            }
            self.head = event.revision;
            self.bytes += weight(&event);
            self.order.push_back((now, event));
        }
        self.prune(now);
        touched
    }

    fn prune(&mut self, now: Instant) {
        let Window { age, events, bytes } = self.window;
        while let Some((at, _)) = self.order.front() {
            if self.order.len() <= events && self.bytes <= bytes && now.duration_since(*at) <= age {
                break;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, event)) = self.order.pop_front() {
            self.bytes -= weight(&event);
            self.floor = event.revision;
            if let Some(feed) = self.resources.get(&event.entry.key.resource) {
                feed.log.write().prune(event.revision);
            }
        }
    }

    /// Drops the history up to and including `revision`, of quiet resources too.
    pub(crate) fn compact(&mut self, revision: u64) {
        while self.order.front().is_some_and(|(_, event)| event.revision <= revision) {
            self.drop_oldest();
        }
        self.base = self.base.max(revision);
        for feed in self.resources.values() {
            let mut log = feed.log.write();
            log.floor = log.floor.max(revision);
        }
    }

    /// The feed of a whole resource.
    fn resource(&mut self, resource: &Arc<str>) -> Arc<Feed> {
        let (base, closed) = (self.base, self.closed);
        let feed = self.resources.entry(resource.clone()).or_insert_with(|| Feed::new(base));
        if closed {
            feed.log.write().closed = true;
        }
        feed.clone()
    }

    /// The events of a resource after one revision, up to another.
    pub(crate) fn between(
        &mut self,
        resource: &Arc<str>,
        after: u64,
        until: u64,
    ) -> Result<Vec<Arc<Event>>, StoreError> {
        self.resource(resource).read(after, until, usize::MAX)
    }

    /// The feed of a scope for a watch from a revision, and what it does not hold of the past.
    pub(crate) fn subscribe(
        &mut self,
        range: &Range,
        from: u64,
    ) -> Result<(Arc<Feed>, VecDeque<Arc<Event>>), StoreError> {
        let all = self.resource(&range.resource);
        let scope = Scope::of(range);
        if scope.namespace.is_none() {
            all.read(from, from, 0)?;
            return Ok((all, VecDeque::new()));
        }
        let mut past: VecDeque<_> = all.read(from, u64::MAX, usize::MAX)?.into();
        past.retain(|event| range.contains(&event.entry.key));
        let feed = match self.narrow.get(&scope).and_then(Weak::upgrade) {
            Some(feed) => feed,
            None => {
                let feed = Feed::new(self.head);
                feed.log.write().closed = self.closed;
                self.narrow.insert(scope, Arc::downgrade(&feed));
                feed
            }
        };
        Ok((feed, past))
    }

    /// Forgets the feed of a scope if nobody watches it any more.
    pub(crate) fn unsubscribe(&mut self, range: &Range) {
        let scope = Scope::of(range);
        if self.narrow.get(&scope).is_some_and(|feed| feed.strong_count() == 0) {
            self.narrow.remove(&scope);
        }
    }

    /// The newest revision in the feeds.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        let narrow = self.narrow.values().filter_map(Weak::upgrade);
        for feed in self.resources.values().cloned().chain(narrow) {
            feed.log.write().closed = true;
            feed.wake(self.head);
        }
    }
}

fn note(touched: &mut Vec<Arc<Feed>>, feed: Arc<Feed>) {
    if !touched.iter().any(|seen| Arc::ptr_eq(seen, &feed)) {
        touched.push(feed);
    }
}

fn weight(event: &Event) -> usize {
    // The object before lies in the window too, as the event that made it, or in nobody else's hands any more.
    event.entry.json.len() + 256
}
