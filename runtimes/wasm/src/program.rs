//! What an image is: found from its bytes and from what the code imports and exports, once a digest.

use std::path::Path;

use wasmtime::component::{self, Component};
use wasmtime::{Engine, Module};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::state::{ComponentState, Linkers, ModuleState};

/// What every refusal ends with.
const ACCEPTED: &str = "accepted are components of WASI 0.2 that export wasi:http/incoming-handler or wasi:cli/run, and core modules of \
                        WASI preview 1 that export _start";

/// Packages of interfaces that a component may import.
const OFFERED: [&str; 7] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:http/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// A program, compiled, linked and ready to be instantiated.
pub(crate) enum Program {
    /// A component that is served.
    Served(ProxyPre<ComponentState>),
    /// A component that runs to its end.
    Command(CommandPre<ComponentState>),
    /// A core module that runs to its end.
    Module(wasmtime::InstancePre<ModuleState>),
}

/// An image that can never run, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; {ACCEPTED}")]
pub(crate) struct Invalid(pub(crate) String);

/// The two encodings of Wasm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Module,
    Component,
}

impl Encoding {
    /// Tells what `bytes` are.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, Invalid> {
        match bytes {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Self::Module),
            [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(Self::Component),
            [0, b'a', b's', b'm', version @ ..] => Err(Invalid(format!(
                "it is Wasm of an unknown version ({})",
                hex::encode(&version[..version.len().min(4)])
            ))),
            [0x7f, b'E', b'L', b'F', ..] => Err(Invalid("it is a native (ELF) file, not Wasm".into())),
            [] => Err(Invalid("it is empty, not Wasm".into())),
            _ => Err(Invalid(format!("it is not Wasm: it begins with {}", hex::encode(&bytes[..bytes.len().min(8)])))),
        }
    }

    /// Compiles `bytes` to machine code.
    pub(crate) fn compile(self, engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, Invalid> {
        let code = match self {
            Self::Module => engine.precompile_module(bytes),
            Self::Component => engine.precompile_component(bytes),
        };
        code.map_err(|error| Invalid(format!("it is not valid Wasm: {error:#}")))
    }

    /// Maps machine code that [`Cache`](crate::cache::Cache) has authenticated. Fails where this engine cannot use it.
    pub(crate) fn map(self, engine: &Engine, code: &Path) -> wasmtime::Result<Mapped> {
        // The one use of unsafe code of this crate.
        #[allow(
            unsafe_code,
            reason = "mapping machine code is as safe as the file is ours: the cache's directory is private (0700) and it has just \
                      verified the file's MAC, under a key that only this user can read; the file is never changed in place"
        )]
        // SAFETY: the file was produced by `precompile_*` of wasmtime and not modified since: see above. wasmtime itself
        // refuses code of another version or other settings.
        unsafe {
            Ok(match self {
                Self::Module => Mapped::Module(Module::deserialize_file(engine, code)?),
                Self::Component => Mapped::Component(Component::deserialize_file(engine, code)?),
            })
        }
    }

    /// The same from memory, for a node that cannot keep files.
    pub(crate) fn load(self, engine: &Engine, bytes: &[u8]) -> Result<Mapped, Invalid> {
        let loaded = match self {
            Self::Module => Module::from_binary(engine, bytes).map(Mapped::Module),
            Self::Component => Component::from_binary(engine, bytes).map(Mapped::Component),
        };
        loaded.map_err(|error| Invalid(format!("it is not valid Wasm: {error:#}")))
    }
}

/// Machine code in memory.
pub(crate) enum Mapped {
    Module(Module),
    Component(Component),
}

impl Program {
    /// Finds the world of compiled code and links it.
    pub(crate) fn link(linkers: &Linkers, code: &Mapped) -> Result<Self, Invalid> {
        match code {
            Mapped::Module(module) => Self::link_module(linkers, module),
            Mapped::Component(component) => Self::link_component(linkers, component),
        }
    }

