//! `wherry version`.

use clap::Args;

/// Print the versions of this binary, the API that it serves, and its Wasm engine.
#[derive(Debug, Args)]
pub(crate) struct Version {}

impl Version {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        println!("wherry {}", env!("CARGO_PKG_VERSION"));
        println!("kubernetes {}", wherry_api::openapi::KUBERNETES_VERSION);
        println!("wasmtime {}", wherry_wasm::WASMTIME_VERSION);
        Ok(())
    }
}
