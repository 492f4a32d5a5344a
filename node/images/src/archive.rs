//! Images in tar files: an OCI layout, or what `docker save` writes.
//!
//! The tar is read once, front to back: every file in it becomes a blob under its own digest; the few documents
//! that say how they belong together are kept in memory until the end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use crate::compat::Capped;
use crate::images::Limits;
use crate::kind::normal_path;
use crate::manifest::{Descriptor, Document, Index, Manifest};
use crate::pull::RawManifest;
use crate::reference::is_digest;
use crate::store::Store;
use crate::{ImageError, Reference, media};

/// Reads the archive into the store; returns the manifest or index that the whole of it stands for.
pub(crate) fn read(
    store: &Store,
    file: &Path,
    reference: &Reference,
    limits: &Limits,
) -> Result<RawManifest, ImageError> {
    let what = file.display().to_string();
    let bad = |problem: String| ImageError::malformed(&*what, problem);
    let opened = File::open(file).map_err(|e| ImageError::io("open", file, e))?;
    let size = opened.metadata().map_err(|e| ImageError::io("read", file, e))?.len();
    let mut reader = BufReader::with_capacity(256 * 1024, opened);
    let head = reader.fill_buf().map_err(|e| ImageError::io("read", file, e))?;
    let gzip = head.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) };
    let left = if gzip { size.saturating_mul(limits.ratio).max(1 << 20) } else { size };
    let mut archive = tar::Archive::new(Capped { inner: reader, left });

    let mut contents = Contents::default();
    let mut count = 0;
    for entry in archive.entries().map_err(|e| bad(format!("it is not a tar archive: {e}")))? {
        let mut entry = entry.map_err(|e| bad(format!("it is not a tar archive, or damaged: {e}")))?;
        count += 1;
        if count > limits.entries {
            return Err(bad(format!("it has more than {} entries", limits.entries)));
        }
        let raw = entry.path_bytes().into_owned();
        let Some(name) = std::str::from_utf8(&raw).ok().and_then(normal_path) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            contents.add_link(name, &entry.link_name_bytes().unwrap_or_default(), kind.is_hard_link());
        } else if kind.is_file() {
            contents.add(store, name, &mut entry, &what, limits)?;
        }
    }
    contents.conclude(store, &what, reference, limits)
}

/// What the archive turned out to hold.
#[derive(Default)]
struct Contents {
    documents: HashMap<String, Vec<u8>>,
    files: HashMap<String, Stored>,
    /// Older versions of `docker save` write a layer that occurs twice as a link to the first.
    links: HashMap<String, String>,
}

#[derive(Clone)]
struct Stored {
    digest: String,
    size: u64,
    gzip: bool,
}

impl Contents {
    fn add_link(&mut self, name: String, target: &[u8], hard: bool) {
        let Ok(target) = std::str::from_utf8(target) else { return };
        let dir = if hard { "" } else { name.rsplit_once('/').map_or("", |(dir, _)| dir) };
        if let Some(target) = normal_path(&format!("{dir}/{target}")) {
            self.links.insert(name, target);
        }
    }

