//! Images of the samples.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::root;

/// The committed component of a sample.
#[must_use]
pub fn sample(name: &str) -> PathBuf {
    root().join("samples").join(name).join(format!("{name}.wasm"))
}

/// Writes an OCI layout, as a tar, of a Wasm artifact whose layer is `bytes`, whatever they are.
pub fn wasm_layout(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(File::create(file)?);
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes)
    };
    let mut blob = |media_type: &str, bytes: &[u8]| -> anyhow::Result<Value> {
        let hex = hex::encode(Sha256::digest(bytes));
        add(&format!("blobs/sha256/{hex}"), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()}))
    };
    let layer = blob("application/wasm", bytes)?;
    let config = json!({"architecture": "wasm", "os": "wasip1", "layerDigests": [layer["digest"]]});
    let config = blob("application/vnd.wasm.config.v0+json", config.to_string().as_bytes())?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
    let manifest = blob(media_type, manifest.to_string().as_bytes())?;
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", json!({"schemaVersion": 2, "manifests": [manifest]}).to_string().as_bytes())?;
    Ok(tar.finish()?)
}

/// echo's native build in an OCI image, as a tar. Built once a process, kept under the target directory.
pub fn echo_image() -> anyhow::Result<PathBuf> {
    Ok(natives()?.join("echo.tar"))
}

/// worker's native build, likewise.
pub fn worker_image() -> anyhow::Result<PathBuf> {
    Ok(natives()?.join("worker.tar"))
}

/// Where the images of native builds lie.
fn natives() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    let out = samples_dir()?;
    // Tests in several processes: one builds, the others find it done.
    let lock = std::fs::File::create(out.join("lock"))?;
    lock.lock()?;
    let samples = root().join("samples");
    let built = Command::new(samples.join("build.sh")).arg("native").env("OUT", &out).output()?;
    ensure!(built.status.success(), "samples/build.sh: {}", String::from_utf8_lossy(&built.stderr));
    for name in ["echo", "worker"] {
        let (tar, path) = (out.join(format!("{name}.tar")), format!("/bin/{name}"));
        let program = format!("{path}={}", out.join(name).display());
        let made = Command::new(samples.join("image.sh")).arg(&tar).args([path, program]).output()?;
        ensure!(made.status.success(), "samples/image.sh: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(out)
}

/// An image of programs of this machine, as a tar: `entrypoint` and pairs of the path in the image and the program. Built once, kept under the
/// target directory as `name` and what it is made of.
pub fn image_of(name: &str, entrypoint: &str, programs: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let out = samples_dir()?;
    let lock = std::fs::File::create(out.join("lock"))?;
    lock.lock()?;
    let mut hasher = DefaultHasher::new();
    (entrypoint, programs).hash(&mut hasher);
    let tar = out.join(format!("{name}-{:016x}.tar", hasher.finish()));
    if !tar.exists() {
        // Under its name only when it is whole.
        let partial = out.join(format!("{name}.partial"));
        let programs = programs.iter().map(|(path, file)| format!("{path}={file}"));
        let made =
            Command::new(root().join("samples/image.sh")).arg(&partial).arg(entrypoint).args(programs).output()?;
        ensure!(made.status.success(), "samples/image.sh: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::rename(partial, &tar)?;
    }
    Ok(tar)
}

/// In the target directory of this program, which lies in target/<profile>, or where it is a test in target/<profile>/deps.
fn samples_dir() -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let above = if binary.parent().is_some_and(|dir| dir.ends_with("deps")) { 3 } else { 2 };
    let out = binary.ancestors().nth(above).context("no target directory")?.join("samples");
    std::fs::create_dir_all(&out)?;
    Ok(out)
}
