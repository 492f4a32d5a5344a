//! What a guest is told about itself: its arguments and environment.
//!
//! A component is told by `wasi:cli/environment` as offered here, not by wasmtime-wasi's, which has all of it copied for each instance.
//! Most instances serve a request and never ask.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::p2::bindings::cli::environment as p2;
use wasmtime_wasi::p3::bindings::cli::environment as p3;
use wherry_runtime::ContainerSpec;

use crate::state::ComponentState;

/// Arguments and environment of a container, resolved from its spec and its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) args: Vec<String>,
    pub(crate) env: Arc<[(String, String)]>,
    pub(crate) cwd: Option<String>,
}

impl Invocation {
    pub(crate) fn of(spec: &ContainerSpec) -> Self {
        let cwd = spec.working_dir.as_ref().or(spec.image.working_dir.as_ref());
        Self { args: args(spec), env: env(spec).into(), cwd: cwd.map(|path| path.display().to_string()) }
    }
}

impl HasData for Invocation {
    type Data<'a> = &'a Invocation;
}

/// Puts these functions into the place of wasmtime-wasi's.
pub(crate) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    p2::add_to_linker::<ComponentState, Invocation>(linker, |state| state.invocation())?;
    p3::add_to_linker::<ComponentState, Invocation>(linker, |state| state.invocation())?;
    linker.allow_shadowing(false);
    Ok(())
}

impl p2::Host for &Invocation {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.env.to_vec())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.args.clone())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.cwd.clone())
    }
}

impl p3::Host for &Invocation {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.env.to_vec())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.args.clone())
    }

    fn get_initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.cwd.clone())
    }
}

/// The export that a container names with its program, as in `app.wasm#export`; none where it names none.
pub(crate) fn entry(spec: &ContainerSpec) -> Option<&str> {
    let first = spec.command.first().or(spec.image.entrypoint.first())?;
    entry_of(first)
}

/// The export after the `#` of `app.wasm#export`.
pub(crate) fn entry_of(program: &str) -> Option<&str> {
    let (path, entry) = program.split_once('#')?;
    (path.ends_with(".wasm") && !entry.is_empty()).then_some(entry)
}

/// Kubernetes' rule: `command` replaces the image's entrypoint and its cmd, `args` its cmd. A Wasm artifact has no
/// entrypoint as a rule: then the first argument, the program's own name, is the container's.
fn args(spec: &ContainerSpec) -> Vec<String> {
    let mut args = match (spec.command.is_empty(), spec.image.entrypoint.is_empty()) {
        (false, _) => spec.command.clone(),
        (true, false) => spec.image.entrypoint.clone(),
        (true, true) => vec![format!("{}.wasm", spec.name)],
    };
    if !spec.args.is_empty() {
        args.extend_from_slice(&spec.args);
    } else if spec.command.is_empty() {
        args.extend_from_slice(&spec.image.cmd);
    }
    args
}

/// The image's environment, then the container's; later values win, places are kept. `HOSTNAME` is there as in a container.
fn env(spec: &ContainerSpec) -> Vec<(String, String)> {
    let hostname = ("HOSTNAME".to_owned(), spec.hostname.clone());
    let (mut env, mut places) = (Vec::<(String, String)>::new(), HashMap::new());
    for (name, value) in std::iter::once(&hostname).chain(&spec.image.env).chain(&spec.env) {
        match places.get(name) {
            Some(place) => env[*place] = (name.clone(), value.clone()),
            None => {
                places.insert(name, env.len());
                env.push((name.clone(), value.clone()));
            }
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_named_after_a_wasm_file_alone() {
        assert_eq!(entry_of("/bin/app.wasm#run"), Some("run"));
        assert_eq!(entry_of("app.wasm#wasi:cli/run"), Some("wasi:cli/run"));
        for plain in ["app.wasm", "app.wasm#", "#run", "sh#x"] {
            assert_eq!(entry_of(plain), None, "{plain}");
        }
    }
}
