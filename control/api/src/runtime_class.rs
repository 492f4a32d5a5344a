//! RuntimeClasses: which of their handlers mean WebAssembly.

/// Handlers that mean WebAssembly: those that the known shims and runtimes register, and our own.
const WASM_HANDLERS: [&str; 10] =
    ["wasm", "wasmtime", "wasmtime-spin-v2", "spin", "slight", "wws", "wasmedge", "wasmer", "lunatic", "wherry-wasm"];

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
        assert!(is_wasm("wasmtime-spin-v2"));
        for handler in ["", "runc", "crun", "kata", "wasmtime2"] {
            assert!(!is_wasm(handler), "{handler}");
        }
    }
}
