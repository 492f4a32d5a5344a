//! Which key the state on disk is encrypted with, and writing it anew when that changes.
//!
//! The file `sealed` names it ([`Vault::fingerprint`](crate::Vault)). A start with other keys, or with keys for the first time,
//! writes a checkpoint under the new ones, begins a new log segment and a new index, removes all that came before, and then
//! changes the file. A start without the key that the file names refuses before it touches anything.

use std::{fs, io, path::Path};

use crate::{OpenError, cache::State, checkpoint, codec::Codec, files, log::Log, recover::Layout};

const FILE: &str = "sealed";

/// Whether what is in the data directory has to be written anew.
pub(crate) fn is_outdated(dir: &Path, codec: &Codec) -> Result<bool, OpenError> {
    let path = dir.join(FILE);
    let before = match fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let now = codec.vault.as_ref().map(|vault| vault.fingerprint());
    let readable = before.as_ref().is_none_or(|before| codec.vault.as_ref().is_some_and(|vault| vault.knows(before)));
    if !readable {
        let key = before.unwrap_or_default();
        let key = key.split(' ').next().unwrap_or_default();
        let detail = format!("the state is encrypted with the key {key}, which was not given");
        return Err(OpenError::Keys { path, detail });
    }
    Ok(before != now)
}

/// Says that all of it is written as it should be from now on.
pub(crate) fn note(dir: &Path, codec: &Codec) -> Result<(), OpenError> {
    let Some(vault) = &codec.vault else {
        return Ok(());
    };
    let (path, beside) = (dir.join(FILE), dir.join("sealed.new"));
    let written = fs::write(&beside, format!("{}\n", vault.fingerprint()))
        .and_then(|()| fs::File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, &path))
        .and_then(|()| files::sync_dir(dir));
    files::at(&path, written)
}

/// Writes the state anew and removes what was written before, the index aside.
pub(crate) fn renew(layout: &Layout, log: &mut Log, state: &State, codec: &Codec) -> Result<(), OpenError> {
    files::at(&layout.log, log.roll().map_err(io::Error::other))?;
    let path = checkpoint::path(&layout.checkpoints, state.revision);
    files::at(&path, checkpoint::write(&path, state, codec))?;
    // Nothing is removed before what replaces it was read back.
    let back = checkpoint::read(&path, codec);
    let back = back.map_err(|detail| OpenError::Damaged { path: path.clone(), offset: 0, detail })?;
    if back.revision != state.revision {
        return Err(OpenError::Damaged { path, offset: 0, detail: "it is not what was written".into() });
    }
    for entry in files::at(&layout.checkpoints, fs::read_dir(&layout.checkpoints))? {
        let old = files::at(&layout.checkpoints, entry)?.path();
        if old != path {
            files::at(&old, fs::remove_file(&old))?;
        }
    }
    for (first, old) in files::at(&layout.log, files::numbered(&layout.log, "log"))? {
        if first <= state.revision {
            files::at(&old, fs::remove_file(&old))?;
        }
    }
    let synced = files::sync_dir(&layout.checkpoints).and_then(|()| files::sync_dir(&layout.log));
    files::at(&layout.log, synced)
}
