//! Commands beside a container, and callers attached to it.

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::checks::{Container, created_by, in_time, started};
use super::{Deed, Fixture, Workload};
use crate::{ContainerState, RuntimeError, Signal, Streams, collect};

/// How much [`Deed::Floods`] writes.
const FLOOD: usize = 1 << 20;

async fn text(mut from: DuplexStream) -> String {
    let mut text = String::new();
    in_time("read what was written", from.read_to_string(&mut text)).await.unwrap();
    text
}

/// A command's exit code is its own, and its two streams stay apart.
pub async fn exec_streams_and_code(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsCommands).await else { return };
    let Container { runtime, id, .. } = &container;
    let command = fixture.command(Deed::Prints);
    let done = in_time("exec", collect(&**runtime, id, &command, 1000)).await.unwrap();
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (3, &b"out\n"[..], &b"err\n"[..]));
    assert_eq!(container.output.stderr(), "", "what a command wrote is in the container's log");
    let cut = in_time("exec", collect(&**runtime, id, &command, 2)).await.unwrap();
    assert_eq!((cut.code, &*cut.stdout), (3, &b"ou"[..]));
    container.end().await;
}

/// A command reads its stdin to the end, and without one there is nothing to read.
pub async fn exec_reads_to_the_end(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsCommands).await else { return };
    let Container { runtime, id, .. } = &container;
    let command = fixture.command(Deed::Copies);
    let ((ours, theirs), (sink, seen)) = (duplex(64), duplex(64));
    let streams = Streams { stdin: Some(Box::new(theirs)), stdout: Some(Box::new(sink)), ..Streams::default() };
    let typed = "a line\n".repeat(5000);
    let feed = async {
        let mut ours = ours;
        ours.write_all(typed.as_bytes()).await.unwrap();
        ours.shutdown().await.unwrap();
    };
    let run = runtime.exec(id, &command, false, streams);
    let (code, (), seen) = in_time("exec", async { tokio::join!(run, feed, text(seen)) }).await;
    assert_eq!(code.unwrap(), 0);
    assert_eq!(seen.len(), typed.len());
    assert_eq!(seen, typed);
    let done = in_time("exec", collect(&**runtime, id, &command, 1000)).await.unwrap();
    assert_eq!((done.code, done.stdout.len()), (0, 0));
    container.end().await;
}

/// A caller that reads slowly makes its command wait, and gets all.
pub async fn exec_waits_for_its_reader(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsCommands).await else { return };
    let Container { runtime, id, .. } = &container;
    let (command, (sink, seen)) = (fixture.command(Deed::Floods), duplex(1024));
    let streams = Streams { stdout: Some(Box::new(sink)), ..Streams::default() };
    let run = runtime.exec(id, &command, false, streams);
    let (code, seen) = in_time("exec", async { tokio::join!(run, text(seen)) }).await;
    assert_eq!((code.unwrap(), seen.len()), (0, FLOOD));
    // One whose reader has gone still comes to its end.
    let (sink, gone) = duplex(1024);
    drop(gone);
    let streams = Streams { stdout: Some(Box::new(sink)), ..Streams::default() };
    assert_eq!(in_time("exec", runtime.exec(id, &command, false, streams)).await.unwrap(), 0);
    container.end().await;
}

/// A caller that gives up takes its command with it; one ends with its container.
pub async fn exec_ends_with_its_caller(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsCommands).await else { return };
    let Container { runtime, id, .. } = &container;
    let command = fixture.command(Deed::Waits);
    for _ in 0..3 {
        let mut run = runtime.exec(id, &command, false, Streams::default());
        assert!((&mut run).now_or_never().is_none());
        drop(run);
    }
    assert!(matches!(container.state().await, Some(ContainerState::Running { .. })));
    let (mut run, kill) = (runtime.exec(id, &command, false, Streams::default()), runtime.kill(id, Signal::Kill));
    assert!((&mut run).now_or_never().is_none());
    kill.await.unwrap();
    // Whether it had begun is a race: it is not left behind, either way.
    let _ended = in_time("exec", run).await;
    container.wait().await;
    let refused = in_time("exec", runtime.exec(id, &command, false, Streams::default())).await;
    assert!(matches!(refused, Err(RuntimeError::WrongState { .. })), "{refused:?}");
    container.remove().await;
}

/// Several callers reach one container's streams, whose log has all of it; with `stdinOnce` its stdin ends with the first.
pub async fn attach_reaches_both_ways(fixture: &dyn Fixture) {
    let change = |spec: &mut crate::ContainerSpec| (spec.stdin, spec.stdin_once) = (true, true);
    let Some(container) = created_by(fixture, Workload::Copies, change).await else { return };
    container.start().await;
    let Container { runtime, id, .. } = &container;
    let ((ours, theirs), (sink, seen)) = (duplex(64), duplex(64));
    let (listener, mut heard) = duplex(64);
    let listen = tokio::spawn({
        let (runtime, id) = (Arc::clone(runtime), id.clone());
        async move { runtime.attach(&id, Streams { stdout: Some(Box::new(listener)), ..Streams::default() }).await }
    });
    let streams = Streams { stdin: Some(Box::new(theirs)), stdout: Some(Box::new(sink)), ..Streams::default() };
    let talk = async {
        let mut ours = ours;
        // Both are there when the first word has come back to both.
        let mut hello = [0; 6];
        while heard.read_exact(&mut hello).now_or_never().is_none() {
            ours.write_all(b"hello\n").await.unwrap();
            tokio::task::yield_now().await;
        }
        ours.write_all(b"the end\n").await.unwrap();
        drop(ours);
        text(heard).await
    };
    let attach = runtime.attach(id, streams);
    let (attached, heard, seen) = in_time("attach", async { tokio::join!(attach, talk, text(seen)) }).await;
    attached.unwrap();
    in_time("attach", listen).await.unwrap().unwrap();
    assert_eq!(container.wait().await.code, 0);
    assert!(heard.ends_with("the end\n") && seen.ends_with("the end\n"), "{heard:?} {seen:?}");
    assert_eq!(container.output.stdout(), seen);
    let late = in_time("attach", runtime.attach(id, Streams::default())).await;
    assert!(matches!(late, Err(RuntimeError::WrongState { .. })), "{late:?}");
    container.remove().await;
}
