//! Modules that mean harm, or are broken: each ends as its own container's exit, with a message that says what was wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::Node;
use wherry_runtime::conformance::{Captured, Gate};
use wherry_runtime::{ContainerState, Limits, Output, Runtime, Signal};

const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

const FLOOD: &str = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start") (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 60000))
      (loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))))"#;

#[tokio::test]
async fn an_endless_loop_is_killed() {
    let node = Node::new();
    let running = node.start(node.spec(&node.wat(SPIN))).await;
    let exit = running.kill().await;
    assert_eq!((exit.code, exit.message), (137, None));
}

#[tokio::test]
async fn fifty_endless_loops_leave_the_caller_its_thread() {
    let node = Node::new();
    let image = node.wat(SPIN);
    let mut spinning = Vec::new();
    for _ in 0..50 {
        spinning.push(node.start(node.spec(&image)).await);
    }
    // This test has one thread. That it gets here, and that all 51 get their turn, is the point.
    let (exit, _) = node.run(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).await;
    assert_eq!(exit.code, 0);
    for running in spinning {
        assert_eq!(running.kill().await.code, 137);
    }
}

#[tokio::test]
async fn a_cpu_limit_bounds_what_an_endless_loop_gets() {
    let node = Node::new();
    let mut spec = node.spec(&node.wat(SPIN));
    spec.limits.cpu_millis = Some(100);
    let (slow, begun) = (node.start(spec).await, std::time::Instant::now());
    // Until it has been throttled for a few periods; how long that takes is the machine's affair.
    while slow.cpu_nanos().await < 50_000_000 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let periods = begun.elapsed().as_nanos() / 100_000_000 + 1;
    // 10 ms a period, and what one tick on a busy machine may overspend.
    let used = u128::from(slow.cpu_nanos().await);
    assert!(used <= periods * 10_000_000 + 100_000_000, "{used} ns in {periods} periods");
    slow.kill().await;
}

#[tokio::test]
async fn a_memory_bomb_is_oom_killed() {
    let node = Node::new();
    let bomb = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (drop (memory.grow (i32.const 100))) (br $l))))"#;
    let mut spec = node.spec(&node.wat(bomb));
    spec.limits = Limits { memory_bytes: Some(16 << 20), ..Limits::default() };
    let exit = node.start(spec).await.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    assert!(exit.message.unwrap().contains("the container's limit is 16777216 bytes"));
}

#[tokio::test]
async fn memory_that_is_too_much_from_the_start_is_oom_too() {
    let node = Node::new();
    let mut spec = node.spec(&node.wat(r#"(module (memory (export "memory") 1000) (func (export "_start")))"#));
    spec.limits.memory_bytes = Some(1 << 20);
    let exit = node.start(spec).await.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

#[tokio::test]
async fn all_guests_together_are_bounded() {
    let node = Node::with(|options| options.memory_bytes = 8 << 20);
    let bomb = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (drop (memory.grow (i32.const 16))) (br $l))))"#;
    let (exit, _) = node.run(bomb).await;
    assert!(exit.oom_killed && exit.message.unwrap().contains("the node's memory for Wasm"));
    let (exit, _) = node.run(r#"(module (memory (export "memory") 16) (func (export "_start")))"#).await;
    assert_eq!(exit.code, 0, "the dead one's memory is not given back");
}

#[tokio::test]
async fn a_table_bomb_is_refused_its_growth() {
    let node = Node::new();
    let bomb = r#"(module (memory (export "memory") 1) (table $t 1 funcref) (func (export "_start")
      (loop $l (br_if $l (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))))"#;
    assert_eq!(node.run(bomb).await.0.code, 0);
}

