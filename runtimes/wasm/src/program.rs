//! What an image is: found from its bytes and from what the code imports and exports, once a digest.

use std::path::Path;

use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{self, Component};
use wasmtime::{Engine, Module};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{p2 as http2, p3 as http3};

use crate::imports::{self, listed};
use crate::state::{ComponentState, Linkers, ModuleState};

/// What every refusal ends with.
const ACCEPTED: &str = "accepted are components of WASI 0.2 or 0.3 that export wasi:http's handler or wasi:cli/run, and core modules of \
                        WASI preview 1 that export _start";

/// A program, compiled, linked and ready to be instantiated.
pub(crate) enum Program {
    /// A component that is served.
    Served(ProxyPre<ComponentState>),
    /// A component that runs to its end.
    Command(Command),
    /// A core module that runs to its end.
    Module(ModuleProgram),
}

/// A component that runs to its end, by the version of its world or by a function of its own.
pub(crate) enum Command {
    P2(p2::bindings::CommandPre<ComponentState>),
    P3(p3::bindings::CommandPre<ComponentState>),
    Function(component::InstancePre<ComponentState>, component::ComponentExportIndex),
}

/// A core module and which of its functions is run.
pub(crate) struct ModuleProgram {
    pub(crate) pre: wasmtime::InstancePre<ModuleState>,
    pub(crate) entry: String,
    /// A reactor: this is called before the entry.
    pub(crate) initialize: bool,
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
    /// Finds the world of compiled code and links it. `entry` is the export to run instead of the usual one.
    pub(crate) fn link(linkers: &Linkers, code: &Mapped, entry: Option<&str>) -> Result<Self, Invalid> {
        match code {
            Mapped::Module(module) => Self::link_module(linkers, module, entry),
            Mapped::Component(component) => Self::link_component(linkers, component, entry),
        }
    }

    /// The component that it is; none where it is a core module.
    pub(crate) fn component(&self) -> Option<&component::InstancePre<ComponentState>> {
        match self {
            Self::Served(ProxyPre::P2(pre)) => Some(pre.instance_pre()),
            Self::Served(ProxyPre::P3(pre)) => Some(pre.instance_pre()),
            Self::Command(Command::P2(pre)) => Some(pre.instance_pre()),
            Self::Command(Command::P3(pre)) => Some(pre.instance_pre()),
            Self::Command(Command::Function(pre, _)) => Some(pre),
            Self::Module(_) => None,
        }
    }

    /// Whether it can come by an open directory. A component has no other way than to ask for them all.
    pub(crate) fn opens_files(&self) -> bool {
        let Some(pre) = self.component() else { return true };
        let (component, engine) = (pre.component(), pre.component().engine());
        component.component_type().imports(engine).any(|(name, _)| imports::is_preopens(name))
    }

    fn link_module(linkers: &Linkers, module: &Module, entry: Option<&str>) -> Result<Self, Invalid> {
        let known = |import: &wasmtime::ImportType<'_>| {
            import.module() == PREVIEW_1 && linkers.preview_1.contains(import.name())
        };
        let unknown = module.imports().filter(|import| !known(import));
        let unknown: Vec<String> = unknown.map(|import| imports::of_module(import.module(), import.name())).collect();
        refuse_imports(&unknown)?;
        let is_plain = |name: &str| {
            let function = module.get_export(name).and_then(|export| export.func().cloned());
            function.is_some_and(|function| function.params().len() == 0 && function.results().len() == 0)
        };
        let entry = entry.unwrap_or("_start");
        if !is_plain(entry) {
            let exports: Vec<&str> = module.exports().map(|export| export.name()).collect();
            return Err(Invalid(format!(
                "the module exports no function {entry} without parameters and results (it exports {})",
                listed(&exports)
            )));
        }
        let pre = linkers
            .module
            .instantiate_pre(module)
            .map_err(|error| Invalid(format!("the module does not link: {error:#}")))?;
        let initialize = entry != "_start" && is_plain("_initialize");
        Ok(Self::Module(ModuleProgram { pre, entry: entry.to_owned(), initialize }))
    }

    fn link_component(linkers: &Linkers, component: &Component, entry: Option<&str>) -> Result<Self, Invalid> {
        let (engine, ty) = (component.engine(), component.component_type());
        let items = ty.imports(engine).map(|(name, item)| (name, item.ty));
        // A type alone asks nothing of the host.
        let needed = items.filter(|(_, item)| !matches!(item, ComponentItem::Type(_)));
        let unknown: Vec<String> = needed
            .filter(|(name, _)| !imports::is_offered(name))
            .map(|(name, item)| imports::of_component(engine, name, &item))
            .collect();
        refuse_imports(&unknown)?;
        let exports: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
        let unlinked = |error: wasmtime::Error| Invalid(format!("the component does not link: {error:#}"));
        let world = World::of(&exports, entry);
        if let Err(None) = world
            && let Some(function) = entry.and_then(|entry| plain_function(component, &ty, entry))
        {
            let pre = linkers.component.instantiate_pre(component).map_err(unlinked)?;
            return Ok(Self::Command(Command::Function(pre, function)));
        }
        let world = world.map_err(|several| match several {
            Some(several) => Invalid(format!(
                "the component exports {}: which one to run is not clear; name it, as in command: [\"app.wasm#wasi:cli/run\"]",
                several.join(" and ")
            )),
            None => Invalid(format!(
                "the component exports neither of the worlds that can be run{} (it exports {})",
                entry.map(|entry| format!(", nor a function {entry} without parameters")).unwrap_or_default(),
                listed(&exports)
            )),
        })?;
        let pre = linkers.component.instantiate_pre(component).map_err(unlinked)?;
        Ok(match world {
            World::Http2 => Self::Served(ProxyPre::P2(http2::bindings::ProxyPre::new(pre).map_err(unlinked)?)),
            World::Http3 => Self::Served(ProxyPre::P3(http3::bindings::ServicePre::new(pre).map_err(unlinked)?)),
            World::Run2 => Self::Command(Command::P2(p2::bindings::CommandPre::new(pre).map_err(unlinked)?)),
            World::Run3 => Self::Command(Command::P3(p3::bindings::CommandPre::new(pre).map_err(unlinked)?)),
        })
    }
}

