//! Checkpoints: all objects at one revision in one file, which is also the backup format.
//!
//! `<revision>.ckpt` holds a magic, the revision, the number of objects, each object as u32 length and encoded entry, and
//! the SHA-256 of all that. It is written beside its place, synced, renamed, and the directory synced: a checkpoint
//! that has its name is whole.

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use crate::{
    OpenError,
    cache::State,
    codec::{Codec, Cursor},
    files,
};

const MAGIC: [u8; 8] = *b"WHRYCKP1";
const DIGEST: usize = 32;
/// How many checkpoints are kept. The log reaches back to the oldest, so any two may be damaged.
pub(crate) const KEPT: usize = 3;

/// Writes through to a file and hashes on the way.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes `state` to `path`, which then holds either nothing new or all of it.
pub(crate) fn write(path: &Path, state: &State, codec: &Codec) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let result = write_file(&beside, state, codec).and_then(|()| fs::rename(&beside, path));
    if result.is_err() {
        // The first error is the one to tell; a leftover is removed at the next start.
        let _ = fs::remove_file(&beside);
    }
    result?;
    path.parent().map_or(Ok(()), files::sync_dir)
}

fn write_file(path: &Path, state: &State, codec: &Codec) -> io::Result<()> {
    let file = files::open_private(path)?;
    file.set_len(0)?;
    let mut out = Hashing { inner: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new() };
    let count: usize = state.tables.values().map(|table| table.len()).sum();
    out.write_all(&MAGIC)?;
    out.write_all(&state.revision.to_le_bytes())?;
    out.write_all(&(count as u64).to_le_bytes())?;
    let mut bytes = Vec::new();
    for entry in state.entries() {
        bytes.clear();
        codec.put(&mut bytes, entry);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&bytes)?;
    }
    let Hashing { mut inner, hash } = out;
    inner.write_all(&hash.finalize())?;
    let file = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

/// Reads a checkpoint; the text says why it cannot be believed.
pub(crate) fn read(path: &Path, codec: &Codec) -> Result<State, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let split = bytes.len().checked_sub(DIGEST).ok_or("it is cut off")?;
    let (body, digest) = bytes.split_at(split);
    if Sha256::digest(body).as_slice() != digest {
        return Err("its SHA-256 does not match".into());
    }
    let mut cursor = Cursor { bytes: body };
    if cursor.array()? != MAGIC {
        return Err("it is not a checkpoint of this version".into());
    }
    let mut state = State { revision: cursor.u64()?, ..State::default() };
    let count = cursor.u64()?;
    let mut reader = codec.reader();
    for _ in 0..count {
        let length = cursor.u32()?;
        state.insert(Arc::new(reader.entry(cursor.take(length as usize)?)?));
    }
    Ok(state)
}

/// The path of a checkpoint.
pub(crate) fn path(dir: &Path, revision: u64) -> PathBuf {
    dir.join(format!("{revision:020}.ckpt"))
}

/// The newest sound checkpoint. Unsound ones are set aside under another name.
pub(crate) fn newest(dir: &Path, codec: &Codec) -> Result<Option<State>, OpenError> {
    for (_, path) in files::at(dir, files::numbered(dir, "ckpt"))?.into_iter().rev() {
        match read(&path, codec) {
            Ok(state) => return Ok(Some(state)),
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "a checkpoint is damaged; an older one is used");
                let aside = path.with_extension("damaged");
                files::at(&path, fs::rename(&path, &aside))?;
            }
        }
    }
    Ok(None)
}

/// Removes all but the newest checkpoints, and the log segments that none of them needs.
pub(crate) fn prune(dir: &Path, log: &Path) -> io::Result<()> {
    let checkpoints = files::numbered(dir, "ckpt")?;
    let Some(surplus) = checkpoints.len().checked_sub(KEPT) else {
        return Ok(());
    };
    let (old, kept) = checkpoints.split_at(surplus);
    for (_, path) in old {
        fs::remove_file(path)?;
    }
    files::sync_dir(dir)?;
    let Some((oldest, _)) = kept.first() else {
        return Ok(());
    };
    let segments = files::numbered(log, "log")?;
    for pair in segments.windows(2) {
        let ((_, path), (next, _)) = (&pair[0], &pair[1]);
        if *next <= oldest + 1 {
            fs::remove_file(path)?;
        }
    }
    files::sync_dir(log)
}

/// Removes what unfinished checkpoints left behind.
pub(crate) fn sweep(dir: &Path) -> io::Result<()> {
    for (_, path) in files::numbered(dir, "tmp")? {
        fs::remove_file(path)?;
    }
    Ok(())
}
