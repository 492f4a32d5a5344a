//! Containers that run to their end: `wasi:cli/run` components, `_start` modules, and functions named instead of these.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, InstancePre, Val};
use wasmtime_wasi::p3;

use crate::ending::Ending;
use crate::program::{Command, ModuleProgram};
use crate::state::{ComponentState, Environment};

/// Runs a command component.
pub(crate) async fn run_component(program: &Command, environment: &Arc<Environment>) -> Ending {
    let run = async {
        match program {
            Command::P2(pre) => {
                let mut store = environment.component_store(pre.engine())?;
                let command = pre.instantiate_async(&mut store).await?;
                command.wasi_cli_run().call_run(&mut store).await
            }
            Command::P3(pre) => {
                let mut store = environment.component_store(pre.engine())?;
                let command = pre.instantiate_async(&mut store).await?;
                run_concurrently(&mut store, &command).await
            }
            Command::Function(pre, function) => {
                let mut store = environment.component_store(pre.component().engine())?;
                call(&mut store, pre, function).await
            }
        }
    };
    match run.await {
        Ok(Ok(())) => Ending::Code(0),
        Ok(Err(())) => Ending::Code(1),
        Err(error) => Ending::of(&error),
    }
}

async fn run_concurrently(
    store: &mut Store<ComponentState>,
    command: &p3::bindings::Command,
) -> wasmtime::Result<Result<(), ()>> {
    store.run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await).await?
}

/// Calls a function that takes nothing; a `result` that is an error is a failure, any other answer is dropped.
async fn call(
    store: &mut Store<ComponentState>,
    pre: &InstancePre<ComponentState>,
    function: &ComponentExportIndex,
) -> wasmtime::Result<Result<(), ()>> {
    let instance = pre.instantiate_async(&mut *store).await?;
    let function = instance
        .get_func(&mut *store, function)
        .ok_or_else(|| wasmtime::Error::msg("the function that was named is gone"))?;
    let mut results = vec![Val::Bool(false); function.ty(&*store).results().len()];
    function.call_async(&mut *store, &[], &mut results).await?;
    Ok(if matches!(results.first(), Some(Val::Result(Err(_)))) { Err(()) } else { Ok(()) })
}

/// Runs a command module.
pub(crate) async fn run_module(program: &ModuleProgram, environment: &Environment) -> Ending {
    let run = async {
        let mut store = environment.module_store(program.pre.module().engine())?;
        let instance = program.pre.instantiate_async(&mut store).await?;
        let initialize = program.initialize.then_some("_initialize");
        for name in initialize.into_iter().chain([program.entry.as_str()]) {
            let function = instance.get_typed_func::<(), ()>(&mut store, name)?;
            function.call_async(&mut store, ()).await?;
        }
        Ok(())
    };
    match run.await {
        Ok(()) => Ending::Code(0),
        Err(error) => Ending::of(&error),
    }
}
