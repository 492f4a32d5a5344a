//! The module inside a compat image: an ordinary image of tar layers whose entrypoint is a `.wasm` file.
//!
//! The layers are read, topmost first, for that one file; nothing else is unpacked, no link is followed and no
//! path is created on the node, so that the archive's other entries can do no harm.

use std::fs::File;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use crate::ImageError;
use crate::images::Limits;
use crate::kind::normal_path;
use crate::manifest::Descriptor;
use crate::media::{self, Layer};
use crate::record::Blob;
use crate::store::Store;

/// Even a small layer may unpack to this much: tar pads to 10 KiB, and zeros compress well.
const RATIO_FLOOR: u64 = 1 << 20;

/// Takes `path` out of `layers` (which are in the store) and stores it as a blob of its own.
pub(crate) fn unpack(
    store: &Store,
    what: &str,
    layers: &[Descriptor],
    path: &str,
    limits: &Limits,
) -> Result<Blob, ImageError> {
    for layer in layers.iter().rev() {
        match search(store, what, layer, path, limits)? {
            Search::Found(blob) => return Ok(blob),
            Search::Removed => break,
            Search::Absent => {}
        }
    }
    Err(ImageError::malformed(what, format!("the entrypoint /{path} is not in the image's layers")))
}

enum Search {
    Found(Blob),
    /// This layer deletes the file, or what it lies in, from the ones below.
    Removed,
    Absent,
}

fn search(store: &Store, what: &str, layer: &Descriptor, path: &str, limits: &Limits) -> Result<Search, ImageError> {
    let file = store.path(&layer.digest);
    let reader = File::open(&file).map_err(|e| ImageError::io("open", &file, e))?;
    let limit = layer.size.saturating_mul(limits.ratio).max(RATIO_FLOOR);
    let bad = |problem: String| ImageError::malformed(format!("{what}: layer {}", layer.digest), problem);
    let reader: Box<dyn Read> = match media::layer(&layer.media_type) {
        Layer::TarGzip => Box::new(MultiGzDecoder::new(io::BufReader::new(reader))),
        _ => Box::new(reader),
    };
    let mut archive = tar::Archive::new(Capped { inner: reader, left: limit });
    let mut removed = false;
    let mut count = 0;
    for entry in archive.entries().map_err(|e| bad(format!("it is not a tar archive: {e}")))? {
        let mut entry = entry.map_err(|e| bad(format!("the archive is damaged: {e}")))?;
        count += 1;
        if count > limits.entries {
            return Err(bad(format!("it has more than {} entries", limits.entries)));
        }
        let raw = entry.path_bytes();
        let Some(name) = std::str::from_utf8(&raw).ok().and_then(normal_path) else { continue };
        drop(raw);
        removed |= whites_out(&name, path);
        if name != path {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(bad(format!("the entrypoint /{path} is a link or no regular file; links are not followed")));
        }
        if entry.size() > limits.module {
            return Err(ImageError::TooLarge {
                what: format!("{what}: /{path}"),
                limit: limits.module,
                reason: "the most that a Wasm module may have",
            });
        }
        let size = entry.size();
        let mut writer = store.writer(&format!("{what}: /{path}"), size, "its size in the archive")?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match entry.read(&mut buffer).map_err(|e| bad(format!("the archive is damaged: {e}")))? {
                0 => break,
                n => writer.write(&buffer[..n])?,
            }
        }
        let digest = writer.finish(None)?;
        return Ok(Search::Found(Blob { media_type: media::WASM_LAYER.to_owned(), digest, size }));
    }
    Ok(if removed { Search::Removed } else { Search::Absent })
}

/// Whether the entry `name` is a whiteout that hides `path` in the layers below.
fn whites_out(name: &str, path: &str) -> bool {
    let (dir, base) = name.rsplit_once('/').unwrap_or(("", name));
    let within = |hidden: &str| {
        path == hidden || path.strip_prefix(hidden).is_some_and(|rest| hidden.is_empty() || rest.starts_with('/'))
    };
    match base.strip_prefix(".wh.") {
        Some(".wh..opq") => within(dir),
        Some(hidden) if dir.is_empty() => within(hidden),
        Some(hidden) => within(&format!("{dir}/{hidden}")),
        None => false,
    }
}

/// Fails, rather than ends, when more is read than was allowed: a bomb is refused, not cut.
pub(crate) struct Capped<R> {
    pub(crate) inner: R,
    pub(crate) left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::other("it unpacks to far more than its own size"))?;
        Ok(n)
    }
}
