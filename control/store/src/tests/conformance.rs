use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::small;
use crate::{MemoryStore, conformance, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_conforms() {
    conformance::suite(|| Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_store_conforms() {
    let dirs = Mutex::new(VecDeque::new());
    conformance::suite(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(open(dir.path(), small()).unwrap());
        dirs.lock().push_back(dir);
        store
    })
    .await;
}
