//! The modules and components that mean harm, or are broken.

use std::fmt::Write as _;

/// How a Pod of it must end.
pub(crate) enum End {
    /// Never started: the container waits with this reason, and an Event `InspectFailed` says the same.
    Refused(&'static str),
    /// Started and ended again and again, with this exit code and reason.
    Fails(i32, &'static str),
    /// Goes on until it is deleted.
    Runs,
}

/// A module, its Pod's name, how it must end, and what must be said about it.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
    pub(crate) message: &'static str,
}

/// Nothing of it is ever run.
const INSPECT: End = End::Refused("ImageInspectError");
const ERROR: End = End::Fails(134, "Error");
const OOM: End = End::Fails(137, "OOMKilled");

pub(crate) fn all() -> Vec<Module> {
    let text = |name, text: &str, end, message| Module { name, bytes: wat::parse_str(text).unwrap(), end, message };
    vec![
        Module {
            name: "not-wasm",
            bytes: b"#!/bin/sh\nexec evil\n".to_vec(),
            end: INSPECT,
            message: "it is not Wasm: it begins with 23212f62696e2f73",
        },
        Module {
            name: "native",
            bytes: b"\x7fELF\x02\x01\x01".to_vec(),
            end: INSPECT,
            message: "native (ELF) file, not Wasm",
        },
        Module { name: "truncated", bytes: truncated(), end: INSPECT, message: "it is not valid Wasm: " },
        text("wrong-world", "(component)", INSPECT, "neither of the worlds that can be run (it exports nothing)"),
        text(
            "several-worlds",
            SEVERAL_WORLDS,
            INSPECT,
            "exports wasi:http/incoming-handler and wasi:cli/run: which one to run is not clear",
        ),
        text(
            "missing-imports",
            MISSING_IMPORTS,
            INSPECT,
            "it imports what this node does not offer: env.secret, env.door",
        ),
        text(
            "missing-interface",
            r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)))"#,
            INSPECT,
            "wasi:keyvalue/store@0.2.0",
        ),
        text("big-table", r#"(module (table 200000 funcref) (func (export "_start")))"#, INSPECT, "table"),
        text(
            "traps-at-start",
            r#"(module (func $no unreachable) (start $no) (func (export "_start")))"#,
            ERROR,
            "wasm `unreachable` instruction executed",
        ),
        text(
            "stack-overflow",
            r#"(module (func $f (export "_start") (call $f) (call $f)))"#,
            ERROR,
            "call stack exhausted",
        ),
        text("table-bomb", TABLE_BOMB, ERROR, "wasm `unreachable` instruction executed"),
        text("memory-bomb", MEMORY_BOMB, OOM, "the container's limit is 16777216 bytes"),
        text("endless-loop", r#"(module (func (export "_start") (loop $l (br $l))))"#, End::Runs, ""),
        text("prints-without-end", FLOOD, End::Runs, ""),
    ]
}

/// Its last section lacks its end.
fn truncated() -> Vec<u8> {
    let mut bytes = wat::parse_str(MEMORY_BOMB).unwrap();
    bytes.truncate(bytes.len() - 5);
    bytes
}

const SEVERAL_WORLDS: &str = r#"(component (instance $none)
    (export "wasi:http/incoming-handler@0.2.0" (instance $none))
    (export "wasi:cli/run@0.2.0" (instance $none)))"#;

const MISSING_IMPORTS: &str =
    r#"(module (import "env" "secret" (func)) (import "env" "door" (global i32)) (func (export "_start")))"#;

/// Grows its table until that is refused, then gives up.
const TABLE_BOMB: &str = r#"(module (table $t 1 funcref) (func (export "_start")
    (loop $l (br_if $l (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000))))) unreachable))"#;

const MEMORY_BOMB: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (drop (memory.grow (i32.const 100))) (br $l))))"#;

const FLOOD: &str = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 100) "no end\n")
    (func (export "_start") (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 7))
      (loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))))"#;

/// A module that keeps the compiler busy, and then runs.
pub(crate) fn huge() -> Vec<u8> {
    let mut text = String::from("(module (func (export \"_start\"))");
    for function in 0..2000 {
        text.push_str("(func (param i64) (result i64) local.get 0");
        for step in 0..200 {
            write!(text, " i64.const {} i64.mul local.get 0 i64.xor", function * 1000 + step).unwrap();
        }
        text.push(')');
    }
    text.push(')');
    wat::parse_str(text).unwrap()
}
