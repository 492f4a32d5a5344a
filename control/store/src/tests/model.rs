//! Random histories against a map, with restarts of every kind in between.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::{StoreError, conformance::delete};

#[derive(Debug, Clone)]
enum Action {
    Put(u8, Expect, u16),
    Delete(u8, Expect),
    Compact,
    Reopen,
    /// Reopen without what speeds it up.
    ReopenWithoutIndex,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Absent,
    Current,
    Stale,
    Any,
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![1 => Just(Expect::Absent), 1 => Just(Expect::Current), 1 => Just(Expect::Stale), 3 => Just(Expect::Any)]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (0..12u8, expect(), 0..400u16).prop_map(|(k, e, size)| Action::Put(k, e, size)),
        6 => (0..12u8, expect()).prop_map(|(k, e)| Action::Delete(k, e)),
        1 => Just(Action::Compact),
        1 => Just(Action::Reopen),
        1 => Just(Action::ReopenWithoutIndex),
    ]
}

/// The object's revision, creation and text.
type Model = BTreeMap<String, (u64, u64, String)>;

fn precondition(model: &Model, name: &str, expect: Expect) -> Precondition {
    match (expect, model.get(name)) {
        (Expect::Absent, _) => Precondition::Absent,
        (Expect::Current, Some((revision, ..))) => Precondition::Revision(*revision),
        (Expect::Current, None) => Precondition::Revision(1),
        (Expect::Stale, Some((revision, ..))) => Precondition::Revision(revision + 1),
        (Expect::Stale, None) => Precondition::Revision(7),
        (Expect::Any, _) => Precondition::Any,
    }
}

/// Whether the write should have happened.
fn allowed(model: &Model, name: &str, precondition: Precondition, deletes: bool) -> bool {
    match (precondition, model.get(name)) {
        (Precondition::Absent, found) => found.is_none() && !deletes,
        (Precondition::Revision(expected), found) => found.is_some_and(|(revision, ..)| *revision == expected),
        (Precondition::Any, found) => found.is_some() || !deletes,
    }
}

fn check(store: &LogStore, model: &Model) {
    let list = store.list(&Range::all("configmaps"), At::Latest).unwrap();
    let found: Model = list
        .entries
        .iter()
        .map(|e| (e.key.name.to_string(), (e.revision, e.created, e.attributes.labels["text"].clone())))
        .collect();
    assert_eq!(&found, model);
}

async fn run(actions: Vec<Action>) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small();
    options.segment_bytes = 4 << 10;
    options.index_lag = 5;
    let mut store = open(dir.path(), options.clone()).unwrap();
    let mut model = Model::new();
    let mut past: Vec<(u64, Model)> = vec![(0, model.clone())];
    for action in actions {
        match action {
            Action::Put(k, e, size) => {
                let name = format!("o{k}");
                let precondition = precondition(&model, &name, e);
                let text = format!("{}{}", past.len(), "x".repeat(size.into()));
                let result = store.write(put(&key(&name), precondition, &text)).await;
                assert_eq!(result.is_ok(), allowed(&model, &name, precondition, false), "{result:?}");
                if let Ok(entry) = result {
                    assert!(entry.revision > past.last().unwrap().0);
                    let created = model.get(&name).map_or(entry.revision, |(_, created, _)| *created);
                    model.insert(name, (entry.revision, created, text));
                    past.push((entry.revision, model.clone()));
                }
            }
            Action::Delete(k, e) => {
                let name = format!("o{k}");
                let precondition = precondition(&model, &name, e);
                let result = store.write(delete(&key(&name), precondition)).await;
                assert_eq!(result.is_ok(), allowed(&model, &name, precondition, true), "{result:?}");
                if let Ok(entry) = result {
                    model.remove(&name);
                    past.push((entry.revision, model.clone()));
                }
            }
            Action::Compact => store.compact(store.revision() / 2).unwrap(),
            Action::Reopen | Action::ReopenWithoutIndex => {
                drop(store);
                if matches!(action, Action::ReopenWithoutIndex) {
                    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
                }
                store = open(dir.path(), options.clone()).unwrap();
            }
        }
        check(&store, &model);
        assert_eq!(store.revision(), past.last().unwrap().0);
    }
    check_history(&store, &past).await;
}

/// Every revision that the history still reaches gives the state of then, by list and by replaying its watch.
async fn check_history(store: &LogStore, past: &[(u64, Model)]) {
    for (revision, model) in past {
        let list = match store.list(&Range::all("configmaps"), At::Exact(*revision)) {
            Ok(list) => list,
            Err(StoreError::Compacted { oldest }) => {
                assert!(oldest > *revision);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let mut found: BTreeMap<_, _> = list.entries.iter().map(|e| (e.key.name.to_string(), e.revision)).collect();
        assert_eq!(found, model.iter().map(|(name, (revision, ..))| (name.clone(), *revision)).collect());
        let mut watch = store.watch(Range::all("configmaps"), *revision).unwrap();
        while watch.progress() < store.revision() {
            let event = watch.next().await.unwrap().unwrap();
            let name = event.entry.key.name.to_string();
            let before = if event.deleted { found.remove(&name) } else { found.insert(name, event.revision) };
            assert_eq!(before, event.previous.as_ref().map(|p| p.revision));
        }
        let now = &past.last().unwrap().1;
        assert_eq!(found, now.iter().map(|(name, (revision, ..))| (name.clone(), *revision)).collect());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_history_is_linear_and_survives_restarts(actions in prop::collection::vec(action(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(actions));
    }
}
