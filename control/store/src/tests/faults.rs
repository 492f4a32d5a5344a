//! What the file system may refuse, at every step of a commit.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::{StoreError, options::Step};

/// A store whose file system fails at `step` while the switch is on.
fn failing(dir: &Path, step: Step) -> (LogStore, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let mut options = small();
    let on = switch.clone();
    options.hook = Arc::new(move |at| match at == step && on.load(Ordering::SeqCst) {
        true => Err(io::Error::from(io::ErrorKind::StorageFull)),
        false => Ok(()),
    });
    (open(dir, options).unwrap(), switch)
}

#[tokio::test]
async fn a_full_disk_fails_writes_and_nothing_else() {
    for step in [Step::BeforeWrite, Step::Tear, Step::Written] {
        let dir = tempfile::tempdir().unwrap();
        let (store, full) = failing(dir.path(), step);
        fill(&store, 30).await;
        let (before, revision) = (content(&store), store.revision());
        full.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let failed = store.write(put(&key("o1"), Precondition::Any, "no")).await;
            assert!(matches!(&failed, Err(error @ StoreError::Io(_)) if error.is_retryable()), "{failed:?}");
        }
        assert_eq!((content(&store), store.revision()), (before.clone(), revision));
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        assert_eq!(content(&open(copy.path(), small()).unwrap()), before, "{step:?}");
        full.store(false, Ordering::SeqCst);
        let entry = store.write(put(&key("o1"), Precondition::Any, "yes")).await.unwrap();
        assert_eq!(entry.revision, revision + 1);
        let after = content(&store);
        drop(store);
        assert_eq!(content(&open(dir.path(), small()).unwrap()), after);
    }
}

#[tokio::test]
async fn a_failed_sync_ends_writing_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (store, broken) = failing(dir.path(), Step::BeforeSync);
    fill(&store, 30).await;
    let (before, revision) = (content(&store), store.revision());
    broken.store(true, Ordering::SeqCst);
    let failed = store.write(put(&key("o1"), Precondition::Any, "no")).await;
    assert!(matches!(failed, Err(StoreError::ReadOnly(_))), "{failed:?}");
    broken.store(false, Ordering::SeqCst);
    let failed = store.write(put(&key("o1"), Precondition::Any, "no")).await;
    assert!(matches!(failed, Err(StoreError::ReadOnly(_))), "a second sync that succeeds proves nothing");
    assert!(store.refusal().is_some());
    assert_eq!((content(&store), store.revision()), (before, revision), "reads go on");
    drop(store);
    assert!(open(dir.path(), small()).unwrap().revision() >= revision);
}
