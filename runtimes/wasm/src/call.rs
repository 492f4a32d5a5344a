//! `kubectl exec POD -- EXPORT ARGS`: an exported function of a component, called with values that are written as text (`wave`) in an
//! instance of its own, beside the container's.
//!
//! # The rule
//! Where a component's container is given a command whose first word names a function that the component exports, that function
//! is called with the other words as its parameters, one each. A function at the root is named by itself (`add`), one of
//! an interface with it (`demo:math/ops#add`; the interface's version may be left out). Any other command runs the module anew with
//! the command as its arguments. What the function gives is printed on a line; a result that is an error is exit code 1, a call
//! that can't be made 2.

use std::pin::Pin;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Val};
use wasmtime_wasi::cli::StdoutStream as _;
use wherry_runtime::Stream;

use crate::ending::Ending;
use crate::state::{ComponentState, Environment};
use crate::wave;

/// The exit code of a call that can't be made.
const MISUSED: i32 = 2;

/// A function that is to be called.
pub(crate) struct Call {
    pre: InstancePre<ComponentState>,
    function: ComponentExportIndex,
    ty: ComponentFunc,
    name: String,
    args: Arc<[String]>,
}

impl Call {
    /// The call that a command is; none where it names no function.
    pub(crate) fn of(pre: &InstancePre<ComponentState>, command: &[String]) -> Option<Self> {
        let (name, args) = command.split_first()?;
        let (function, ty) = find(pre.component(), name)?;
        Some(Self { pre: pre.clone(), function, ty, name: name.clone(), args: args.into() })
    }

    pub(crate) async fn run(&self, environment: &Arc<Environment>) -> Ending {
        let values = match self.values() {
            Ok(values) => values,
            Err(problem) => {
                let text = format!("{}: {problem}\n{}", self.name, wave::signature(&self.name, &self.ty));
                environment.account.stdio.say(&text);
                return Ending::Code(MISUSED);
            }
        };
        match self.call(environment, &values).await {
            Ok(results) => {
                let text: String = results.iter().map(|value| wave::write(value) + "\n").collect();
                let mut stdout = Pin::from(environment.account.stdio.pipe(Stream::Stdout).async_stream());
                // Its buffer takes all, in time.
                let _never = stdout.write_all(text.as_bytes()).await;
                Ending::Code(i32::from(matches!(results.first(), Some(Val::Result(Err(_))))))
            }
            Err(error) => Ending::of(&error),
        }
    }

    /// The arguments as the function's parameters.
    fn values(&self) -> Result<Vec<Val>, String> {
        let params: Vec<_> = self.ty.params().collect();
        let all = params.iter().map(|(_, ty)| ty.clone()).chain(self.ty.results());
        if let Some(unwritable) = all.into_iter().find_map(|ty| wave::unwritable(&ty)) {
            return Err(format!("a {unwritable} can't be written as text, so that this function can't be called"));
        }
        if params.len() != self.args.len() {
            return Err(format!("it takes {} values, {} were given", params.len(), self.args.len()));
        }
        let read = |((name, ty), text): (&(&str, _), &String)| {
            wave::read(ty, text).map_err(|problem| format!("{name}: {problem}"))
        };
        params.iter().zip(&*self.args).map(read).collect()
    }

    async fn call(&self, environment: &Arc<Environment>, values: &[Val]) -> wasmtime::Result<Vec<Val>> {
        let mut store = environment.component_store(self.pre.component().engine())?;
        let instance = self.pre.instantiate_async(&mut store).await?;
        let function = instance
            .get_func(&mut store, self.function)
            .ok_or_else(|| wasmtime::Error::msg("the function that was named is gone"))?;
        let mut results = vec![Val::Bool(false); self.ty.results().len()];
        function.call_async(&mut store, values, &mut results).await?;
        Ok(results)
    }
}

/// The exported function of this name.
fn find(component: &Component, name: &str) -> Option<(ComponentExportIndex, ComponentFunc)> {
    let (engine, ty) = (component.engine(), component.component_type());
    let function = |item: ComponentItem| match item {
        ComponentItem::ComponentFunc(function) => Some(function),
        _ => None,
    };
    let Some((interface, name)) = name.split_once('#') else {
        let found = function(ty.get_export(engine, name)?.ty)?;
        return Some((component.get_export_index(None, name)?, found));
    };
    let is_named = |export: &str| export == interface || export.split('@').next() == Some(interface);
    let (export, item) = ty.exports(engine).find(|(export, _)| is_named(export))?;
    let ComponentItem::ComponentInstance(instance) = item.ty else { return None };
    let found = function(instance.get_export(engine, name)?.ty)?;
    let index = component.get_export_index(None, export)?;
    Some((component.get_export_index(Some(&index), name)?, found))
}

/// The functions at a component's root, for a message.
pub(crate) fn callable(component: &Component) -> Vec<String> {
    let (engine, ty) = (component.engine(), component.component_type());
    let functions = ty.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
    functions.map(|(name, _)| name.to_owned()).collect()
}
