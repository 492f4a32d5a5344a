//! A `.wasm` file as an OCI artifact, in the form that the CNCF's Wasm working group gave it.

use std::collections::BTreeSet;

use serde_json::json;
use wasmparser::{Encoding, Parser, Payload};

use crate::manifest::{Descriptor, Manifest};
use crate::pull::RawManifest;
use crate::store::Store;
use crate::{ImageError, media};

/// Whether a file is a module or component, by its first bytes.
pub(crate) fn is_wasm(head: &[u8]) -> bool {
    head.starts_with(b"\0asm")
}

/// Stores the module, its config and its manifest. The same module always makes the same digests.
pub(crate) fn store(store: &Store, what: &str, wasm: &[u8]) -> Result<RawManifest, ImageError> {
    let shape = Shape::of(what, wasm)?;
    let layer = descriptor(media::WASM_LAYER, store.put(what, wasm)?, wasm.len());
    let mut config = json!({
        "architecture": "wasm",
        "os": if shape.is_component { "wasip2" } else { "wasip1" },
        "layerDigests": [layer.digest],
    });
    if shape.is_component {
        config["component"] = json!({"exports": shape.exports, "imports": shape.imports});
    }
    let config = config.to_string();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.to_owned()),
        config: descriptor(media::WASM_CONFIG, store.put(what, config.as_bytes())?, config.len()),
        layers: vec![layer],
        annotations: None,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| ImageError::malformed(what, e.to_string()))?;
    Ok(RawManifest { digest: store.put(what, &bytes)?, media_type: manifest.media_type, bytes })
}

fn descriptor(media_type: &str, digest: String, size: usize) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size: size as u64, platform: None, annotations: None }
}

/// What a registry's visitor wants to know of a component.
#[derive(Debug, Default)]
struct Shape {
    is_component: bool,
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
}

impl Shape {
    /// Reads the outermost sections only; whether the code is valid is the runtime's to say.
    fn of(what: &str, wasm: &[u8]) -> Result<Self, ImageError> {
        let bad = |problem: String| {
            ImageError::malformed(what, format!("it is not a WebAssembly module or component: {problem}"))
        };
        let mut shape = Self::default();
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(|e| bad(e.message().to_owned()))? {
                Payload::Version { encoding, .. } if depth == 0 => shape.is_component = encoding == Encoding::Component,
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        shape.imports.insert(import.map_err(|e| bad(e.message().to_owned()))?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        shape.exports.insert(export.map_err(|e| bad(e.message().to_owned()))?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(shape)
    }
}
