//! The guests of `tests/wasi`, built from their source by whoever asks first.

#![allow(dead_code, clippy::unwrap_used, reason = "tests, each of which uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The guests, as they are loaded.
pub(crate) struct Guests {
    /// A command module of preview 1.
    pub(crate) preview_1: Vec<u8>,
    /// A command component of 0.2.
    pub(crate) command: Vec<u8>,
    /// A component of 0.2 that is served.
    pub(crate) proxy: Vec<u8>,
    /// The tool that reads WIT.
    pub(crate) pack: PathBuf,
}

/// Components that ask `wasi:config` in each version, in text form.
pub(crate) fn config() -> Vec<String> {
    let text = std::fs::read_to_string(source().join("config.wat")).unwrap();
    vec![text.replace("store@0.2.0-rc.1", "runtime@0.2.0-draft"), text]
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/wasi")
}

/// Builds them once a process; cargo sees to it that what has not changed is not built again.
pub(crate) fn guests() -> &'static Guests {
    static BUILT: OnceLock<Guests> = OnceLock::new();
    BUILT.get_or_init(|| {
        // Beside the test's own binary, which lies in target/<profile>/deps.
        let out = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("guests");
        std::fs::create_dir_all(&out).unwrap();
        // Tests in several processes: one builds, the others find it done.
        let lock = std::fs::File::create(out.join("lock")).unwrap();
        lock.lock().unwrap();
        let built = Command::new(source().join("build.sh")).arg(&out).output().unwrap();
        assert!(built.status.success(), "tests/wasi/build.sh: {}", String::from_utf8_lossy(&built.stderr));
        let read = |name: &str| std::fs::read(out.join(name)).unwrap();
        Guests {
            preview_1: read("preview1.wasm"),
            command: read("command.wasm"),
            proxy: read("proxy.wasm"),
            pack: out.join("pack"),
        }
    })
}
