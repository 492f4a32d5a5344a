//! What is in sled, and the proof that it is right.
//!
//! ```text
//! "m"                                           -> version u32, revision u64, objects u64, sum u128, CRC32C u32
//! "e" resource 0 namespace 0 name 0 chunk u32   -> 32 KiB of the encoded entry
//! ```
//! `sum` adds up a hash of every entry. It changes with every lost, stale, doubled or altered one, and is kept up to
//! date without reading anything back. While changes are under way the meta record is absent.

use std::{path::Path, sync::Arc};

use crc32c::crc32c;
use imbl::ordmap::DiffItem;
use sha2::{Digest as _, Sha256};

use crate::{
    Entry, Key,
    cache::State,
    codec::{Codec, Cursor, Reader},
};

const META: &[u8] = b"m";
const VERSION: u32 = 1;
const CHUNK: usize = 32 << 10;
const CACHE: u64 = 64 << 20;
/// How many bytes go into one batch of sled's.
const BATCH: usize = 1 << 20;

/// An open sled and the state it holds.
pub(super) struct Content {
    db: sled::Db,
    codec: Codec,
    state: State,
    count: u64,
    sum: u128,
}

impl Content {
    /// An empty one.
    pub(super) fn create(path: &Path, codec: &Codec) -> Result<Self, String> {
        let content = Self { db: open(path)?, codec: codec.clone(), state: State::default(), count: 0, sum: 0 };
        match content.db.is_empty() {
            true => Ok(content),
            false => Err("a new index is not empty".into()),
        }
    }

    /// Reads all of it and proves it. Without a state if it holds nothing yet.
    pub(super) fn load(path: &Path, codec: &Codec) -> Result<(Self, Option<State>), String> {
        let db = open(path)?;
        let Some(meta) = db.get(META).map_err(text)? else {
            if db.is_empty() {
                let (state, count, sum) = (State::default(), 0, 0);
                return Ok((Self { db, codec: codec.clone(), state, count, sum }, None));
            }
            return Err("it was not finished".into());
        };
        let (revision, count, sum) = decode_meta(&meta)?;
        let mut content =
            Self { db, codec: codec.clone(), state: State { revision, ..State::default() }, count: 0, sum: 0 };
        let mut reader = codec.reader();
        let mut bytes = Vec::new();
        let mut place = Vec::new();
        for pair in content.db.scan_prefix(b"e") {
            let (key, chunk) = pair.map_err(text)?;
            let (prefix, number) = key.split_at(key.len().checked_sub(4).ok_or("a key is cut off")?);
            if number == [0; 4] {
                content.take(&mut reader, &place, &bytes)?;
                bytes.clear();
                place = prefix.to_vec();
            } else if prefix != place {
                return Err("a chunk belongs to no object".into());
            }
            bytes.extend_from_slice(&chunk);
        }
        content.take(&mut reader, &place, &bytes)?;
        if (content.count, content.sum) != (count, sum) {
            return Err(format!("its content does not match its checksum at revision {revision}"));
        }
        let state = content.state.clone();
        Ok((content, Some(state)))
    }

