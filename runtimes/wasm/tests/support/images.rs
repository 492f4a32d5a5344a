//! The image of a module that is in memory.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wherry_runtime::{Descriptor, Image, ImageKind};

/// The image of these bytes, whatever they are, kept in `dir`.
pub(crate) fn image(dir: &Path, bytes: &[u8]) -> Arc<Image> {
    let hex = hex::encode(Sha256::digest(bytes));
    let (digest, path) = (format!("sha256:{hex}"), dir.join(hex));
    std::fs::write(&path, bytes).unwrap();
    let layer =
        Descriptor { media_type: "application/wasm".into(), digest: digest.clone(), size: bytes.len() as u64, path };
    Arc::new(Image {
        reference: "test.local/image:latest".into(),
        id: format!("test.local/image@{digest}"),
        kind: ImageKind::Wasm,
        manifest: layer.clone(),
        config: layer.clone(),
        layers: vec![layer],
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        user: None,
    })
}
