//! Containers that run to their end: `wasi:cli/run` components and `_start` modules.

use wasmtime::InstancePre;
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::ending::Ending;
use crate::state::{ComponentState, Environment, ModuleState};

/// Runs a command component.
pub(crate) async fn run_component(program: &CommandPre<ComponentState>, environment: &Environment) -> Ending {
    let run = async {
        let mut store = environment.component_store(program.engine())?;
        let command = program.instantiate_async(&mut store).await?;
        command.wasi_cli_run().call_run(&mut store).await
    };
    match run.await {
        Ok(Ok(())) => Ending::Code(0),
        Ok(Err(())) => Ending::Code(1),
        Err(error) => Ending::of(&error),
    }
}

/// Runs a command module.
pub(crate) async fn run_module(program: &InstancePre<ModuleState>, environment: &Environment) -> Ending {
    let run = async {
        let mut store = environment.module_store(program.module().engine())?;
        let instance = program.instantiate_async(&mut store).await?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        start.call_async(&mut store, ()).await
    };
    match run.await {
        Ok(()) => Ending::Code(0),
        Err(error) => Ending::of(&error),
    }
}
