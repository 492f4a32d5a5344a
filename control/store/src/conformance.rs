//! What every [`Store`] must do, as a suite that takes the store to test.
//!
//! A failed expectation panics and says what was expected, so the suite is called from tests: of this crate's stores,
//! and of any other backend.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use wherry_api::{encode::Encoded, selector::Attributes};

use crate::{At, Event, Key, List, Op, Precondition, Range, Store, StoreError, Watch, Write};

/// How long the suite waits for what must happen. Only a failing store takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the whole suite, each part on a store of its own that `make` gives.
pub async fn suite<S: Store>(make: impl Fn() -> Arc<S>) {
    preconditions(&*make()).await;
    objects(&*make()).await;
    lists(&*make()).await;
    exact_lists(&*make()).await;
    watches(&*make()).await;
    narrow_watches(&*make()).await;
    resumed_watches(&*make()).await;
    compaction(&*make()).await;
    waiting(make()).await;
    concurrent_writers(make()).await;
}

/// A small object's stored form.
pub fn object(key: &Key, text: &str) -> Encoded {
    let json = format!(
        r#"{{"kind":"ConfigMap","metadata":{{"name":{:?},"namespace":{:?}}},"text":{text:?}}}"#,
        &*key.name, &*key.namespace
    );
    let rv_at = json.find("{\"name").map_or(0, |at| at + 1);
    Encoded { json: Bytes::from(json), rv_at }
}

/// A write that puts a small object.
pub fn put(key: &Key, precondition: Precondition, text: &str) -> Write {
    let mut attributes = Attributes::default();
    attributes.labels.insert("text".into(), text.into());
    let op = Op::Put { object: object(key, text), attributes, uid: "uid".into() };
    Write { key: key.clone(), precondition, op, durable: true }
}

/// A write that deletes an object.
pub fn delete(key: &Key, precondition: Precondition) -> Write {
    Write { key: key.clone(), precondition, op: Op::Delete { object: object(key, "last") }, durable: true }
}

fn key(namespace: &str, name: &str) -> Key {
    Key::new("configmaps", namespace, name)
}

async fn must(store: &impl Store, write: Write) -> u64 {
    let name = write.key.to_string();
    match store.write(write).await {
        Ok(entry) => entry.revision,
        Err(error) => panic!("the write of {name} failed: {error}"),
    }
}

fn listed(store: &impl Store, range: &Range, at: At) -> List {
    store.list(range, at).unwrap_or_else(|error| panic!("the list of {range:?} at {at:?} failed: {error}"))
}

fn names(list: &List) -> Vec<String> {
    list.entries.iter().map(|e| format!("{}/{}", e.key.namespace, e.key.name)).collect()
}

fn watched(store: &impl Store, range: Range, from: u64) -> Watch {
    store.watch(range, from).unwrap_or_else(|error| panic!("the watch from {from} failed: {error}"))
}

async fn next(watch: &mut Watch) -> Arc<Event> {
    match tokio::time::timeout(PATIENCE, watch.next()).await {
        Ok(Some(Ok(event))) => event,
        other => panic!("a watch gave {other:?} instead of an event"),
    }
}

async fn preconditions(store: &impl Store) {
    let a = key("default", "a");
    let first = must(store, put(&a, Precondition::Absent, "1")).await;
    let again = store.write(put(&a, Precondition::Absent, "2")).await;
    assert!(matches!(again, Err(StoreError::Exists { current }) if current.revision == first), "exists");
    let stale = store.write(put(&a, Precondition::Revision(first + 1), "2")).await;
    assert!(matches!(stale, Err(StoreError::Conflict { current }) if current.revision == first), "conflict");
    let second = must(store, put(&a, Precondition::Revision(first), "2")).await;
    assert_eq!(second, first + 1, "a refused write takes no revision");
    let stale = store.write(delete(&a, Precondition::Revision(first))).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "conflict of a delete");
    must(store, delete(&a, Precondition::Revision(second))).await;
    for precondition in [Precondition::Any, Precondition::Revision(second)] {
        let gone = store.write(delete(&a, precondition)).await;
        assert!(matches!(gone, Err(StoreError::NotFound)), "delete of nothing: {gone:?}");
    }
    let gone = store.write(put(&a, Precondition::Revision(second), "3")).await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "update of nothing: {gone:?}");
    must(store, put(&a, Precondition::Any, "4")).await;
    must(store, put(&a, Precondition::Any, "5")).await;
}

