//! Guests that want all there is of what the host gives, or what is not theirs: each ends, or is refused, alone.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{CWD, RenameFlags};
use support::Node;
use wherry_runtime::{Exit, Mount};

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mount(node: &Node, name: &str, read_only: bool) -> Mount {
    let source = node.path().join(name);
    fs::create_dir_all(&source).unwrap();
    Mount { source, target: format!("/{name}").into(), read_only, ..Mount::default() }
}

#[tokio::test]
async fn a_module_opens_no_more_files_than_it_may() {
    let node = Node::with(|options| options.handles = 300);
    let bomb = r#"(module
        (import "wasi_snapshot_preview1" "path_open"
          (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 100) ".")
        (func (export "_start") (local $left i32) (local.set $left (i32.const 1000000))
          (loop $l
            (if (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 2)
                  (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 8)) (then return))
            (br_if $l (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#;
    let mut spec = node.spec(&node.wat(bomb));
    spec.mounts = vec![mount(&node, "data", false)];
    let before = open_files();
    let exit = node.start(spec).await.wait().await;
    assert_eq!(exit.code, 134, "{exit:?}");
    assert!(exit.message.as_ref().is_some_and(|text| text.contains("resource table has no free keys")), "{exit:?}");
    // Other tests of this process have a few.
    assert!(open_files() < before + 200, "its files are still open");
}

#[tokio::test]
async fn a_component_has_no_more_handles_than_it_may() {
    let node = Node::with(|options| options.handles = 300);
    let bomb = r#"(component
        (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
          (alias outer 1 $pollable (type $outer))
          (export "pollable" (type $p (eq $outer)))
          (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
        (core func $subscribe (canon lower (func $clock "subscribe-duration")))
        (core module $m (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
          (func (export "run") (result i32) (local $left i32) (local.set $left (i32.const 1000000))
            (loop $l (drop (call $subscribe (i64.const 0)))
              (br_if $l (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) (i32.const 0)))
        (core instance $i (instantiate $m (with "host" (instance (export "subscribe" (func $subscribe))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $x (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $x)))"#;
    let exit = node.start(node.spec(&node.wat(bomb))).await.wait().await;
    assert_eq!(exit.code, 134, "{exit:?}");
}

#[tokio::test]
async fn those_that_wait_in_the_host_are_killed_and_keep_nobody() {
    let node = Node::new();
    // An hour, for each of more containers than there are threads that may block.
    let sleeper = node.wat(
        r#"(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start") (i32.store (i32.const 16) (i32.const 1))
              (i64.store (i32.const 24) (i64.const 3600000000000))
              (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))))"#,
    );
    let mut sleeping = Vec::new();
    for _ in 0..100 {
        sleeping.push(node.start(node.spec(&sleeper)).await);
    }
    let mut spec = node.spec(&node.wat(&attempt(
        r#"(call $open (i32.const 3) (i32.const 0) (i32.const 100)
        (i32.const 1) (i32.const 1) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 8))"#,
        ["x", ""],
    )));
    spec.mounts = vec![mount(&node, "data", false)];
    assert_eq!(node.start(spec).await.wait().await.code, 0, "files are still opened");
    for sleeper in sleeping {
        assert_eq!(sleeper.kill().await.code, 137);
    }
}

/// `path_open`'s arguments for a name at 100: to be read, by the first mount.
fn open_to_read(name: &str) -> String {
    let length = name.len();
    format!(
        "(call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const {length}) (i32.const 0) (i64.const 2) \
         (i64.const 0) (i32.const 0) (i32.const 8))"
    )
}

#[tokio::test]
async fn those_that_open_a_pipe_keep_nobody() {
    let node = Node::new();
    let data = mount(&node, "data", false);
    mkfifo(&data.source.join("pipe"), Mode::S_IRWXU).unwrap();
    fs::write(data.source.join("file"), "text").unwrap();
    let opens = |name: &str| {
        let mut spec = node.spec(&node.wat(&attempt(&open_to_read(name), [name, ""])));
        spec.mounts = vec![data.clone()];
        spec
    };
    // More than there are threads for files, and nobody at the other end.
    let mut opening = Vec::new();
    for _ in 0..100 {
        opening.push(node.start(opens("pipe")).await);
    }
    assert_eq!(node.start(opens("file")).await.wait().await.code, 0);
    for running in opening {
        assert_eq!(running.wait().await.code, 58, "not supported");
    }
}

/// The other versions are tried by `wasi.rs`.
#[tokio::test]
async fn a_component_of_0_3_waits_for_no_pipe() {
    let node = Node::new();
    let data = mount(&node, "data", false);
    mkfifo(&data.source.join("pipe"), Mode::S_IRWXU).unwrap();
    let mut spec = node.spec(&node.wat(include_str!("../../../tests/wasi/pipe3.wat")));
    spec.mounts = vec![data];
    assert_eq!(node.start(spec).await.wait().await.code, 0);
}

/// As a container of the same Pod could have it: what was a file when it was looked at is a pipe when it is opened.
#[tokio::test]
async fn a_pipe_in_a_files_place_keeps_nobody() {
    let node = Node::new();
    let data = mount(&node, "data", false);
    let [file, pipe] = ["file", "pipe"].map(|name| data.source.join(name));
    fs::write(&file, "text").unwrap();
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let opens = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "path_open"
          (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 100) "file")
        (func (export "_start") (local $left i32) (local.set $left (i32.const 200))
          (loop $l
            (if (i32.eqz {}) (then (drop (call $close (i32.load (i32.const 8))))))
            (br_if $l (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#,
        open_to_read("file")
    );
    let done = Arc::new(AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &file, CWD, &pipe, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    let mut opening = Vec::new();
    for _ in 0..4 {
        let mut spec = node.spec(&node.wat(&opens));
        spec.mounts = vec![data.clone()];
        opening.push(node.start(spec).await);
    }
    for running in opening {
        assert_eq!(running.wait().await.code, 0);
    }
    done.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
}

/// A module that exits with the error of one call; its two texts lie at 100 and 200.
fn attempt(call: &str, [first, second]: [&str; 2]) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "path_open"
          (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_link"
          (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_rename"
          (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (data (i32.const 100) "{first}") (data (i32.const 200) "{second}")
        (func (export "_start") (call $exit {call})))"#
    )
}

#[tokio::test]
async fn no_path_and_no_link_leads_out_of_a_mount() {
    let node = Node::new();
    let (data, fixed) = (mount(&node, "data", false), mount(&node, "fixed", true));
    let outside = node.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(fixed.source.join("kept"), "kept").unwrap();
    fs::write(data.source.join("own"), "own").unwrap();
    symlink(&outside, data.source.join("absolute")).unwrap();
    symlink("../outside", data.source.join("relative")).unwrap();
    symlink("../outside/secret", data.source.join("file")).unwrap();

    // Preopens are numbered from 3, in the mounts' order. Links are followed where the flag is 1.
    let open = |fd: u8, flags: u8, create: u8, path: &str| {
        let call = format!(
            "(call $open (i32.const {fd}) (i32.const {flags}) (i32.const 100) (i32.const {}) (i32.const {create}) \
             (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 8))",
            path.len()
        );
        attempt(&call, [path, ""])
    };
    let link = |from: (u8, &str), to: (u8, &str)| {
        let call = format!(
            "(call $link (i32.const {}) (i32.const 0) (i32.const 100) (i32.const {}) (i32.const {}) (i32.const 200) (i32.const {}))",
            from.0,
            from.1.len(),
            to.0,
            to.1.len()
        );
        attempt(&call, [from.1, to.1])
    };
    let symlink = |target: &str, name: &str| {
        let call = format!(
            "(call $symlink (i32.const 100) (i32.const {}) (i32.const 3) (i32.const 200) (i32.const {}))",
            target.len(),
            name.len()
        );
        attempt(&call, [target, name])
    };
    let rename = |from: (u8, &str), to: (u8, &str)| {
        let call = format!(
            "(call $rename (i32.const {}) (i32.const 100) (i32.const {}) (i32.const {}) (i32.const 200) (i32.const {}))",
            from.0,
            from.1.len(),
            to.0,
            to.1.len()
        );
        attempt(&call, [from.1, to.1])
    };
    let run = async |text: &str| -> Exit {
        let mut spec = node.spec(&node.wat(text));
        spec.mounts = vec![data.clone(), fixed.clone()];
        node.start(spec).await.wait().await
    };

    assert_eq!(run(&open(3, 0, 0, "own")).await.code, 0, "what is its own is opened");
    let refused = [
        open(3, 1, 0, "absolute/secret"),
        open(3, 1, 0, "relative/secret"),
        open(3, 1, 0, "file"),
        open(3, 1, 1, "relative/new"),
        open(3, 0, 0, "../outside/secret"),
        open(3, 0, 0, "absolute/../../outside/secret"),
        open(3, 0, 0, "/etc/passwd"),
        open(4, 0, 1, "new"),
        open(4, 0, 8, "kept"),
        link((3, "../outside/secret"), (3, "stolen")),
        link((3, "relative/secret"), (3, "stolen")),
        link((3, "own"), (3, "../outside/left")),
        // A second name in a mount that can be written to would be a way to write.
        link((4, "kept"), (3, "stolen")),
        link((3, "own"), (4, "put")),
        symlink("/etc/passwd", "stolen"),
        rename((4, "kept"), (3, "stolen")),
        rename((3, "own"), (3, "../outside/left")),
        rename((3, "own"), (4, "put")),
    ];
    for text in refused {
        let exit = run(&text).await;
        let call = text.lines().last().unwrap();
        assert!((1..=76).contains(&exit.code), "{exit:?}: {call}");
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&fixed.source).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(fixed.source.join("kept")).unwrap(), "kept");
    assert_eq!(fs::metadata(fixed.source.join("kept")).unwrap().nlink(), 1);
    assert!(!data.source.join("stolen").exists());
    // A link that it makes may dangle or lead out: it is not followed.
    let exit = run(&symlink("../outside/secret", "made")).await;
    assert!(exit.code == 0 || !data.source.join("made").exists(), "{exit:?}");
    assert_ne!(run(&open(3, 1, 0, "made")).await.code, 0);
}
