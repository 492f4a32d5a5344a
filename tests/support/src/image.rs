//! Images of the samples.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};

use crate::root;

/// The committed component of a sample.
#[must_use]
pub fn sample(name: &str) -> PathBuf {
    root().join("samples").join(name).join(format!("{name}.wasm"))
}

/// echo's native build in an OCI image, as a tar. Built once a process, kept under the target directory.
pub fn echo_image() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    // The test's own binary lies in target/<profile>/deps.
    let binary = std::env::current_exe()?;
    let target = binary.ancestors().nth(3).context("no target directory")?;
    let out = target.join("samples");
    std::fs::create_dir_all(&out)?;
    // Tests in several processes: one builds, the others find it done.
    let lock = std::fs::File::create(out.join("lock"))?;
    lock.lock()?;
    let samples = root().join("samples");
    let built = Command::new(samples.join("build.sh")).arg("native").env("OUT", &out).output()?;
    ensure!(built.status.success(), "samples/build.sh: {}", String::from_utf8_lossy(&built.stderr));
    let tar = out.join("echo.tar");
    let program = format!("/bin/echo={}", out.join("echo").display());
    let made = Command::new(samples.join("image.sh")).arg(&tar).args(["/bin/echo", &program]).output()?;
    ensure!(made.status.success(), "samples/image.sh: {}", String::from_utf8_lossy(&made.stderr));
    Ok(tar)
}