async fn objects(store: &impl Store) {
    let a = key("default", "a");
    assert!(store.get(&a).is_none());
    let created = must(store, put(&a, Precondition::Absent, "1")).await;
    let updated = must(store, put(&a, Precondition::Any, "2")).await;
    let entry = store.get(&a).unwrap_or_else(|| panic!("the object is gone"));
    assert_eq!((entry.created, entry.revision), (created, updated));
    assert_eq!((&entry.key, &*entry.uid), (&a, "uid"));
    assert_eq!(entry.attributes.labels["text"], "2");
    assert_eq!(entry.json, object(&a, "2").splice(updated));
    assert_eq!(store.revision(), updated);
    let last = store.write(delete(&a, Precondition::Any)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(last.json, object(&a, "last").splice(updated + 1), "a delete gives the last state at its revision");
    assert!(store.get(&a).is_none());
    let mut soft = put(&a, Precondition::Absent, "3");
    soft.durable = false;
    let again = must(store, soft).await;
    assert_eq!(store.get(&a).map(|e| e.created), Some(again), "an object made anew is created anew");
}

async fn lists(store: &impl Store) {
    for (namespace, name) in [("b", "x"), ("a", "z"), ("a", "y"), ("b", "a"), ("ab", "x")] {
        must(store, put(&key(namespace, name), Precondition::Absent, name)).await;
    }
    must(store, put(&Key::new("nodes", "", "n1"), Precondition::Absent, "")).await;
    let all = Range::all("configmaps");
    let list = listed(store, &all, At::Latest);
    assert_eq!(names(&list), ["a/y", "a/z", "ab/x", "b/a", "b/x"]);
    assert_eq!((list.count, list.revision), (5, store.revision()));
    assert_eq!(names(&listed(store, &Range::all("nodes"), At::Latest)), ["/n1"]);
    assert_eq!(listed(store, &Range::all("pods"), At::Latest).count, 0);
    let of = |range: Range| names(&listed(store, &range, At::Latest));
    assert_eq!(of(all.clone().namespace("a")), ["a/y", "a/z"]);
    assert_eq!(of(all.clone().name("x")), ["ab/x", "b/x"]);
    assert_eq!(of(all.clone().namespace("b").name("x")), ["b/x"]);
    assert_eq!(of(Range::all("nodes").name("n1")), ["/n1"]);
    let page = listed(store, &all.clone().limit(2), At::Latest);
    assert_eq!((names(&page), page.count), (vec!["a/y".into(), "a/z".into()], 5));
    let page = listed(store, &all.clone().after("a", "z").limit(2), At::Latest);
    assert_eq!((names(&page), page.count), (vec!["ab/x".into(), "b/a".into()], 3));
    assert_eq!(of(all.clone().namespace("b").after("a", "z")), ["b/a", "b/x"]);
    assert_eq!(of(all.clone().namespace("b").after("b", "a")), ["b/x"]);
    assert!(of(all.clone().namespace("a").after("b", "a")).is_empty());
    let ahead = store.revision() + 1;
    for at in [At::Exact(ahead), At::NotOlderThan(ahead)] {
        assert!(matches!(store.list(&all, at), Err(StoreError::Future { current }) if current == ahead - 1));
    }
    assert_eq!(listed(store, &all, At::NotOlderThan(1)).count, 5);
}

async fn exact_lists(store: &impl Store) {
    let (a, b) = (key("default", "a"), key("default", "b"));
    let first = must(store, put(&a, Precondition::Absent, "1")).await;
    must(store, put(&b, Precondition::Absent, "1")).await;
    let second = must(store, put(&a, Precondition::Any, "2")).await;
    must(store, put(&Key::new("secrets", "default", "a"), Precondition::Absent, "")).await;
    must(store, delete(&b, Precondition::Any)).await;
    must(store, delete(&a, Precondition::Any)).await;
    let all = Range::all("configmaps");
    assert!(listed(store, &all, At::Latest).entries.is_empty());
    let then = listed(store, &all, At::Exact(second));
    let texts: Vec<_> = then.entries.iter().map(|e| (&*e.key.name, &*e.attributes.labels["text"])).collect();
    assert_eq!((texts, then.revision), (vec![("a", "2"), ("b", "1")], second));
    let then = listed(store, &all, At::Exact(first));
    assert_eq!((names(&then), then.entries[0].revision), (vec!["default/a".into()], first));
}

async fn watches(store: &impl Store) {
    let a = key("default", "a");
    let mut watch = watched(store, Range::all("configmaps"), store.revision());
    assert_eq!(watch.progress(), store.revision());
    must(store, put(&Key::new("secrets", "default", "a"), Precondition::Absent, "")).await;
    assert_eq!(watch.progress(), store.revision(), "a quiet watch moves on");
    let created = must(store, put(&a, Precondition::Absent, "1")).await;
    assert!(watch.progress() < created, "no progress past an event that was not handed out");
    let event = next(&mut watch).await;
    assert_eq!((event.revision, event.deleted, event.previous.is_none()), (created, false, true));
    assert_eq!(watch.progress(), created);
    let updated = must(store, put(&a, Precondition::Any, "2")).await;
    let deleted = must(store, delete(&a, Precondition::Any)).await;
    let event = next(&mut watch).await;
    assert_eq!((event.revision, event.previous.as_ref().map(|p| p.revision)), (updated, Some(created)));
    let event = next(&mut watch).await;
    assert_eq!((event.revision, event.deleted), (deleted, true));
    assert_eq!(event.previous.as_ref().map(|p| p.revision), Some(updated));
    assert_eq!(event.entry.json, object(&a, "last").splice(deleted));
    let ahead = store.watch(Range::all("configmaps"), deleted + 1);
    assert!(matches!(ahead, Err(StoreError::Future { .. })), "a watch from the future");
}

async fn narrow_watches(store: &impl Store) {
    let start = store.revision();
    let other = must(store, put(&key("b", "x"), Precondition::Absent, "")).await;
    let early = must(store, put(&key("a", "x"), Precondition::Absent, "")).await;
    let all = Range::all("configmaps");
    let mut namespace = watched(store, all.clone().namespace("a"), start);
    let mut object = watched(store, all.clone().namespace("a").name("y"), start);
    let mut name = watched(store, all.clone().name("x"), start);
    let mut second = watched(store, all.clone().namespace("a").name("y"), early);
    assert!(namespace.progress() < early && object.progress() == early);
    must(store, put(&key("b", "y"), Precondition::Absent, "")).await;
    let late = must(store, put(&key("a", "y"), Precondition::Absent, "")).await;
    for (watch, expected) in [
        (&mut namespace, vec![early, late]),
        (&mut object, vec![late]),
        (&mut second, vec![late]),
        (&mut name, vec![other, early]),
    ] {
        for revision in expected {
            assert_eq!(next(watch).await.revision, revision);
        }
        assert_eq!(watch.progress(), late);
    }
    drop(object);
    let more = must(store, put(&key("a", "y"), Precondition::Any, "2")).await;
    assert_eq!(next(&mut second).await.revision, more, "the end of one watch leaves its sibling alone");
}

async fn resumed_watches(store: &impl Store) {
    let mut revisions = Vec::new();
    for number in 0..300 {
        revisions.push(must(store, put(&key("default", &format!("{}", number % 7)), Precondition::Any, "x")).await);
    }
    for from in [0, 1, 150, 299] {
        let mut watch = watched(store, Range::all("configmaps"), revisions[from]);
        for expected in &revisions[from + 1..] {
            assert_eq!(next(&mut watch).await.revision, *expected, "a resumed watch misses nothing");
        }
    }
}

async fn compaction(store: &impl Store) {
    let a = key("default", "a");
    let first = must(store, put(&a, Precondition::Absent, "1")).await;
    let second = must(store, put(&a, Precondition::Any, "2")).await;
    let third = must(store, put(&a, Precondition::Any, "3")).await;
    let mut slow = watched(store, Range::all("configmaps"), first);
    assert!(store.compact(second).is_ok());
    let lagged = tokio::time::timeout(PATIENCE, slow.next()).await;
    assert!(matches!(lagged, Ok(Some(Err(StoreError::Compacted { oldest })) ) if oldest == second), "{lagged:?}");
    assert!(matches!(tokio::time::timeout(PATIENCE, slow.next()).await, Ok(None)), "a cut off watch ends");
    for resource in ["configmaps", "quiet"] {
        let old = store.list(&Range::all(resource), At::Exact(first));
        assert!(matches!(old, Err(StoreError::Compacted { .. })), "{old:?}");
        assert!(matches!(store.watch(Range::all(resource), first), Err(StoreError::Compacted { .. })));
    }
    let mut watch = watched(store, Range::all("configmaps"), second);
    assert_eq!(next(&mut watch).await.revision, third);
    assert!(matches!(store.compact(third + 1), Err(StoreError::Future { .. })));
}

async fn waiting<S: Store>(store: Arc<S>) {
    let current = store.revision();
    assert!(store.wait_for(current, PATIENCE).await.is_ok());
    let late = store.wait_for(current + 1, Duration::ZERO).await;
    assert!(matches!(late, Err(StoreError::Future { .. })));
    let waiter = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for(current + 1, PATIENCE).await }
    });
    must(&*store, put(&key("default", "a"), Precondition::Absent, "1")).await;
    assert!(matches!(waiter.await, Ok(Ok(()))));
}

