//! OCI layouts made by hand, for what no tool makes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A tar of an OCI layout of one image: a config and a layer of these media types, of little content.
pub(crate) fn layout(dir: &Path, config: &str, layer: &str) -> anyhow::Result<PathBuf> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec())];
    let mut blob = |media_type: &str, bytes: &[u8]| -> Value {
        let digest = hex::encode(Sha256::digest(bytes));
        files.push((format!("blobs/sha256/{digest}"), bytes.to_vec()));
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let (config, layer) = (blob(config, b"{}"), blob(layer, b"content"));
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]});
    let manifest = blob(manifest_type, &serde_json::to_vec(&manifest)?);
    files.push(("index.json".to_owned(), serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [manifest]}))?));
    let path = dir.join("layout.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path)?);
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &*bytes)?;
    }
    tar.finish()?;
    Ok(path)
}
