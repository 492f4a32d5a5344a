//! Whether the guests of `tests/wasi`, which `wasi.rs` runs, leave out a function that this runtime offers.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/guests.rs"]
mod guests;
mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use guests::guests;
use support::Node;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, types};
use wasmtime::{Engine, Module};
use wherry_wasm::Offered;

/// Functions, each with its interface and without a version.
type Functions = BTreeSet<(String, String)>;

#[test]
fn every_function_of_preview_1_is_exercised() {
    let guest = Module::new(&Engine::default(), &guests().preview_1).unwrap();
    let exercised = guest.imports().filter(|import| import.module() == "wasi_snapshot_preview1");
    let exercised: BTreeSet<String> = exercised.map(|import| import.name().to_owned()).collect();
    let offered = Node::new().runtime.offered().preview_1;
    assert_eq!(exercised, offered, "what tests/wasi/preview1 calls, and what is offered");
}

#[test]
fn every_function_of_0_2_is_exercised() {
    let (engine, offered) = (Engine::default(), Node::new().runtime.offered());
    let components = [guests().command.clone(), guests().proxy.clone()];
    let config = guests::config().into_iter().map(|text| wat::parse_str(text).unwrap());
    let (mut exercised, mut exported) = (Functions::new(), BTreeSet::new());
    for bytes in components.into_iter().chain(config) {
        let ty = Component::new(&engine, bytes).unwrap().component_type();
        exercised.extend(imports(&engine, &ty));
        exported.extend(ty.exports(&engine).map(|(name, _)| unversioned(name)));
    }
    // Interfaces that are exported rather than imported are what is run of a component.
    let (run, mut wanted): (Functions, Functions) =
        described(&offered).into_iter().partition(|(interface, _)| offered.worlds.contains(interface.as_str()));
    wanted.extend(offered.functions.iter().map(|(interface, name)| (unversioned(interface), (*name).to_owned())));
    let missing: Vec<_> = wanted.difference(&exercised).collect();
    assert!(missing.is_empty(), "offered, and called by no guest of tests/wasi: {missing:?}");
    let unknown: Vec<_> = exercised.difference(&wanted).collect();
    assert!(unknown.is_empty(), "called by a guest of tests/wasi, and not known to be offered: {unknown:?}");
    let missing: Vec<_> = run.iter().filter(|(interface, _)| !exported.contains(interface)).collect();
    assert!(!run.is_empty() && missing.is_empty(), "run of a component, and exported by no guest: {missing:?}");
}

fn unversioned(name: &str) -> String {
    name.split('@').next().unwrap_or(name).to_owned()
}

fn imports(engine: &Engine, ty: &types::Component) -> Functions {
    let mut functions = Functions::new();
    for (interface, item) in ty.imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        let of_it = instance.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
        functions.extend(of_it.map(|(name, _)| (unversioned(interface), name.to_owned())));
    }
    functions
}

/// What the interfaces of the packages that are offered consist of, by the WIT that this version of wasmtime is built with. That all
/// of it is there is proven by the guests: they would not link otherwise.
fn described(offered: &Offered) -> Functions {
    let output = Command::new(&guests().pack).arg("functions").arg(wit_of_wasmtime()).output().unwrap();
    assert!(output.status.success(), "pack: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let all: Functions =
        text.lines().filter_map(|line| line.split_once(' ')).map(|(one, two)| (one.into(), two.into())).collect();
    for package in offered.packages {
        let known = all.iter().any(|(interface, _)| interface.starts_with(package));
        assert!(known, "{package} is offered, and wasmtime-wasi-http's WIT says nothing of it: what is it made of?");
    }
    all.into_iter()
        .filter(|(interface, _)| offered.packages.iter().any(|package| interface.starts_with(package)))
        .collect()
}

/// Where the sources of the dependency lie.
fn wit_of_wasmtime() -> PathBuf {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let mut command = Command::new(cargo);
    // What this machine's build needs is there, other platforms' is not.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    command.args(["metadata", "--format-version=1", "--locked", "--offline", &platform]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "wasmtime-wasi-http").unwrap();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    manifest.with_file_name("wit")
}
