//! What a guest may import, and how what it may not is named.

use std::collections::{BTreeSet, HashSet};

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;

use crate::program::World;
use crate::settings;

/// Packages of interfaces that a component may import in version 0.2.
const OFFERED_0_2: [&str; 7] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:http/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
/// The same of version 0.3.
const OFFERED_0_3: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:http/", "wasi:random/"];

/// What is said of one interface or module, at most.
const FUNCTIONS: usize = 5;
const SHOWN: usize = 10;

/// What guests may import, and what is run of them.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Functions of preview 1.
    pub preview_1: BTreeSet<String>,
    /// Packages of WASI 0.2, as `wasi:io/`: all of their interfaces.
    pub packages: &'static [&'static str],
    /// Functions of interfaces that are in none of these packages, after their interface.
    pub functions: Vec<(String, &'static str)>,
    /// Interfaces that components export to be run.
    pub worlds: BTreeSet<&'static str>,
}

impl Offered {
    pub(crate) fn new(preview_1: &HashSet<String>) -> Self {
        let config =
            settings::interfaces().flat_map(|interface| settings::FUNCTIONS.map(|name| (interface.clone(), name)));
        Self {
            preview_1: preview_1.iter().cloned().collect(),
            packages: &OFFERED_0_2,
            functions: config.collect(),
            worlds: World::ALL.iter().map(|(_, interface, _)| *interface).collect(),
        }
    }
}

/// Those of a component's imports (by name, as an artifact's config lists them) that this runtime does not offer.
#[must_use]
pub fn missing(imports: &[String]) -> Vec<String> {
    let interfaces = imports.iter().filter(|import| import.contains(':') && !is_offered(import));
    interfaces.map(|import| explained(import.clone(), import)).collect()
}

/// Whether a component may import an interface of this name.
pub(crate) fn is_offered(import: &str) -> bool {
    let version = import.split_once('@').map_or("", |(_, version)| version);
    let of = |packages: &[&str]| packages.iter().any(|package| import.starts_with(package));
    // A release candidate is not its release.
    let released = !version.contains('-');
    released && (version.starts_with("0.2.") && of(&OFFERED_0_2) || version.starts_with("0.3.") && of(&OFFERED_0_3))
        || settings::is_offered(import)
}

/// Whether `name` is `interface` in a version of this line (`0.2.`).
pub(crate) fn is_version(name: &str, interface: &str, line: &str) -> bool {
    let of_line = |version: &str| version.starts_with(line) && !version.contains('-');
    name.split_once('@').is_some_and(|(exported, version)| exported == interface && of_line(version))
}

/// Whether `name` is the interface by which a component gets its mounts.
pub(crate) fn is_preopens(name: &str) -> bool {
    name.split('@').next() == Some("wasi:filesystem/preopens")
}

/// An import of a component, with the functions that it wants of it.
pub(crate) fn of_component(engine: &Engine, name: &str, item: &ComponentItem) -> String {
    let ComponentItem::ComponentInstance(instance) = item else { return explained(name.to_owned(), name) };
    let is_function = |item: &ComponentItem| matches!(item, ComponentItem::ComponentFunc(_));
    let functions: Vec<&str> =
        instance.exports(engine).filter(|(_, item)| is_function(&item.ty)).map(|(name, _)| name).collect();
    let text = match functions.as_slice() {
        [] => name.to_owned(),
        some if some.len() <= FUNCTIONS => format!("{name} ({})", some.join(", ")),
        more => format!("{name} ({} and {} more)", more[..FUNCTIONS].join(", "), more.len() - FUNCTIONS),
    };
    explained(text, name)
}

/// An import of a core module.
pub(crate) fn of_module(module: &str, name: &str) -> String {
    let name = format!("{module}.{name}");
    explained(name.clone(), &name)
}

/// `text` with what its author can do about `import`, where that is known.
fn explained(text: String, import: &str) -> String {
    match hint(import) {
        Some(hint) => format!("{text} [{hint}]"),
        None => text,
    }
}

fn hint(import: &str) -> Option<&'static str> {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let package = |packages: &[&str]| packages.iter().any(|package| name.starts_with(package));
    if import.starts_with("wasi_unstable.") {
        return Some("older than preview 1: build for wasm32-wasip1");
    }
    if import.starts_with("wasi.thread") {
        return Some("threads are not offered");
    }
    if import.starts_with("__wbindgen") || import.starts_with("gojs.") || import.starts_with("go.") {
        return Some("built for a browser: build for wasm32-wasip1, wasm32-wasip2 or GOOS=wasip1");
    }
    if name.starts_with("fermyon:spin") || name.starts_with("spin:") {
        return Some("offered by Spin's own host only");
    }
    if package(&["wasi:sockets/"]) && version.starts_with("0.3.") {
        return Some("sockets are offered in version 0.2");
    }
    if version.starts_with("0.2.0-") && package(&OFFERED_0_2) {
        return Some("a draft; 0.2.0 and later are offered");
    }
    if version.starts_with("0.3.0-") && package(&OFFERED_0_3) {
        return Some("a draft; 0.3.0 and later are offered");
    }
    None
}

/// Names for a message, the first few of them.
pub(crate) fn listed(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "nothing".into(),
        more if more > SHOWN => format!("{} and {} more", shown.join(", "), more - SHOWN),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_interfaces() {
        for offered in [
            "wasi:http/types@0.2.3",
            "wasi:io/streams@0.2.12",
            "wasi:http/types@0.3.0",
            "wasi:cli/stdout@0.3.1",
            "wasi:config/store@0.2.0-rc.1",
        ] {
            assert!(is_offered(offered), "{offered}");
        }
        for missing in [
            "wasi:keyvalue/store@0.2.0",
            "wasi:sockets/types@0.3.0",
            "wasi:http/types@0.3.0-rc-2025-09-16",
            "wasi:http/types@0.2.0-rc-2023-12-05",
            "wasi:http/types@0.4.0",
            "wasi:config/store@0.2.0",
            "get-answer",
        ] {
            assert!(!is_offered(missing), "{missing}");
        }
    }

    #[test]
    fn mounts_are_had_by_one_interface() {
        assert!(is_preopens("wasi:filesystem/preopens@0.2.6") && is_preopens("wasi:filesystem/preopens@0.3.0"));
        assert!(!is_preopens("wasi:filesystem/types@0.2.6") && !is_preopens("wasi:cli/stdout@0.2.6"));
    }

    #[test]
    fn what_an_artifact_says_it_imports_is_judged_before_it_is_here() {
        let imports = ["wasi:io/streams@0.2.0", "wasi:keyvalue/store@0.2.0", "wasi:sockets/types@0.3.0", "my-type"];
        let missing = missing(&imports.map(str::to_owned));
        assert_eq!(
            missing,
            ["wasi:keyvalue/store@0.2.0", "wasi:sockets/types@0.3.0 [sockets are offered in version 0.2]"]
        );
    }

    #[test]
    fn what_an_author_can_do_is_said() {
        assert_eq!(
            of_module("wasi_unstable", "fd_write").split_once(' ').map(|(name, _)| name),
            Some("wasi_unstable.fd_write")
        );
        assert!(of_module("wasi", "thread-spawn").contains("threads"));
        assert_eq!(of_module("env", "door"), "env.door");
    }
}
