//! The Wasm runtime passes the suite of all runtimes.

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use support::Node;
use wherry_runtime::Runtime;
use wherry_runtime::conformance::{Fixture, Program, Workload};

struct Wasm(Node);

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

#[async_trait]
impl Fixture for Wasm {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.0.runtime) as Arc<dyn Runtime>
    }

    async fn program(&self, workload: Workload) -> Option<Program> {
        let image = match workload {
            Workload::Exits0 => self.0.wat(&EXITS.replace("CODE", "0")),
            Workload::Exits3 => self.0.wat(&EXITS.replace("CODE", "3")),
            Workload::RunsUntilTold => self.0.wat(SPINS),
            Workload::Prints => self.0.wat(PRINTS),
            Workload::Crashes => self.0.wat(TRAPS),
            Workload::EatsMemory => self.0.wat(EATS),
            Workload::Broken => self.0.image(b"#!/bin/sh\necho not wasm\n"),
        };
        Some(Program { image, command: Vec::new(), args: Vec::new() })
    }
}

wherry_runtime::conformance_tests!(Wasm(Node::new()));
