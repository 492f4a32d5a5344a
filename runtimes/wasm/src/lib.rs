//! WebAssembly containers, run in this process: the only user of wasmtime.
//!
//! # The way of a container
//! `prepare`: [`programs`](self) reads the image's one layer, compiles it once per digest (or maps what an earlier life
//! compiled: `cache`), and finds out what it is (`program`). `create`: the spec becomes a `Container` with its output
//! pipes (`stdio`), memory account (`memory`) and CPU budget (`cpu`). `start`: a supervisor task (`container`) runs it
//! on the guests' own tokio runtime: a command to its end (`command`), a `wasi:http` component (0.2 or 0.3) behind listeners on the
//! Pod's address, a fresh instance for each request (`serve`). A command beside it (`exec`) is a copy (`copy`), a call of an exported
//! function (`call`, `wave`), or the module run anew. Files are opened by `files`. Sockets, name look-ups and outgoing requests go through
//! the Pod's [`PodNetwork`](wherry_runtime::PodNetwork) (`net`, `outgoing`), never through the process's own network.
//!
//! # What is promised
//! * A guest cannot keep a thread: after a slice of a few milliseconds it yields; beyond `limits.cpu` it is not polled until its
//!   budget has refilled. The caller's runtime shares no thread with guests.
//! * A guest that spins delays none that doesn't: it runs by turns, given out by `requests.cpu` (`turns`).
//! * A guest cannot keep memory beyond `limits.memory`, nor all guests together beyond
//!   [`Options::memory_bytes`]: the container that asks for more ends as OOMKilled.
//! * A guest cannot keep a thread of the host's by opening a file, nor have more files and sockets than its container may.
//! * A failure (trap, panic of a host function, exit) is that container's [`Exit`](wherry_runtime::Exit).
//! * A served component is a web server: a request whose handler traps is answered 500 and leaves its trap on the
//!   container's stderr, and the container goes on. `wasi:cli/exit` and OOM end the whole container, as they would
//!   end a server's process.
//! * Output is never buffered without bound: a guest that prints faster than its log takes it waits.
//!
//! # What it does not do
//! Containers do not outlive the process; the sockets of WASI 0.3 and threads are refused by name.

mod account;
mod cache;
mod call;
mod command;
mod container;
mod copy;
mod cpu;
mod ending;
mod engine;
mod exec;
mod files;
mod handle;
mod imports;
mod invocation;
mod memory;
mod mounts;
mod net;
mod options;
mod outgoing;
mod program;
mod programs;
mod runtime;
mod serve;
mod settings;
mod state;
mod stdio;
mod streams;
mod terminal;
mod traffic;
mod turns;
mod wave;

pub use imports::{Offered, missing as missing_imports};
pub use options::Options;
pub use runtime::{WASMTIME_VERSION, WasmRuntime};
