//! What is run of a program: by its world, by the export that is named, by its version of WASI; and what is refused before it runs.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use support::Node;
use wherry_runtime::{Image, Runtime};

const PRINTER: &str = r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func $print (param $at i32) (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (i32.const 1))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (data (i32.const 100) "abc")"#;

/// `image` started as `command`.
async fn run(node: &Node, image: &Arc<Image>, command: &[&str]) -> (i32, String) {
    let mut spec = node.spec(image);
    spec.command = command.iter().map(|&word| word.to_owned()).collect();
    let running = node.start(spec).await;
    let exit = running.wait().await;
    (exit.code, running.output.stdout())
}

#[tokio::test]
async fn an_export_of_a_module_is_run_by_its_name() {
    let node = Node::new();
    let image = node.wat(&format!(
        r#"(module {PRINTER} (func (export "_start") (call $print (i32.const 100)))
            (func (export "_initialize") (call $print (i32.const 101)))
            (func (export "other") (call $print (i32.const 102))) (func (export "takes") (param i32)))"#
    ));
    assert_eq!(run(&node, &image, &[]).await, (0, "a".into()));
    assert_eq!(run(&node, &image, &["/app.wasm"]).await, (0, "a".into()));
    assert_eq!(run(&node, &image, &["/app.wasm#other"]).await, (0, "bc".into()), "a reactor is initialised first");

    let mut image = Image::clone(&image);
    image.entrypoint = vec!["app.wasm#takes".into()];
    let text = node.refusal(&Arc::new(image)).await;
    assert!(text.contains("no function takes without parameters"), "{text}");
}

#[tokio::test]
async fn a_reactor_without_a_start_runs_what_is_named() {
    let node = Node::new();
    let image = node.wat(&format!(r#"(module {PRINTER} (func (export "work") (call $print (i32.const 100))))"#));
    assert!(node.refusal(&image).await.contains("no function _start"));
    assert_eq!(run(&node, &image, &["r.wasm#work"]).await, (0, "a".into()));
}

#[tokio::test]
async fn a_function_of_a_component_is_run_by_its_name() {
    let node = Node::new();
    let image = node.wat(
        r#"(component
            (core module $m (func (export "good")) (func (export "bad") (result i32) (i32.const 1)))
            (core instance $i (instantiate $m))
            (func (export "good") (canon lift (core func $i "good")))
            (func (export "bad") (result (result)) (canon lift (core func $i "bad"))))"#,
    );
    assert_eq!(run(&node, &image, &["app.wasm#good"]).await.0, 0);
    assert_eq!(run(&node, &image, &["app.wasm#bad"]).await.0, 1, "an error is a failure");
}

/// A component that runs by `wasi:cli/run` of this version, and fails.
fn command(version: &str, kind: &str) -> String {
    format!(
        r#"(component
            (core module $m (func (export "run") (result i32) (i32.const 1)))
            (core instance $i (instantiate $m))
            (func $run {kind} (result (result)) (canon lift (core func $i "run")))
            (instance $x (export "run" (func $run)))
            (export "wasi:cli/run@{version}" (instance $x)))"#
    )
}

#[tokio::test]
async fn commands_of_both_versions_run() {
    let node = Node::new();
    assert_eq!(run(&node, &node.wat(&command("0.2.0", "")), &[]).await.0, 1);
    assert_eq!(run(&node, &node.wat(&command("0.3.0", "async")), &[]).await.0, 1);
    let draft = node.refusal(&node.wat(&command("0.3.0-rc-2025-09-16", "async"))).await;
    assert!(draft.contains("neither of the worlds") && draft.contains("wasi:cli/run@0.3.0-rc-2025-09-16"), "{draft}");
}

#[tokio::test]
async fn exit_codes_that_no_process_has_are_no_success() {
    let node = Node::new();
    let exits = |code: i32| {
        format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const {code}))))"#
        )
    };
    for (code, seen) in [(0, 0), (42, 42), (255, 255), (256, 255), (65_536, 255)] {
        assert_eq!(run(&node, &node.wat(&exits(code)), &[]).await.0, seen, "{code}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_functions_and_what_to_do() {
    let node = Node::new();
    let keyvalue = r#"(component (import "wasi:keyvalue/store@0.2.0" (instance
        (export "open" (func (param "name" string))) (export "get" (func)))))"#;
    let unknown = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-moon" (func)))))"#;
    let imports =
        |module: &str, name: &str| format!(r#"(module (import "{module}" "{name}" (func)) (func (export "_start")))"#);
    let refused = [
        (keyvalue.to_owned(), "wasi:keyvalue/store@0.2.0 (open, get)"),
        (unknown.to_owned(), "neither of the worlds"),
        (
            r#"(component (import "wasi:sockets/types@0.3.0" (instance)))"#.to_owned(),
            "[sockets are offered in version 0.2]",
        ),
        (r#"(component (import "wasi:http/types@0.3.0-rc-2026-01-06" (instance)))"#.to_owned(), "[a draft; 0.3.0"),
        (r#"(component (import "fermyon:spin/sqlite@2.0.0" (instance)))"#.to_owned(), "Spin's own host"),
        (imports("wasi_unstable", "fd_write"), "wasi_unstable.fd_write [older than preview 1"),
        (imports("wasi_snapshot_preview1", "sock_bind"), "wasi_snapshot_preview1.sock_bind"),
        (imports("wasi", "thread-spawn"), "wasi.thread-spawn [threads"),
        (imports("env", "door"), "env.door"),
    ];
    for (text, problem) in refused {
        let said = node.refusal(&node.wat(&text)).await;
        assert!(said.contains(problem), "{problem}: {said}");
    }
    // An interface that is offered, but not with this function.
    let with_world = format!(
        r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-moon" (func)))) {}"#,
        command("0.2.0", "").trim_start().trim_start_matches("(component")
    );
    let said = node.refusal(&node.wat(&with_world)).await;
    assert!(said.contains("wasi:cli/environment@0.2.0") && said.contains("get-moon"), "{said}");
}

#[tokio::test]
async fn an_image_that_is_forgotten_is_compiled_again() {
    let node = Node::new();
    let image = node.wat(r#"(module (func (export "_start")))"#);
    let compiled = || {
        let files = std::fs::read_dir(node.path().join("cache")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "cwasm")).count()
    };
    let told = || node.runtime.prepared().contains(&image.layers[0].digest);
    assert!(!told());
    node.runtime.prepare(&image, "default").await.unwrap();
    assert_eq!((compiled(), told()), (1, true));
    node.runtime.retain(&|digest: &str| digest == image.layers[0].digest).await.unwrap();
    assert_eq!((compiled(), told()), (1, true));
    node.runtime.retain(&|_: &str| false).await.unwrap();
    assert_eq!((compiled(), told()), (0, false));
    node.runtime.prepare(&image, "default").await.unwrap();
    assert_eq!((compiled(), told()), (1, true));
    // What another engine compiled is of no use to this one.
    for file in std::fs::read_dir(node.path().join("cache")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some((digest, rest)) = name.split_once('-') {
            std::fs::rename(&path, path.with_file_name(format!("{digest}-{}{}", "0".repeat(16), &rest[16..]))).unwrap();
        }
    }
    assert_eq!((compiled(), told()), (1, false));
}
