//! How an entry is written down: the same bytes in the log, in checkpoints and in the index.
//!
//! Little-endian: `created` u64, `revision` u64, then resource, namespace, name and uid, each a u16 length and UTF-8,
//! then the JSON to the end. Attributes are not written: they are derived again, so that a newer version may select
//! by more.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use wherry_api::selector::Attributes;

use crate::{Entry, Key};

/// Derives what selectors look at from a stored object.
pub type Describe = Arc<dyn Fn(&Key, &Value) -> Attributes + Send + Sync>;

/// Appends `entry` to `out`.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.extend_from_slice(&entry.created.to_le_bytes());
    out.extend_from_slice(&entry.revision.to_le_bytes());
    for text in [&entry.key.resource, &entry.key.namespace, &entry.key.name, &entry.uid] {
        // The API's limits keep names far below; what is longer cannot be read back and fails the write before.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
    out.extend_from_slice(&entry.json);
}

/// How many bytes [`put_entry`] appends.
pub(crate) fn entry_len(entry: &Entry) -> usize {
    let texts = [&entry.key.resource, &entry.key.namespace, &entry.key.name, &entry.uid];
    16 + texts.iter().map(|text| 2 + text.len()).sum::<usize>() + entry.json.len()
}

/// Whether [`put_entry`] can write the entry so that it can be read back.
pub(crate) fn fits(entry: &Entry, most: usize) -> bool {
    let texts = [&entry.key.resource, &entry.key.namespace, &entry.key.name, &entry.uid];
    texts.iter().all(|text| text.len() <= usize::from(u16::MAX)) && entry_len(entry) <= most
}

/// Reads entries back. Shares equal strings among the entries it reads.
pub(crate) struct Reader {
    describe: Describe,
    strings: std::collections::HashSet<Arc<str>>,
}

impl Reader {
    pub(crate) fn new(describe: Describe) -> Self {
        Self { describe, strings: std::collections::HashSet::new() }
    }

    /// Reads an entry that fills `bytes`.
    pub(crate) fn entry(&mut self, bytes: &[u8]) -> Result<Entry, &'static str> {
        let mut cursor = Cursor { bytes };
        let created = cursor.u64()?;
        let revision = cursor.u64()?;
        let (resource, namespace) = (cursor.text()?, cursor.text()?);
        let (name, uid) = (cursor.text()?, cursor.text()?);
        let key = Key { resource: self.share(resource), namespace: self.share(namespace), name: name.into() };
        let value: Value = serde_json::from_slice(cursor.bytes).map_err(|_| "the object is not JSON")?;
        let attributes = (self.describe)(&key, &value);
        let json = Bytes::copy_from_slice(cursor.bytes);
        Ok(Entry { key, revision, created, json, attributes, uid: uid.into() })
    }

    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.strings.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = text.into();
        self.strings.insert(shared.clone());
        shared
    }
}

/// Reads numbers and strings off the front of a slice.
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or("the entry is cut off")?;
        self.bytes = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| "the entry is cut off")
    }

    pub(crate) fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        let length = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.take(length.into())?).map_err(|_| "a name is not UTF-8")
    }
}
