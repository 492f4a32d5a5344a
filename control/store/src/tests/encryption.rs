//! Secrets on disk: not to be read by whoever has the files and not the keys.

use std::path::{Path, PathBuf};

use super::*;
use crate::{Vault, conformance::put};

const SECRET: &str = "hunter2-in-plain-sight";

fn with_keys(dir: &Path) -> Options {
    small().encrypted(Vault::open(&dir.join("keys"), &["secrets"]).unwrap())
}

fn secret(name: &str) -> Key {
    Key::new("secrets", "default", name)
}

/// The files below `dir` that hold `needle`.
fn holding(dir: &Path, needle: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|part| part == needle.as_bytes()) {
            found.push(path);
        }
    }
    found
}

/// Writes enough for segments to end, checkpoints to be made and the index to follow; one in three objects is a secret.
async fn churn(store: &LogStore) {
    for number in 0..300 {
        let key = if number % 3 == 0 { secret(&format!("s{}", number % 7)) } else { key(&format!("o{}", number % 11)) };
        store.write(put(&key, Precondition::Any, &format!("{SECRET} {number} {}", "x".repeat(150)))).await.unwrap();
    }
}

fn all(store: &LogStore) -> Vec<(Key, Vec<u8>)> {
    let of = |resource: &str| store.list(&Range::all(resource), At::Latest).unwrap().entries;
    of("secrets").iter().chain(&of("configmaps")).map(|e| (e.key.clone(), e.json.to_vec())).collect()
}

#[tokio::test]
async fn nothing_on_disk_holds_a_secret_in_plain() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    for number in 0..300 {
        let value = format!("{SECRET} {number} {}", "x".repeat(200));
        store.write(put(&secret(&format!("s{}", number % 7)), Precondition::Any, &value)).await.unwrap();
    }
    // What is no secret is found, so the search is a search.
    store.write(put(&key("plain"), Precondition::Any, "not secret at all")).await.unwrap();
    let backup = keys.path().join("backup");
    store.backup(&backup).unwrap();
    let before = all(&store);
    store.close().await;
    assert!(!holding(dir.path(), "not secret at all").is_empty());
    assert_eq!(holding(dir.path(), SECRET), Vec::<PathBuf>::new());
    assert_eq!(holding(keys.path(), SECRET), Vec::<PathBuf>::new());
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    assert_eq!(all(&store), before);
    store.close().await;

    let other = tempfile::tempdir().unwrap();
    LogStore::restore(other.path(), &backup, &with_keys(keys.path())).unwrap();
    let store = open(other.path(), with_keys(keys.path())).unwrap();
    assert_eq!(all(&store).len(), before.len());
    store.close().await;

    // Without the key nothing opens, and nothing is touched.
    assert!(matches!(open(dir.path(), small()), Err(OpenError::Keys { .. })));
    let others = tempfile::tempdir().unwrap();
    assert!(matches!(open(dir.path(), with_keys(others.path())), Err(OpenError::Keys { .. })));
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    assert_eq!(all(&store), before);
}

#[tokio::test]
async fn an_older_store_is_encrypted_when_it_is_opened() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), small()).unwrap();
    for number in 0..200 {
        let value = format!("{SECRET} {number}");
        store.write(put(&secret(&format!("s{}", number % 7)), Precondition::Any, &value)).await.unwrap();
    }
    let before = all(&store);
    store.close().await;
    assert!(!holding(dir.path(), SECRET).is_empty());
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    assert_eq!(all(&store), before);
    assert_eq!(holding(dir.path(), SECRET), Vec::<PathBuf>::new());
    churn(&store).await;
    let before = all(&store);
    store.close().await;
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    assert_eq!(all(&store), before);
}

#[tokio::test]
async fn after_a_start_with_a_new_key_the_old_one_may_go() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    churn(&store).await;
    let before = all(&store);
    store.close().await;
    let file = keys.path().join("keys");
    let (old, new) = (std::fs::read_to_string(&file).unwrap(), "5a".repeat(32));
    std::fs::write(&file, format!("{new}\n{old}")).unwrap();
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    assert_eq!(all(&store), before);
    churn(&store).await;
    let before = all(&store);
    store.close().await;
    std::fs::write(&file, new).unwrap();
    let store = open(dir.path(), with_keys(keys.path())).unwrap();
    assert_eq!(all(&store), before);
}