/// The module name of preview 1.
pub(crate) const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// How a component is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    Http2,
    Http3,
    Run2,
    Run3,
}

impl World {
    /// Newest first of each interface.
    pub(crate) const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Http3, "wasi:http/handler", "0.3."),
        (Self::Http2, "wasi:http/incoming-handler", "0.2."),
        (Self::Run3, "wasi:cli/run", "0.3."),
        (Self::Run2, "wasi:cli/run", "0.2."),
    ];

    /// The world among `exports`, or the one that `entry` names (`wasi:cli/run` or `run`). Fails with those that it can't
    /// choose from, if any.
    fn of(exports: &[&str], entry: Option<&str>) -> Result<Self, Option<Vec<&'static str>>> {
        let named = |interface: &str| {
            entry.is_none_or(|entry| {
                entry == interface || interface.rsplit_once('/').is_some_and(|(_, last)| last == entry)
            })
        };
        let mut found = Self::ALL.iter().filter(|(_, interface, line)| {
            named(interface) && exports.iter().any(|name| imports::is_version(name, interface, line))
        });
        let Some((world, interface, _)) = found.next() else { return Err(None) };
        let package = |interface: &str| interface.split('/').next().map(str::to_owned);
        match found.find(|(_, other, _)| package(other) != package(interface)) {
            Some((_, other, _)) => Err(Some(vec![interface, other])),
            None => Ok(*world),
        }
    }
}

/// A function of the component's own that takes nothing.
fn plain_function(component: &Component, ty: &types::Component, name: &str) -> Option<component::ComponentExportIndex> {
    let export = ty.get_export(component.engine(), name)?;
    let ComponentItem::ComponentFunc(function) = export.ty else { return None };
    (function.params().len() == 0).then(|| component.get_export_index(None, name)).flatten()
}

fn refuse_imports(unknown: &[String]) -> Result<(), Invalid> {
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Invalid(format!("it imports what this node does not offer: {}", listed(unknown))))
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
    fn a_world_is_chosen_by_the_exports_or_by_name() {
        let (http2, run2) = ("wasi:http/incoming-handler@0.2.3", "wasi:cli/run@0.2.3");
        let (http3, run3) = ("wasi:http/handler@0.3.0", "wasi:cli/run@0.3.0");
        assert_eq!(World::of(&[http2], None), Ok(World::Http2));
        assert_eq!(World::of(&["other", http2, http3], None), Ok(World::Http3), "the newest");
        assert_eq!(World::of(&[run2, run3], None), Ok(World::Run3));
        assert_eq!(World::of(&["other"], None), Err(None));
        assert_eq!(World::of(&[http2, run2], None), Err(Some(vec!["wasi:http/incoming-handler", "wasi:cli/run"])));
        assert_eq!(World::of(&[http2, run2], Some("wasi:cli/run")), Ok(World::Run2));
        assert_eq!(World::of(&[http2, run2], Some("incoming-handler")), Ok(World::Http2));
        assert_eq!(World::of(&[http2], Some("run")), Err(None));
        assert_eq!(World::of(&["wasi:http/handler@0.3.0-rc-2025-09-16"], None), Err(None), "a draft");
    }
}
