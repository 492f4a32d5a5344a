//! RuntimeClasses: which of their handlers mean WebAssembly. `crun` runs both kinds: there the image decides.

/// Handlers that mean WebAssembly: those that the known shims and runtimes register, and our own.
const WASM_HANDLERS: [&str; 13] = [
    "wasm",
    "wasmtime",
    "wasmtime-spin-v2",
    "wasmtime-spin",
    "spin",
    "slight",
    "wws",
    "wasmedge",
    "wasmer",
    "wamr",
    "lunatic",
    "crun-wasm",
    "wherry-wasm",
];

/// Whether Pods of a RuntimeClass with this handler are WebAssembly.
#[must_use]
pub fn is_wasm(handler: &str) -> bool {
    WASM_HANDLERS.contains(&handler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_of_containers_are_not_wasm() {
        for handler in ["wasmtime", "spin", "wasmtime-spin-v2", "slight", "wws", "wasmedge", "wasmer"] {
            assert!(is_wasm(handler), "{handler}");
        }
        for handler in ["", "runc", "crun", "kata", "wasmtime2"] {
            assert!(!is_wasm(handler), "{handler}");
        }
    }
}
