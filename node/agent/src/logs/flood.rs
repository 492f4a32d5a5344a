//! Containers that print without end: what that costs the disk, their neighbours and themselves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use wherry_runtime::{Output as _, Stream};

use super::writer::{ContainerLog, MAX_BUFFER, MAX_FILE, MAX_FILES, SharedLog};
use super::{LogOptions, Logs};

/// Lines with their numbers, some 64 KiB of them.
fn lines(from: u64) -> (Bytes, u64) {
    let (mut text, mut next) = (String::new(), from);
    while text.len() < 64 << 10 {
        text += &format!("line {next}\n");
        next += 1;
    }
    (text.into(), next)
}

/// Of one moment: looked at again where a file was renamed or removed meanwhile, which would be counted beside what took its place.
fn bytes_below(dir: &Path) -> u64 {
    // The directory is made when the first line is written.
    let files =
        || std::fs::read_dir(dir).into_iter().flatten().map(|file| file.unwrap().path()).collect::<BTreeSet<_>>();
    loop {
        let before = files();
        let sizes: Option<Vec<u64>> = before.iter().map(|file| Some(file.metadata().ok()?.len())).collect();
        if let Some(sizes) = sizes
            && files() == before
        {
            return sizes.iter().sum();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_prints_without_end_fills_no_disk_and_starves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::new(dir.path().to_owned()).unwrap();
    let path = |name: &str| Logs::path(&dir.path().join(name), "c", 0);
    let (loud, quiet) = (logs.open(&path("loud")).unwrap(), logs.open(&path("quiet")).unwrap());
    let (stop, printed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = tokio::spawn({
        let (loud, stop, printed) = (SharedLog(loud), Arc::clone(&stop), Arc::clone(&printed));
        async move {
            let mut next = 0;
            while !stop.load(Ordering::Relaxed) {
                let (text, after) = lines(next);
                printed.fetch_add(text.len() as u64, Ordering::Relaxed);
                loud.write(Stream::Stdout, text).await;
                next = after;
            }
            next
        }
    });
    // Until the flood is more than is ever kept, its neighbour's lines reach the disk one by one.
    let (mut said, most, mut on_disk) = (0, MAX_FILE * MAX_FILES, quiet.subscribe());
    let neighbour = SharedLog(Arc::clone(&quiet));
    while said < 20 || printed.load(Ordering::Relaxed) < most * 3 / 2 {
        let before = on_disk.borrow_and_update().written;
        neighbour.write(Stream::Stdout, Bytes::from(format!("line {said}\n"))).await;
        on_disk.wait_for(|progress| progress.written > before).await.unwrap();
        said += 1;
        let used = bytes_below(path("loud").parent().unwrap());
        assert!(used <= most, "{used} bytes of {} that were printed", printed.load(Ordering::Relaxed));
    }
    stop.store(true, Ordering::Relaxed);
    let next = flood.await.unwrap();
    for name in ["loud", "quiet"] {
        logs.close(&path(name)).await;
    }
    assert_eq!(numbers(&logs, &path("quiet")).await, (0..said).collect::<Vec<_>>());
    let kept = numbers(&logs, &path("loud")).await;
    assert!(kept.len() as u64 > MAX_FILE / 64, "{} lines are kept", kept.len());
    assert!(kept.is_sorted_by(|one, other| one + 1 == *other) && kept.last() == Some(&(next - 1)), "lines are lost");
}

async fn numbers(logs: &Logs, path: &Path) -> Vec<u64> {
    use futures::TryStreamExt as _;
    let stream = logs.read(path, LogOptions::default()).await.unwrap();
    let text: Vec<Bytes> = stream.try_collect().await.unwrap();
    let text = String::from_utf8(text.concat()).unwrap();
    text.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, behind) = std::sync::mpsc::channel::<Arc<ContainerLog>>();
    let log = ContainerLog::open(&dir.path().join("0.log"), sender).unwrap();
    let output = SharedLog(Arc::clone(&log));
    let large = Bytes::from(vec![b'x'; 2 * MAX_BUFFER]);
    let mut write = output.write(Stream::Stdout, large);
    assert!((&mut write).now_or_never().is_none(), "more than the buffer holds is taken while nothing is written");
    let mut scratch = Vec::new();
    // As the node's thread does it.
    while (&mut write).now_or_never().is_none() {
        behind.try_recv().unwrap().flush(&mut scratch);
        assert!(scratch.len() < 2 * MAX_BUFFER, "{} bytes were buffered", scratch.len());
    }
}
