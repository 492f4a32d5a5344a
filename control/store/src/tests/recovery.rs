//! Starts after orderly and other ends.

use futures::StreamExt as _;

use super::*;
use crate::{StoreError, checkpoint, files, log::head::Head};

#[tokio::test]
async fn a_start_goes_on_where_the_last_run_ended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 500).await;
    let (before, revision) = (content(&store), store.revision());
    store.close().await;
    assert!(matches!(store.write(put(&key("late"), Precondition::Any, "")).await, Err(StoreError::Closed)));
    let store = open(dir.path(), small()).unwrap();
    assert_eq!((content(&store), store.revision()), (before, revision));
    let entry = store.write(put(&key("new"), Precondition::Absent, "")).await.unwrap();
    assert_eq!(entry.revision, revision + 1);
}

#[tokio::test]
async fn the_log_is_pruned_behind_three_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 1000).await;
    store.close().await;
    let checkpoints = files::numbered(&dir.path().join("checkpoints"), "ckpt").unwrap();
    assert_eq!(checkpoints.len(), checkpoint::KEPT);
    let segments = files::numbered(&dir.path().join("log"), "log").unwrap();
    assert!(segments[0].0 > 1, "old segments are gone");
    assert!(segments[0].0 <= checkpoints[0].0 + 1, "the oldest checkpoint can be replayed from");
}

#[tokio::test]
async fn two_damaged_checkpoints_and_no_index_are_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 1000).await;
    let (before, revision) = (content(&store), store.revision());
    drop(store);
    let checkpoints = files::numbered(&dir.path().join("checkpoints"), "ckpt").unwrap();
    for (_, path) in &checkpoints[1..] {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(dir.path(), small()).unwrap();
    assert_eq!((content(&store), store.revision()), (before, revision));
}

#[tokio::test]
async fn a_sound_index_is_what_a_start_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small();
    options.segment_bytes = 64 << 20;
    let store = open(dir.path(), options.clone()).unwrap();
    fill(&store, 100).await;
    // Larger than a chunk, then smaller, then gone: no chunk may be left behind.
    for size in [100_000, 40_000, 10] {
        store.write(put(&key("large"), Precondition::Any, &"y".repeat(size))).await.unwrap();
        fill(&store, 50).await;
    }
    store.write(put(&key("kept"), Precondition::Any, &"z".repeat(70_000))).await.unwrap();
    fill(&store, 100).await;
    let (before, revision) = (content(&store), store.revision());
    drop(store);
    let (index, state) =
        crate::index::Index::start(&dir.path().join("index"), options.codec.clone(), options.index_patience);
    let base = state.unwrap().revision;
    assert!(base > 1 && base + options.index_lag <= revision, "{base} of {revision}");
    index.unwrap().close();
    let store = open(dir.path(), options).unwrap();
    assert_eq!((content(&store), store.revision()), (before, revision));
    // The history that a start gives back begins where the index ended.
    let old = store.watch(Range::all("configmaps"), base - 1);
    assert!(matches!(old, Err(StoreError::Compacted { oldest }) if oldest == base));
    let mut watch = store.watch(Range::all("configmaps"), base).unwrap();
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!((event.revision, event.previous.is_some()), (base + 1, true));
}

#[tokio::test]
async fn an_index_that_did_not_survive_its_opening_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 200).await;
    let before = content(&store);
    drop(store);
    let opening = dir.path().join("index/opening");
    std::fs::write(&opening, b"").unwrap();
    let store = open(dir.path(), small()).unwrap();
    assert_eq!(content(&store), before);
    assert!(!opening.exists());
}

#[tokio::test]
async fn an_index_from_a_later_time_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let mut options = small();
    options.segment_bytes = 64 << 20;
    let store = open(dir.path(), options.clone()).unwrap();
    fill(&store, 50).await;
    let before = content(&store);
    store.close().await;
    copy_dir(&dir.path().join("log"), &old.path().join("log"));
    let store = open(dir.path(), options.clone()).unwrap();
    fill(&store, 300).await;
    drop(store);
    copy_dir(&dir.path().join("index"), &old.path().join("index"));
    let store = open(old.path(), options).unwrap();
    assert_eq!(content(&store), before);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    let second = open(dir.path(), small()).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }));
    assert!(second.to_string().contains(&format!("by process {}", std::process::id())), "{second}");
    drop(store);
    assert!(open(dir.path(), small()).is_ok());
}

#[tokio::test]
async fn revisions_that_a_power_cut_took_are_not_issued_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 5).await;
    let mut lost = put(&key("event"), Precondition::Any, "lost");
    lost.durable = false;
    let (durable, shown) = (store.revision(), store.write(lost).await.unwrap().revision);
    // The state of the disk after a power cut: another boot, and no more than what was synced.
    let head_path = dir.path().join("log/head");
    let mut head = Head::read(&head_path).unwrap();
    assert!(head.written > head.synced);
    let after = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), after.path());
    head.boot = [7; 16];
    crate::log::head::HeadFile::open(&after.path().join("log/head")).unwrap().write(&head).unwrap();
    let segment = std::fs::File::options().write(true).open(newest_segment(after.path())).unwrap();
    segment.set_len(head.synced).unwrap();
    let store = open(after.path(), small()).unwrap();
    assert!(store.get(&key("event")).is_none());
    assert_eq!(content(&store).len(), 5);
    assert!(store.revision() > shown && durable < shown);
    let revision = store.write(put(&key("new"), Precondition::Absent, "")).await.unwrap().revision;
    drop(store);
    let store = open(after.path(), small()).unwrap();
    assert_eq!(store.revision(), revision, "an orderly restart skips nothing");
}

#[tokio::test]
async fn a_backup_restores_with_revisions_above_all_that_were_issued() {
    let dir = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small()).unwrap();
    fill(&store, 100).await;
    let backup = target.path().join("backup");
    let revision = store.backup(&backup).unwrap();
    let before = content(&store);
    fill(&store, 100).await;
    let issued = store.revision();
    let restored = target.path().join("restored");
    LogStore::restore(&restored, &backup, &small()).unwrap();
    assert!(LogStore::restore(dir.path(), &backup, &small()).is_err(), "a store in use is not overwritten");
    let store = open(&restored, small()).unwrap();
    assert_eq!(content(&store), before);
    assert!(store.revision() > issued);
    let old = store.watch(Range::all("configmaps"), revision);
    assert!(matches!(old, Err(StoreError::Compacted { .. })));
    fill(&store, 1).await;
    drop(store);
    assert!(LogStore::restore(&restored, &backup, &small()).is_err(), "nor one at rest");
    assert_eq!(content(&open(&restored, small()).unwrap()).len(), before.len());
}
