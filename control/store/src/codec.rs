//! How an entry is written down: the same bytes in the log, in checkpoints and in the index.
//!
//! Little-endian: `created` u64, `revision` u64, then resource, namespace, name and uid, each a u16 length and UTF-8,
//! then the JSON to the end, encrypted if the resource's objects are ([`crate::Vault`]). Attributes are not written: they are derived again, so that a newer version may select
//! by more.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use wherry_api::selector::Attributes;

use crate::{
    Entry, Key,
    vault::{self, Vault},
};

/// Derives what selectors look at from a stored object.
pub type Describe = Arc<dyn Fn(&Key, &Value) -> Attributes + Send + Sync>;

/// How entries are written and read.
#[derive(Clone)]
pub(crate) struct Codec {
    pub(crate) describe: Describe,
    pub(crate) vault: Option<Arc<Vault>>,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").field("vault", &self.vault).finish_non_exhaustive()
    }
}

impl Codec {
    /// The vault, if it has to do with an entry of this resource.
    fn vault_of(&self, resource: &str) -> Option<&Vault> {
        self.vault.as_deref().filter(|vault| vault.seals(resource))
    }

    /// Appends `entry` to `out`.
    pub(crate) fn put(&self, out: &mut Vec<u8>, entry: &Entry) {
        let start = out.len();
        put_place(out, entry);
        match self.vault_of(&entry.key.resource) {
            None => out.extend_from_slice(&entry.json),
            Some(vault) => {
                let place = out[start..].to_vec();
                vault.seal(&place, &entry.json, out);
            }
        }
    }

    /// How many bytes [`Codec::put`] appends.
    pub(crate) fn length(&self, entry: &Entry) -> usize {
        let texts = [&entry.key.resource, &entry.key.namespace, &entry.key.name, &entry.uid];
        let sealing = self.vault_of(&entry.key.resource).map_or(0, |_| vault::OVERHEAD);
        16 + texts.iter().map(|text| 2 + text.len()).sum::<usize>() + entry.json.len() + sealing
    }

    /// Whether [`Codec::put`] can write the entry so that it can be read back.
    pub(crate) fn fits(&self, entry: &Entry, most: usize) -> bool {
        let texts = [&entry.key.resource, &entry.key.namespace, &entry.key.name, &entry.uid];
        texts.iter().all(|text| text.len() <= usize::from(u16::MAX)) && self.length(entry) <= most
    }

    /// Something that reads entries back.
    pub(crate) fn reader(&self) -> Reader {
        Reader { codec: self.clone(), strings: std::collections::HashSet::new() }
    }
}

/// Appends what an entry has beside its JSON.
fn put_place(out: &mut Vec<u8>, entry: &Entry) {
    out.extend_from_slice(&entry.created.to_le_bytes());
    out.extend_from_slice(&entry.revision.to_le_bytes());
    for text in [&entry.key.resource, &entry.key.namespace, &entry.key.name, &entry.uid] {
        // The API's limits keep names far below; what is longer cannot be read back and fails the write before.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
}

/// Reads entries back. Shares equal strings among the entries it reads.
pub(crate) struct Reader {
    codec: Codec,
    strings: std::collections::HashSet<Arc<str>>,
}

impl Reader {
    /// Reads an entry that fills `bytes`.
    pub(crate) fn entry(&mut self, bytes: &[u8]) -> Result<Entry, &'static str> {
        let mut cursor = Cursor { bytes };
        let created = cursor.u64()?;
        let revision = cursor.u64()?;
        let (resource, namespace) = (cursor.text()?, cursor.text()?);
        let (name, uid) = (cursor.text()?, cursor.text()?);
        let key = Key { resource: self.share(resource), namespace: self.share(namespace), name: name.into() };
        let json = if vault::is_sealed(cursor.bytes) {
            let place = &bytes[..bytes.len() - cursor.bytes.len()];
            let vault = self.codec.vault.as_deref().ok_or("the object is encrypted, and no keys were given")?;
            Bytes::from(vault.unseal(place, cursor.bytes)?)
        } else {
            Bytes::copy_from_slice(cursor.bytes)
        };
        let value: Value = serde_json::from_slice(&json).map_err(|_| "the object is not JSON")?;
        let attributes = (self.codec.describe)(&key, &value);
        Ok(Entry { key, revision, created, json, attributes, uid: uid.into(), message: OnceLock::new() })
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
