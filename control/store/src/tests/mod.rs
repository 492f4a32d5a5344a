//! Tests of the whole store: conformance, histories against a model, kills, faults, damage.
#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod damage;
mod encryption;
mod faults;
mod kill;
mod model;
mod recovery;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use wherry_api::selector::Attributes;

use crate::{At, Key, LogStore, OpenError, Options, Precondition, Range, Store, conformance::put, open};

/// Derives from the suite's objects what the suite writes as attributes.
fn describe(_: &Key, object: &Value) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.labels.insert("text".into(), object["text"].as_str().unwrap_or_default().into());
    attributes
}

/// Options that reach segments' ends, checkpoints and the index with few writes.
fn small() -> Options {
    let mut options = Options::new(Arc::new(describe));
    options.segment_bytes = 8 << 10;
    options.index_lag = 20;
    options
}

fn key(name: &str) -> Key {
    Key::new("configmaps", "default", name)
}

/// What a store holds, by key: revision, creation and content.
type Content = BTreeMap<Key, (u64, u64, Vec<u8>)>;

fn content(store: &impl Store) -> Content {
    let list = store.list(&Range::all("configmaps"), At::Latest).unwrap();
    list.entries.iter().map(|e| (e.key.clone(), (e.revision, e.created, e.json.to_vec()))).collect()
}

async fn fill(store: &LogStore, writes: usize) {
    for number in 0..writes {
        let name = format!("o{}", number % 37);
        store.write(put(&key(&name), Precondition::Any, &format!("{number} {}", "x".repeat(200)))).await.unwrap();
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        if path.is_dir() { copy_dir(&path, &to) } else { std::fs::copy(&path, &to).map(|_| ()).unwrap() }
    }
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_of(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn newest_segment(dir: &Path) -> PathBuf {
    crate::files::numbered(&dir.join("log"), "log").unwrap().pop().unwrap().1
}

fn refused(result: Result<LogStore, OpenError>) -> String {
    match result {
        Err(error @ OpenError::Damaged { .. }) => error.to_string(),
        other => panic!("{other:?} instead of a refusal"),
    }
}