    /// Takes in an entry that was read, with its chunks put together.
    fn take(&mut self, reader: &mut Reader, place: &[u8], bytes: &[u8]) -> Result<(), String> {
        if place.is_empty() {
            return Ok(());
        }
        let entry = reader.entry(bytes)?;
        if prefix(&entry.key) != place {
            return Err("an object lies under another's key".into());
        }
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash(bytes));
        self.state.insert(Arc::new(entry));
        Ok(())
    }

    /// Makes sled hold `state`.
    pub(super) fn advance(&mut self, state: &State) -> Result<(), String> {
        self.db.remove(META).map_err(text)?;
        let old = std::mem::take(&mut self.state);
        let mut batch = Changes { db: &self.db, batch: sled::Batch::default(), bytes: 0 };
        let (mut count, mut sum) = (self.count, self.sum);
        for change in old.tables.diff(&state.tables) {
            let none = crate::cache::Table::new();
            let (before, after) = match change {
                DiffItem::Add(_, after) => (&none, after),
                DiffItem::Remove(_, before) => (before, &none),
                DiffItem::Update { old: (_, before), new: (_, after) } => (before, after),
            };
            for change in before.diff(after) {
                let (gone, new) = match change {
                    DiffItem::Add(_, new) => (None, Some(new)),
                    DiffItem::Remove(_, gone) => (Some(gone), None),
                    DiffItem::Update { old: (_, gone), new: (_, new) } => (Some(gone), Some(new)),
                };
                let chunks = gone.map_or(0, |entry| self.codec.length(entry).div_ceil(CHUNK));
                if let Some(entry) = gone {
                    count -= 1;
                    sum = sum.wrapping_sub(hash(&encode(&self.codec, entry)));
                }
                let mut written = 0;
                if let Some(entry) = new {
                    let bytes = encode(&self.codec, entry);
                    count += 1;
                    sum = sum.wrapping_add(hash(&bytes));
                    written = batch.put(&entry.key, &bytes)?;
                }
                if let Some(entry) = gone {
                    batch.remove(&entry.key, written..chunks)?;
                }
            }
        }
        batch.apply()?;
        self.db.insert(META, encode_meta(state.revision, count, sum)).map_err(text)?;
        self.db.flush().map_err(text)?;
        (self.state, self.count, self.sum) = (state.clone(), count, sum);
        Ok(())
    }
}

/// Changes on their way to sled, a bounded batch at a time.
struct Changes<'a> {
    db: &'a sled::Db,
    batch: sled::Batch,
    bytes: usize,
}

impl Changes<'_> {
    /// Writes an entry and says in how many chunks.
    fn put(&mut self, key: &Key, bytes: &[u8]) -> Result<usize, String> {
        let prefix = prefix(key);
        for (number, chunk) in bytes.chunks(CHUNK).enumerate() {
            self.batch.insert(chunk_key(&prefix, number), chunk);
            self.grow(chunk.len() + prefix.len())?;
        }
        Ok(bytes.len().div_ceil(CHUNK))
    }

    fn remove(&mut self, key: &Key, chunks: std::ops::Range<usize>) -> Result<(), String> {
        let prefix = prefix(key);
        for number in chunks {
            self.batch.remove(chunk_key(&prefix, number));
            self.grow(prefix.len())?;
        }
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes += bytes;
        if self.bytes >= BATCH { self.apply() } else { Ok(()) }
    }

    fn apply(&mut self) -> Result<(), String> {
        self.bytes = 0;
        self.db.apply_batch(std::mem::take(&mut self.batch)).map_err(text)
    }
}

fn open(path: &Path) -> Result<sled::Db, String> {
    sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).open().map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn prefix(key: &Key) -> Vec<u8> {
    let mut out = vec![b'e'];
    for part in [&key.resource, &key.namespace, &key.name] {
        out.extend_from_slice(part.as_bytes());
        out.push(0);
    }
    out
}

fn chunk_key(prefix: &[u8], number: usize) -> Vec<u8> {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    [prefix, &number.to_be_bytes()].concat()
}

fn encode(codec: &Codec, entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(codec.length(entry));
    codec.put(&mut out, entry);
    out
}

fn hash(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

fn encode_meta(revision: u64, count: u64, sum: u128) -> Vec<u8> {
    let mut out = VERSION.to_le_bytes().to_vec();
    out.extend_from_slice(&revision.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&sum.to_le_bytes());
    let check = crc32c(&out);
    out.extend_from_slice(&check.to_le_bytes());
    out
}

fn decode_meta(bytes: &[u8]) -> Result<(u64, u64, u128), String> {
    let (body, check) = bytes.split_at_checked(36).ok_or("its record of itself is cut off")?;
    if check != crc32c(body).to_le_bytes() {
        return Err("its record of itself is damaged".into());
    }
    let mut cursor = Cursor { bytes: body };
    if cursor.u32()? != VERSION {
        return Err("it is of another version".into());
    }
    Ok((cursor.u64()?, cursor.u64()?, u128::from_le_bytes(cursor.array()?)))
}