    fn link_module(linkers: &Linkers, module: &Module) -> Result<Self, Invalid> {
        let unknown = module.imports().filter(|import| import.module() != "wasi_snapshot_preview1");
        let unknown: Vec<String> = unknown.map(|import| format!("{}.{}", import.module(), import.name())).collect();
        refuse_imports(&unknown)?;
        let start = module.get_export("_start").and_then(|export| export.func().cloned());
        if !start.is_some_and(|start| start.params().len() == 0 && start.results().len() == 0) {
            let exports: Vec<&str> = module.exports().map(|export| export.name()).collect();
            return Err(Invalid(format!("the module exports no function _start (it exports {})", listed(&exports))));
        }
        let pre = linkers
            .module
            .instantiate_pre(module)
            .map_err(|error| Invalid(format!("the module does not link: {error:#}")))?;
        Ok(Self::Module(pre))
    }

    fn link_component(linkers: &Linkers, component: &Component) -> Result<Self, Invalid> {
        let (engine, ty) = (component.engine(), component.component_type());
        let imports = ty.imports(engine).map(|(name, item)| (name, item.ty));
        // A type alone asks nothing of the host.
        let needed = imports.filter(|(_, item)| !matches!(item, component::types::ComponentItem::Type(_)));
        let unknown: Vec<String> =
            needed.filter(|(name, _)| !is_offered(name)).map(|(name, _)| name.to_owned()).collect();
        refuse_imports(&unknown)?;
        let exports: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
        let exported = |interface: &str| exports.iter().any(|name| is_version_0_2(name, interface));
        let world = (exported("wasi:http/incoming-handler"), exported("wasi:cli/run"));
        if world == (true, true) {
            let text =
                "the component exports both wasi:http/incoming-handler and wasi:cli/run: which one to run is not clear";
            return Err(Invalid(text.into()));
        }
        if world == (false, false) {
            return Err(Invalid(format!(
                "the component exports neither of the worlds that can be run (it exports {})",
                listed(&exports)
            )));
        }
        let unlinked = |error: wasmtime::Error| Invalid(format!("the component does not link: {error:#}"));
        let pre = linkers.component.instantiate_pre(component).map_err(unlinked)?;
        match world {
            (true, _) => ProxyPre::new(pre).map(Self::Served).map_err(unlinked),
            _ => CommandPre::new(pre).map(Self::Command).map_err(unlinked),
        }
    }
}

fn is_offered(import: &str) -> bool {
    let version = import.split_once('@').map_or("", |(_, version)| version);
    OFFERED.iter().any(|package| import.starts_with(package)) && version.starts_with("0.2.")
}

fn is_version_0_2(name: &str, interface: &str) -> bool {
    name.split_once('@').is_some_and(|(exported, version)| exported == interface && version.starts_with("0.2."))
}

fn refuse_imports(unknown: &[String]) -> Result<(), Invalid> {
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Invalid(format!("it imports what this node does not offer: {}", listed(unknown))))
}

fn listed(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "nothing".into(),
        more if more > SHOWN => format!("{} and {} more", shown.join(", "), more - SHOWN),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_told_by_their_first_bytes() {
        assert_eq!(Encoding::of(&wat::parse_str("(module)").unwrap()), Ok(Encoding::Module));
        assert_eq!(Encoding::of(&wat::parse_str("(component)").unwrap()), Ok(Encoding::Component));
        for (bytes, problem) in
            [(&b"\x7fELF"[..], "native"), (b"", "empty"), (b"#!/bin/sh", "not Wasm"), (b"\0asm\x02", "unknown version")]
        {
            assert!(Encoding::of(bytes).unwrap_err().to_string().contains(problem), "{problem}");
        }
    }

    #[test]
    fn offered_interfaces() {
        assert!(is_offered("wasi:http/types@0.2.3") && is_offered("wasi:io/streams@0.2.12"));
        assert!(
            !is_offered("wasi:http/types@0.3.0")
                && !is_offered("wasi:keyvalue/store@0.2.0")
                && !is_offered("get-answer")
        );
    }
}