#[tokio::test]
async fn a_stack_overflow_is_a_trap_with_a_bounded_message() {
    let node = Node::new();
    let (exit, _) =
        node.run(r#"(module (memory (export "memory") 1) (func $f (export "_start") (call $f) (call $f)))"#).await;
    let message = exit.message.unwrap();
    assert_eq!(exit.code, 134);
    assert!(message.contains("call stack exhausted") && message.len() <= 4096, "{message}");
}

#[tokio::test]
async fn a_trap_says_where() {
    let node = Node::new();
    let trap = r#"(module (memory (export "memory") 1) (func $inner unreachable) (func $outer (export "_start") (call $inner)))"#;
    let (exit, _) = node.run(trap).await;
    let message = exit.message.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (134, false));
    for part in ["unreachable", "inner", "outer"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn a_start_function_that_never_ends_is_killed() {
    let node = Node::new();
    let running = node
        .start(node.spec(&node.wat(
            r#"(module (memory (export "memory") 1) (func $s (loop $l (br $l))) (start $s) (func (export "_start")))"#,
        )))
        .await;
    assert_eq!(running.kill().await.code, 137);
}

#[tokio::test]
async fn a_flood_of_output_waits_for_its_log() {
    let node = Node::new();
    let (spec, behind) = (node.spec(&node.wat(FLOOD)), Captured::new());
    let (id, gate) = (spec.id.clone(), Gate::closed(Arc::clone(&behind)));
    node.runtime.create(spec, Arc::clone(&gate) as Arc<dyn Output>).await.unwrap();
    node.runtime.start(&id).await.unwrap();
    // Its log takes nothing, another's does.
    let (exit, _) = node.run(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).await;
    assert_eq!(exit.code, 0);
    assert!(matches!(
        node.runtime.list().await.unwrap().iter().find(|status| status.id == id).unwrap().state,
        ContainerState::Running { .. }
    ));
    node.runtime.kill(&id, Signal::Kill).await.unwrap();
    gate.open();
    assert_eq!(node.runtime.wait(&id).await.unwrap().code, 137);
    assert!(behind.stdout().len() <= 256 << 10, "{} bytes were buffered", behind.stdout().len());
}

#[tokio::test]
async fn what_cannot_run_is_refused_by_name() {
    let node = Node::new();
    let refused = [
        (node.image(b"\x7fELF\x02\x01\x01"), "native (ELF)"),
        (node.image(b""), "empty"),
        (node.image(b"(module)"), "not Wasm"),
        (node.image(b"\0asm\x01\0\0\0\xff\xff"), "not valid Wasm"),
        (node.wat("(module)"), "no function _start without parameters and results (it exports nothing)"),
        (node.wat(r#"(module (func (export "run")) (func (export "_start") (param i32)))"#), "no function _start"),
        (
            node.wat(
                r#"(module (import "env" "secret" (func)) (import "env" "x" (global i32)) (func (export "_start")))"#,
            ),
            "env.secret, env.x",
        ),
        (
            node.wat(r#"(module (import "wasi_snapshot_preview1" "sock_bind" (func)) (func (export "_start")))"#),
            "sock_bind",
        ),
        (node.wat("(component)"), "neither of the worlds"),
        (node.wat(r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)))"#), "wasi:keyvalue/store@0.2.0"),
        (node.wat(r#"(component (import "wasi:sockets/types@0.3.0" (instance)))"#), "wasi:sockets/types@0.3.0"),
    ];
    for (image, problem) in refused {
        let text = node.refusal(&image).await;
        assert!(text.contains(problem) && text.contains("test.local/image"), "{problem}: {text}");
        assert!(text.contains("accepted are"), "{text}");
    }
}

#[tokio::test]
async fn changed_compiled_code_is_not_run() {
    let node = Node::new();
    let image = node.wat(SPIN);
    node.runtime.prepare(&image, "default").await.unwrap();
    let cache = node.path().join("cache");
    let code: Vec<_> = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "cwasm"))
        .collect();
    assert_eq!(code.len(), 1);
    std::fs::remove_file(&code[0]).unwrap();
    std::fs::write(&code[0], b"\x7fELF someone else's code").unwrap();

    let mut options = wherry_wasm::Options::new(&cache);
    options.instances = 64;
    let again = wherry_wasm::WasmRuntime::new(options).unwrap();
    again.prepare(&image, "default").await.unwrap();
    assert!(std::fs::metadata(&code[0]).unwrap().len() > 1000, "it was not compiled again");
}

#[tokio::test]
async fn shutdown_ends_every_container() {
    let node = Node::new();
    let running = node.start(node.spec(&node.wat(SPIN))).await;
    let done = AtomicBool::new(false);
    tokio::join!(
        async {
            node.runtime.shutdown().await;
            done.store(true, Ordering::SeqCst);
        },
        async { assert_eq!(running.wait().await.code, 137) }
    );
    assert!(done.load(Ordering::SeqCst));
}