    fn add(
        &mut self,
        store: &Store,
        name: String,
        entry: &mut impl Read,
        what: &str,
        limits: &Limits,
    ) -> Result<(), ImageError> {
        let damaged = |e: std::io::Error| ImageError::malformed(what, format!("{name}: the archive is damaged: {e}"));
        if matches!(name.as_str(), "index.json" | "manifest.json" | "oci-layout") {
            let mut bytes = Vec::new();
            entry.take(limits.manifest + 1).read_to_end(&mut bytes).map_err(damaged)?;
            if bytes.len() as u64 > limits.manifest {
                return Err(ImageError::TooLarge {
                    what: format!("{what}: {name}"),
                    limit: limits.manifest,
                    reason: "the most that a manifest may have",
                });
            }
            self.documents.insert(name, bytes);
            return Ok(());
        }
        let mut writer = store.writer(&format!("{what}: {name}"), limits.layer, "the most that a layer may have")?;
        let mut buffer = vec![0; 128 * 1024];
        let mut gzip = false;
        loop {
            let n = entry.read(&mut buffer).map_err(damaged)?;
            if n == 0 {
                break;
            }
            if writer.written() == 0 {
                gzip = buffer[..n].starts_with(&[0x1f, 0x8b]);
            }
            writer.write(&buffer[..n])?;
        }
        let size = writer.written();
        let claimed =
            name.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}")).filter(|digest| is_digest(digest));
        let digest = writer.finish(claimed.as_deref())?;
        self.files.insert(name, Stored { digest, size, gzip });
        Ok(())
    }

    fn conclude(
        self,
        store: &Store,
        what: &str,
        reference: &Reference,
        limits: &Limits,
    ) -> Result<RawManifest, ImageError> {
        if let (Some(index), true) = (self.documents.get("index.json"), self.documents.contains_key("oci-layout")) {
            return oci_top(store, what, index, reference, limits);
        }
        match self.documents.get("manifest.json") {
            Some(manifest) => self.docker_top(store, what, manifest, reference),
            None => Err(ImageError::malformed(
                what,
                "it is neither an OCI layout (index.json) nor a docker archive (manifest.json)",
            )),
        }
    }

    /// An OCI manifest for the image of a docker archive.
    fn docker_top(
        &self,
        store: &Store,
        what: &str,
        bytes: &[u8],
        reference: &Reference,
    ) -> Result<RawManifest, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let bad = |problem: String| ImageError::malformed(what, problem);
        let saved: Vec<Saved> =
            serde_json::from_slice(bytes).map_err(|e| bad(format!("manifest.json can't be read: {e}")))?;
        let tagged = |saved: &&Saved| {
            saved.repo_tags.iter().flatten().any(|tag| tag.parse::<Reference>().is_ok_and(|tag| tag == *reference))
        };
        let saved = match saved.as_slice() {
            [one] => one,
            many => many
                .iter()
                .find(tagged)
                .ok_or_else(|| bad(format!("it holds {} images, none of them named {reference}", many.len())))?,
        };
        let file = |name: &str| {
            let mut name = normal_path(name).unwrap_or_default();
            if let Some(target) = self.links.get(&name) {
                name.clone_from(target);
            }
            self.files.get(&name).cloned().ok_or_else(|| bad(format!("{name} is named in manifest.json but missing")))
        };
        let descriptor = |media_type: &str, stored: Stored| Descriptor {
            media_type: media_type.to_owned(),
            digest: stored.digest,
            size: stored.size,
            platform: None,
            annotations: None,
        };
        let layers = saved.layers.iter().map(|name| {
            let stored = file(name)?;
            Ok(descriptor(if stored.gzip { media::OCI_LAYER_GZIP } else { media::OCI_LAYER }, stored))
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            config: descriptor(media::OCI_CONFIG, file(&saved.config)?),
            layers: layers.collect::<Result<_, ImageError>>()?,
            annotations: None,
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|e| bad(e.to_string()))?;
        Ok(RawManifest { digest: store.put(what, &bytes)?, media_type: manifest.media_type, bytes })
    }
}

/// The manifest or index that an OCI layout's `index.json` stands for: its only entry, the one that is named as wanted, or
/// the index itself where its entries are one image's platforms.
fn oci_top(
    store: &Store,
    what: &str,
    bytes: &[u8],
    reference: &Reference,
    limits: &Limits,
) -> Result<RawManifest, ImageError> {
    let index: Index = match Document::parse(what, bytes, Some(media::OCI_INDEX))? {
        Document::Index(index) => index,
        Document::Manifest(_) => return Err(ImageError::malformed(what, "index.json is not an index")),
    };
    let named = |entry: &&Descriptor| {
        let annotation = |key: &str| entry.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
        annotation("io.containerd.image.name")
            .is_some_and(|name| name.parse::<Reference>().is_ok_and(|name| name == *reference))
            || annotation("org.opencontainers.image.ref.name").is_some_and(|name| {
                Some(name) == reference.tag() || name.parse::<Reference>().is_ok_and(|name| name == *reference)
            })
    };
    let one = match index.manifests.as_slice() {
        [] => return Err(ImageError::malformed(what, "index.json names no image")),
        [one] => Some(one),
        many => many.iter().find(named),
    };
    match one {
        Some(entry) => {
            let bytes = store.read(&entry.digest, limits.manifest).map_err(|_| {
                ImageError::malformed(what, format!("{} is named in index.json but missing", entry.digest))
            })?;
            Ok(RawManifest { digest: entry.digest.clone(), media_type: Some(entry.media_type.clone()), bytes })
        }
        None if index.manifests.iter().all(|entry| entry.platform.is_some()) => Ok(RawManifest {
            digest: store.put(what, bytes)?,
            media_type: Some(media::OCI_INDEX.to_owned()),
            bytes: bytes.to_vec(),
        }),
        None => Err(ImageError::malformed(
            what,
            format!("it holds {} images, none of them named {reference}", index.manifests.len()),
        )),
    }
}
