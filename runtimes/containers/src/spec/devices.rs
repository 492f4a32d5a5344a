//! The machine's devices, for a privileged container.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

/// What is a container's own, or another runtime's, below `/dev`.
const NOT_DEVICES: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
/// A `/dev` nested deeper, or with more, is no `/dev`.
const MAX_DEPTH: usize = 8;
const MAX_DEVICES: usize = 4096;

/// All of them, as the OCI specification describes devices.
pub(super) fn of_the_machine() -> Vec<Value> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found);
    found
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let known = entry.file_name().to_str().is_some_and(|name| NOT_DEVICES.contains(&name));
        // Without following links: what they lead to is found where it is. What went meanwhile is no loss.
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        let kind = match meta.file_type() {
            _ if known || found.len() == MAX_DEVICES => continue,
            kind if kind.is_dir() && depth < MAX_DEPTH => {
                collect(&entry.path(), depth + 1, found);
                continue;
            }
            kind if kind.is_char_device() => "c",
            kind if kind.is_block_device() => "b",
            _ => continue,
        };
        let device = meta.rdev();
        found.push(json!({
            "path": entry.path(),
            "type": kind,
            "major": major(device),
            "minor": minor(device),
            "fileMode": meta.mode() & 0o777,
            "uid": meta.uid(),
            "gid": meta.gid(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_a_device_and_terminals_are_not_shared() {
        let devices = of_the_machine();
        let null = devices.iter().find(|device| device["path"] == "/dev/null").cloned().unwrap_or_default();
        assert_eq!((&null["type"], &null["major"], &null["minor"]), (&json!("c"), &json!(1), &json!(3)));
        let inside = |device: &Value, dir: &str| device["path"].as_str().is_some_and(|path| path.starts_with(dir));
        assert!(!devices.iter().any(|device| inside(device, "/dev/pts/")));
    }
}
