//! The workloads of the conformance suite as modules, for every runtime of Wasm.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use wherry_runtime::Image;
use wherry_runtime::conformance::{Deed, Program, Workload};

const EXITS: &str = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const CODE))))"#;
const SPINS: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;
const TRAPS: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
const PRINTS: &str = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 100) "out 1\nout 2\nerr 1\nerr 2\n")
    (func $print (param $fd i32) (param $from i32)
      (i32.store (i32.const 0) (local.get $from)) (i32.store (i32.const 4) (i32.const 6))
      (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start")
      (call $print (i32.const 1) (i32.const 100)) (call $print (i32.const 2) (i32.const 112))
      (call $print (i32.const 1) (i32.const 106)) (call $print (i32.const 2) (i32.const 118))))"#;
const EATS: &str = r#"(module (memory (export "memory") 1) (func (export "_start")
    (loop $l (drop (memory.grow (i32.const 16))) (br $l))))"#;

/// Does what the first letter of its last argument says.
const COMMANDS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 3) (data (i32.const 100) "out\nerr\n")
    (func $print (param $fd i32) (param $from i32) (param $left i32)
      (loop $more
        (i32.store (i32.const 8) (local.get $from)) (i32.store (i32.const 12) (local.get $left))
        (drop (call $write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16)))
        (local.set $from (i32.add (local.get $from) (i32.load (i32.const 16))))
        (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 16))))
        (br_if $more (local.get $left))))
    (func (export "_start") (local $deed i32) (local $n i32)
      (drop (call $sizes (i32.const 0) (i32.const 4)))
      (drop (call $args (i32.const 1024) (i32.const 2048)))
      (local.set $deed
        (i32.load8_u (i32.load (i32.add (i32.const 1020) (i32.mul (i32.load (i32.const 0)) (i32.const 4))))))
      (if (i32.eq (local.get $deed) (i32.const 112)) (then
        (call $print (i32.const 1) (i32.const 100) (i32.const 4))
        (call $print (i32.const 2) (i32.const 104) (i32.const 4))
        (call $exit (i32.const 3))))
      (if (i32.eq (local.get $deed) (i32.const 99)) (then
        (loop $next
          (i32.store (i32.const 8) (i32.const 65536)) (i32.store (i32.const 12) (i32.const 4096))
          (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))
          (local.set $n (i32.load (i32.const 16)))
          (if (local.get $n) (then
            (call $print (i32.const 1) (i32.const 65536) (local.get $n))
            (br $next))))
        (call $exit (i32.const 0))))
      (if (i32.eq (local.get $deed) (i32.const 102)) (then
        (loop $next
          (call $print (i32.const 1) (i32.const 65536) (i32.const 65536))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $n) (i32.const 16))))
        (call $exit (i32.const 0))))
      (loop $wait (br $wait))))"#;

/// A workload; `image` makes one of bytes.
pub(crate) fn program(workload: Workload, image: impl Fn(&[u8]) -> Arc<Image>) -> Program {
    let wat = |text: &str| image(&wat::parse_str(text).unwrap());
    let image = match workload {
        Workload::Exits0 => wat(&EXITS.replace("CODE", "0")),
        Workload::Exits3 => wat(&EXITS.replace("CODE", "3")),
        Workload::RunsUntilTold => wat(SPINS),
        Workload::Prints => wat(PRINTS),
        Workload::Crashes => wat(TRAPS),
        Workload::EatsMemory => wat(EATS),
        Workload::RunsCommands | Workload::Copies => wat(COMMANDS),
        Workload::Broken => image(b"#!/bin/sh\necho not wasm\n"),
    };
    let args = match workload {
        Workload::RunsCommands => vec!["wait".to_owned()],
        Workload::Copies => vec!["copy".to_owned()],
        _ => Vec::new(),
    };
    Program { image, command: Vec::new(), args }
}

/// The command for a deed beside [`Workload::RunsCommands`].
pub(crate) fn command(deed: Deed) -> Vec<String> {
    let deed = match deed {
        Deed::Prints => "print",
        Deed::Copies => "copy",
        Deed::Floods => "flood",
        Deed::Waits => "wait",
    };
    ["main", deed].map(str::to_owned).to_vec()
}
