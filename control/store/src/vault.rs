//! Encryption at rest: what of the state nobody may read from a copy of the disk.
//!
//! The objects of some resources (Secrets) are written encrypted, AES-256-GCM, wherever they are written: log, checkpoints,
//! backups, index. The keys are in a file of their own, one a line, 64 hexadecimal digits; the first encrypts, all decrypt. To
//! change keys, put a new line first and start: everything is then written anew under the first key ([`Vault::fingerprint`]), and
//! after that start the others may go.
//!
//! ```text
//! magic "\0WSEAL1" | key id 8 | nonce 12 | ciphertext and tag
//! ```
//! Where and at which revision the object lies is authenticated with it, so that no value can be put in another's place. The
//! nonce is derived from all of that under a key of its own: equal bytes are encrypted equally, which the index's checksum
//! needs, and a revision that is used again after a restore does no harm.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hmac,
    rand::{SecureRandom as _, SystemRandom},
};

use crate::{OpenError, files};

const MAGIC: &[u8; 7] = b"\0WSEAL1";
const ID: usize = 8;
const HEAD: usize = MAGIC.len() + ID + NONCE_LEN;
const TAG: usize = 16;
/// How many bytes a sealed value is longer.
pub(crate) const OVERHEAD: usize = HEAD + TAG;

struct Key {
    id: [u8; ID],
    seal: LessSafeKey,
    nonces: hmac::Key,
}

/// The keys, and which resources are encrypted.
pub struct Vault {
    keys: Vec<Key>,
    resources: Vec<String>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("keys", &self.keys.len()).field("resources", &self.resources).finish()
    }
}

impl Vault {
    /// The keys in the file at `path`, which is made with a fresh key, for the eyes of its owner only, if it is not there. The
    /// objects of `resources` (storage group-resources, such as `secrets`) are encrypted.
    pub fn open(path: &Path, resources: &[&str]) -> Result<Self, OpenError> {
        if !path.exists() {
            create(path).map_err(|source| OpenError::Io { path: path.to_path_buf(), source })?;
        }
        let text = files::at(path, fs::read_to_string(path))?;
        let keys: Result<Vec<Key>, String> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Key::new(line).ok_or_else(|| "a line is no key: 64 hexadecimal digits".to_owned()))
            .collect();
        let keys =
            keys.and_then(|keys| if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(keys) });
        let keys = keys.map_err(|detail| OpenError::Keys { path: path.to_path_buf(), detail })?;
        Ok(Self { keys, resources: resources.iter().map(|r| (*r).to_owned()).collect() })
    }

    /// Names the key that encrypts and what is encrypted: if it differs from that of the last start, all is to be written anew.
    pub(crate) fn fingerprint(&self) -> String {
        let first = self.keys.first().map(|key| hex::encode(key.id)).unwrap_or_default();
        format!("{first} {}", self.resources.join(","))
    }

    /// Whether what was written at a start with this fingerprint can be read.
    pub(crate) fn knows(&self, fingerprint: &str) -> bool {
        let id = fingerprint.split(' ').next().unwrap_or_default();
        self.keys.iter().any(|key| hex::encode(key.id) == id)
    }

    /// Whether the objects of a resource are encrypted.
    pub(crate) fn seals(&self, resource: &str) -> bool {
        self.resources.iter().any(|sealed| sealed == resource)
    }

    /// Appends `plain`, encrypted, to `out`. `place` is authenticated with it.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        // There is a key in every vault.
        let Some(key) = self.keys.first() else {
            return;
        };
        let nonce = key.nonce(place, plain);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&key.id);
        out.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        // Fails only for what is longer than AES-GCM can take, 64 GiB.
        if key.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed).is_ok()
        {
            out.extend_from_slice(&sealed);
        }
    }

    /// What was sealed.
    pub(crate) fn unseal(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (head, body) = sealed.split_at_checked(HEAD).ok_or("the encrypted object is cut off")?;
        let (id, nonce) = head[MAGIC.len()..].split_at(ID);
        let missing = "the object is encrypted with a key that is not in the key file";
        let key = self.keys.iter().find(|key| key.id == id).ok_or(missing)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| "the encrypted object is cut off")?;
        let mut plain = body.to_vec();
        let length = key
            .seal
            .open_in_place(nonce, Aad::from(place), &mut plain)
            .map_err(|_| "the encrypted object is not what was written there")?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

/// Whether stored bytes are encrypted; JSON never begins so.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

impl Key {
    fn new(line: &str) -> Option<Self> {
        let bytes: [u8; 32] = hex::decode(line).ok()?.try_into().ok()?;
        let root = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let derive = |purpose: &[u8]| hmac::sign(&root, purpose);
        let seal = UnboundKey::new(&AES_256_GCM, derive(b"wherry seal").as_ref()).ok()?;
        let mut id = [0; ID];
        id.copy_from_slice(&digest::digest(&digest::SHA256, derive(b"wherry id").as_ref()).as_ref()[..ID]);
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, derive(b"wherry nonce").as_ref());
        Some(Self { id, seal: LessSafeKey::new(seal), nonces })
    }

    fn nonce(&self, place: &[u8], plain: &[u8]) -> [u8; NONCE_LEN] {
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&(place.len() as u64).to_le_bytes());
        context.update(place);
        context.update(plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&context.sign().as_ref()[..NONCE_LEN]);
        nonce
    }
}

fn create(path: &Path) -> io::Result<()> {
    let mut key = [0_u8; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("no random numbers can be had"))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files::create_dir(parent)?;
    }
    // Whole or not at all: state that is encrypted with a key that a power cut took would be lost.
    let beside = path.with_extension("new");
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(
        file,
        "# Keys of Secrets at rest: the first encrypts, all decrypt. Without this file they cannot be read."
    )?;
    writeln!(file, "{}", hex::encode(key))?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), files::sync_dir)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_sealed_opens_at_its_place_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join("keys"), &["secrets"]).unwrap();
        let mut sealed = Vec::new();
        vault.seal(b"here", b"{plain}", &mut sealed);
        assert!(is_sealed(&sealed) && sealed.len() == b"{plain}".len() + OVERHEAD);
        assert_eq!(vault.unseal(b"here", &sealed).unwrap(), b"{plain}");
        assert!(vault.unseal(b"there", &sealed).is_err());
        let mut again = Vec::new();
        vault.seal(b"here", b"{plain}", &mut again);
        assert_eq!(sealed, again);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(at < MAGIC.len() || vault.unseal(b"here", &damaged).is_err(), "{at}");
            assert!(vault.unseal(b"here", &sealed[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn the_first_key_writes_and_all_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let old = Vault::open(&path, &["secrets"]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut sealed = Vec::new();
        old.seal(b"here", b"{}", &mut sealed);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{}\n{before}", "ab".repeat(32))).unwrap();
        let both = Vault::open(&path, &["secrets"]).unwrap();
        assert_eq!(both.unseal(b"here", &sealed).unwrap(), b"{}");
        assert_ne!(both.fingerprint(), old.fingerprint());
        assert!(both.knows(&old.fingerprint()) && !old.knows(&both.fingerprint()));
        fs::write(&path, "ab".repeat(32)).unwrap();
        assert!(Vault::open(&path, &["secrets"]).unwrap().unseal(b"here", &sealed).is_err());
        for bad in ["", "# none", "abcd", &"zz".repeat(32)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(Vault::open(&path, &[]), Err(OpenError::Keys { .. })), "{bad}");
        }
    }
}
