//! Long-running commands that hold memory and wait: what stands beside those that are served.

use serde_json::{Value, json};

pub(crate) const IMAGE: &str = "bench.wherry.dev/command:1";

/// Names of Deployments, and how many pages of 64 KiB the memory of each replica has.
pub(crate) const SIZES: [(&str, u32); 2] = [("small", 1), ("large", 16)];

/// Grows its memory to as many pages as its only argument has bytes, writes to each of the machine's pages in it, and sleeps for hours
/// on end: a subscription to the monotonic clock lies at 0, the event at 64, the arguments from 256 on.
pub(crate) const PROGRAM: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $at i32)
    (drop (call $sizes (i32.const 256) (i32.const 260)))
    ;; Their bytes in all, without the name "c" and the two zeros, and without the page that is there.
    (drop (memory.grow (i32.sub (i32.load (i32.const 260)) (i32.const 4))))
    (local.set $at (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4096)))
    (loop $touch
      (i32.store8 (local.get $at) (i32.const 1))
      (br_if $touch (local.tee $at (i32.sub (local.get $at) (i32.const 4096)))))
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3600000000000))
    (loop $sleep
      (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
      (br $sleep))))"#;

/// A Deployment of it.
pub(crate) fn deployment(name: &str, replicas: u32, pages: u32) -> Value {
    let pages = "p".repeat(usize::try_from(pages).unwrap_or(1));
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "progressDeadlineSeconds": 3600,
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "command",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["c"],
                    "args": [pages],
                    "resources": {"requests": {"cpu": "0", "memory": "256Ki"}, "limits": {"cpu": "100m", "memory": "4Mi"}},
                }]},
            },
        },
    })
}