async fn concurrent_writers<S: Store>(store: Arc<S>) {
    const WRITERS: usize = 16;
    const EACH: usize = 25;
    let counter = key("default", "counter");
    must(&*store, put(&counter, Precondition::Absent, "0")).await;
    let from = store.revision();
    let mut watch = watched(&*store, Range::all("configmaps"), from);
    let writers = (0..WRITERS).map(|_| {
        let (store, counter) = (store.clone(), counter.clone());
        tokio::spawn(async move {
            for _ in 0..EACH {
                loop {
                    let current = store.get(&counter).unwrap_or_else(|| panic!("the counter is gone"));
                    let count: usize = current.attributes.labels["text"].parse().unwrap_or_default();
                    let write = put(&counter, Precondition::Revision(current.revision), &(count + 1).to_string());
                    match store.write(write).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        assert!(writer.is_ok(), "a writer failed");
    }
    let total = (WRITERS * EACH).to_string();
    assert_eq!(store.get(&counter).map(|e| e.attributes.labels["text"].clone()), Some(total), "no update is lost");
    for count in 1..=WRITERS * EACH {
        let event = next(&mut watch).await;
        assert_eq!(event.entry.attributes.labels["text"], count.to_string(), "each change once, in order");
        assert_eq!(event.revision, from + count as u64);
    }
}
