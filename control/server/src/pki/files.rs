//! Private files: made with mode 0600, replaced by rename, synced.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::PkiError;

fn failed(path: &Path) -> impl Fn(std::io::Error) -> PkiError + '_ {
    move |source| PkiError::File { path: path.to_owned(), source }
}

/// Makes `dir` with mode 0700, and tightens it where it exists already.
pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed(dir))
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(failed(path))
}

/// The file's content, `None` if there is no such file.
pub(super) fn read_if_any(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path: path.to_owned(), source }),
    }
}

/// The names of the files in `dir`, in order.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, PkiError> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()).map_err(failed(dir))?;
    let mut names: Vec<String> = entries.iter().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Replaces `path` by `content`: whoever reads it sees all of the old or all of the new.
pub(super) fn write(path: &Path, content: &str) -> Result<(), PkiError> {
    // A bare name has an empty parent, which is no directory that could be opened.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(dir)?.sync_all()
    })();
    if result.is_err() {
        // What failed is reported below; a temporary file that cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(failed(path))
}
