//! `wherry version`.

use clap::Args;

/// Print the versions of this binary, the API that it serves, and its Wasm engine.
#[derive(Debug, Args)]
pub(crate) struct Version {}

impl Version {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (wherry, kubernetes, wasmtime) =
            (env!("CARGO_PKG_VERSION"), wherry_api::openapi::KUBERNETES_VERSION, wherry_wasm::WASMTIME_VERSION);
        crate::say(&format!("wherry {wherry}\nkubernetes {kubernetes}\nwasmtime {wasmtime}\n"))?;
        Ok(())
    }
}
