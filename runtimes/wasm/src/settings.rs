//! `wasi:config/store`: the container's environment, which is where a Pod's manifest puts what ConfigMaps and Secrets hold.

use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::state::ComponentState;

/// The versions that guests are built against.
const VERSIONS: [&str; 2] = ["0.2.0-rc.1", "0.2.0-draft"];

/// Why a setting can't be told. Ours always can.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
#[allow(dead_code, reason = "the interface's type; guests are linked by it")]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// What the interface consists of.
pub(crate) const FUNCTIONS: [&str; 2] = [GET, GET_ALL];
const GET: &str = "get";
const GET_ALL: &str = "get-all";

/// Whether an import is one of ours.
pub(crate) fn is_offered(import: &str) -> bool {
    interfaces().any(|interface| interface == import)
}

/// The interface in each version. Its name changed with them.
pub(crate) fn interfaces() -> impl Iterator<Item = String> {
    VERSIONS.into_iter().map(|version| {
        let name = if version == "0.2.0-draft" { "runtime" } else { "store" };
        format!("wasi:config/{name}@{version}")
    })
}

pub(crate) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    for interface in interfaces() {
        let mut instance = linker.instance(&interface)?;
        instance.func_wrap(GET, |store, (name,): (String,)| {
            let state: &ComponentState = store.data();
            let found = state.invocation().env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
            Ok((Ok::<_, Error>(found),))
        })?;
        instance.func_wrap(GET_ALL, |store, (): ()| {
            let state: &ComponentState = store.data();
            Ok((Ok::<_, Error>(state.invocation().env.to_vec()),))
        })?;
    }
    Ok(())
}
