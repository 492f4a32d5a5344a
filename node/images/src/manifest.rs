//! Manifests, indexes and image configs, as far as a node reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reference::is_digest;
use crate::{ImageError, media};

/// More layers than any tool writes; overlayfs itself stops at 500.
const MAX_LAYERS: usize = 500;
const MAX_INDEX_ENTRIES: usize = 1000;

/// A reference to content, as manifests hold it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// What a Wasm artifact's config says of its component.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WasmConfig {
    pub(crate) component: WasmComponent,
}

/// A component, summed up.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WasmComponent {
    pub(crate) imports: Vec<String>,
}

/// What an image is built for.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

impl Platform {
    /// Debian's and Go's name for this machine's architecture.
    pub(crate) fn native() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    pub(crate) fn is_wasm(&self) -> bool {
        matches!(self.architecture.as_str(), "wasm" | "wasm32")
            || matches!(self.os.as_str(), "wasi" | "wasip1" | "wasip2" | "wasip3")
    }

    pub(crate) fn is_native(&self) -> bool {
        let native = Self::native();
        let variant = native.architecture != "arm64" || self.variant.as_deref().is_none_or(|v| matches!(v, "" | "v8"));
        self.os == native.os && self.architecture == native.architecture && variant
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// One image of one platform.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// One image for several platforms.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a registry answers for a reference.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Reads a manifest or index. The document's own `mediaType` goes before the server's `Content-Type`, since
    /// the digest covers it.
    pub(crate) fn parse(what: &str, bytes: &[u8], content_type: Option<&str>) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            schema_version: u32,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let bad = |e: serde_json::Error| ImageError::malformed(what, format!("the manifest can't be read: {e}"));
        let head: Head = serde_json::from_slice(bytes).map_err(bad)?;
        let media_type = head.media_type.as_deref().or(content_type).unwrap_or_default();
        let is_index = match media_type {
            media::OCI_INDEX | media::DOCKER_LIST => true,
            media::OCI_MANIFEST | media::DOCKER_MANIFEST => false,
            // Neither says: an OCI document need not name its type.
            _ if head.schema_version == 2 && head.layers.is_some() => false,
            _ if head.schema_version == 2 && head.manifests.is_some() => true,
            _ => {
                let old = head.schema_version == 1;
                let hint = if old {
                    "push it again with a current tool: Docker's schema 1 is not supported"
                } else {
                    "an OCI or Docker (schema 2) image is needed"
                };
                return Err(ImageError::Unsupported {
                    what: what.into(),
                    media_type: media_type.into(),
                    hint: hint.into(),
                });
            }
        };
        // A document that is an index to one reader and a manifest to another is an attack (CVE-2021-41190).
        if head.manifests.is_some() && head.layers.is_some() {
            return Err(ImageError::malformed(what, "the manifest is both an index and an image"));
        }
        let document = if is_index {
            Self::Index(serde_json::from_slice(bytes).map_err(bad)?)
        } else {
            Self::Manifest(serde_json::from_slice(bytes).map_err(bad)?)
        };
        document.check(what)?;
        Ok(document)
    }

    fn check(&self, what: &str) -> Result<(), ImageError> {
        let (descriptors, limit): (Vec<&Descriptor>, usize) = match self {
            Self::Manifest(manifest) => {
                (std::iter::once(&manifest.config).chain(&manifest.layers).collect(), MAX_LAYERS + 1)
            }
            Self::Index(index) => (index.manifests.iter().collect(), MAX_INDEX_ENTRIES),
        };
        if descriptors.len() > limit {
            return Err(ImageError::malformed(
                what,
                format!("the manifest has {} entries; at most {limit} are accepted", descriptors.len()),
            ));
        }
        match descriptors.iter().find(|descriptor| !is_digest(&descriptor.digest)) {
            Some(odd) => {
                let digest: String = odd.digest.chars().take(100).collect();
                Err(ImageError::malformed(
                    what,
                    format!("the manifest names content by {digest:?}; only sha256 digests are accepted"),
                ))
            }
            None => Ok(()),
        }
    }
}

impl Index {
    /// The entry for this node: its own platform, else a Wasm one, else the only one that does not say.
    pub(crate) fn pick(&self, what: &str) -> Result<&Descriptor, ImageError> {
        let platform = |wanted: fn(&Platform) -> bool| {
            self.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(wanted))
        };
        // Attestations stand in an index as images for unknown/unknown.
        let mut silent = self
            .manifests
            .iter()
            .filter(|entry| entry.platform.as_ref().is_none_or(|p| p.os.is_empty() && p.architecture.is_empty()));
        let only = || silent.next().filter(|_| silent.next().is_none());
        platform(Platform::is_native).or_else(|| platform(Platform::is_wasm)).or_else(only).ok_or_else(|| {
            let mut found: Vec<String> =
                self.manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect();
            found.dedup();
            found.truncate(20);
            let found = if found.is_empty() { "no platform".to_owned() } else { found.join(", ") };
            ImageError::Platform { what: what.into(), wanted: format!("{} or wasm", Platform::native()), found }
        })
    }
}

/// An image's config blob: what it is built for and how it starts.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(flatten)]
    pub(crate) platform: Platform,
    #[serde(default)]
    pub(crate) config: Option<ExecConfig>,
}

/// How an image starts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ExecConfig {
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<String>,
}

impl ImageConfig {
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        serde_json::from_slice(bytes)
            .map_err(|e| ImageError::malformed(what, format!("the image's config can't be read: {e}")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entry(os: &str, architecture: &str, fill: char) -> serde_json::Value {
        json!({"mediaType": media::OCI_MANIFEST, "digest": format!("sha256:{}", fill.to_string().repeat(64)), "size": 1,
            "platform": {"os": os, "architecture": architecture}})
    }

    fn index(entries: &[serde_json::Value]) -> Index {
        let bytes = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries}).to_string();
        match Document::parse("x", bytes.as_bytes(), None).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("not an index"),
        }
    }

    #[test]
    fn the_nodes_own_platform_goes_before_wasm_and_wasm_before_nothing() {
        let native = Platform::native().architecture;
        let all = [
            entry("windows", "amd64", 'a'),
            entry("wasi", "wasm", 'b'),
            entry("linux", &native, 'c'),
            entry("unknown", "unknown", 'd'),
        ];
        assert!(index(&all).pick("x").unwrap().digest.ends_with('c'));
        assert!(index(&all[..2]).pick("x").unwrap().digest.ends_with('b'));
        let text = index(&all[..1]).pick("x").unwrap_err().to_string();
        assert!(text.contains("windows/amd64") && text.contains("linux/"), "{text}");
    }

    #[test]
    fn ambiguous_and_odd_documents_are_refused() {
        let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).to_string();
        assert!(Document::parse("x", both.as_bytes(), Some(media::OCI_INDEX)).is_err());
        let old = json!({"schemaVersion": 1, "fsLayers": []}).to_string();
        assert!(matches!(Document::parse("x", old.as_bytes(), None), Err(ImageError::Unsupported { .. })));
        let path = json!({"schemaVersion": 2, "config": {"mediaType": "a", "digest": "sha256:../../etc/passwd", "size": 1}, "layers": []}).to_string();
        assert!(matches!(Document::parse("x", path.as_bytes(), None), Err(ImageError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}a-zA-Z0-9\":, ]{0,100}") {
            let _ = Document::parse("x", &bytes, None);
            let _ = Document::parse("x", json.as_bytes(), Some(media::OCI_INDEX));
            let _ = ImageConfig::parse("x", &bytes);
        }
    }
}
