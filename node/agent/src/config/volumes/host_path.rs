//! hostPath: the node's own files, checked by type.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::ConfigError;

/// The path, once it is of the type that is asked for.
pub(super) fn check(volume: &HostPathVolumeSource, field: &str) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&volume.path);
    let kind = volume.type_.as_deref().unwrap_or_default();
    let failed = |error: io::Error| ConfigError::io(format!("hostPath {}", volume.path), &error);
    let is: (fn(&Metadata) -> bool, &str) = match kind {
        "" => (|_| true, ""),
        "DirectoryOrCreate" | "Directory" => (Metadata::is_dir, "a directory"),
        "FileOrCreate" | "File" => (Metadata::is_file, "a file"),
        "Socket" => (|meta| meta.file_type().is_socket(), "a socket file"),
        "CharDevice" => (|meta| meta.file_type().is_char_device(), "a character device"),
        "BlockDevice" => (|meta| meta.file_type().is_block_device(), "a block device"),
        other => {
            let problem = format!("unknown type {other:?}");
            return Err(ConfigError::Unsupported { field: format!("{field}.hostPath.type"), problem });
        }
    };
    let found = fs::metadata(&path);
    let missing = found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    match kind {
        // Without a type nothing is checked; a missing directory is made, as container runtimes do.
        "DirectoryOrCreate" | "" if missing => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(failed)?;
            return Ok(path);
        }
        "FileOrCreate" if missing => {
            fs::OpenOptions::new().create(true).append(true).mode(0o644).open(&path).map_err(failed)?;
            return Ok(path);
        }
        _ => {}
    }
    let (fits, name) = is;
    match found {
        Ok(meta) if fits(&meta) => Ok(path),
        Err(error) if !missing => Err(failed(error)),
        _ => Err(ConfigError::Invalid(format!("hostPath type check failed: {} is not {name}", volume.path))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_its_type_or_refused_in_kubelets_words() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let try_ = |name: &str, kind: &str| {
            let volume = HostPathVolumeSource { path: at(name), type_: Some(kind.to_owned()) };
            check(&volume, "f").map(drop).map_err(|error| error.to_string().replace(&at(name), "P"))
        };
        for (name, kind) in [
            ("file", ""),
            ("file", "File"),
            ("new", "FileOrCreate"),
            ("dir", "DirectoryOrCreate"),
            ("dir", "Directory"),
            ("made", ""),
            ("socket", "Socket"),
        ] {
            assert_eq!(try_(name, kind), Ok(()), "{name} {kind}");
        }
        for (name, kind, what) in [
            ("file", "Directory", "a directory"),
            ("none", "Directory", "a directory"),
            ("dir", "File", "a file"),
            ("none", "File", "a file"),
            ("file", "Socket", "a socket file"),
            ("file", "CharDevice", "a character device"),
            ("file", "BlockDevice", "a block device"),
            ("file", "DirectoryOrCreate", "a directory"),
        ] {
            assert_eq!(try_(name, kind), Err(format!("hostPath type check failed: P is not {what}")), "{name} {kind}");
        }
        assert!(!dir.path().join("none").exists());
    }
}
