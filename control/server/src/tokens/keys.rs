//! The keys that service account tokens are signed and verified with: P-256, used as ES256.
//!
//! One key signs; any number verify, so that tokens of the last key stay good after a rotation. A key is named by the
//! digest of its public half, as upstream names it (`keyIDFromPublicKey`): the name tells nothing that would help to forge.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What stands before the point in the DER form of every P-256 public key.
const PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: 4, x, y.
const POINT: usize = 65;
const ALGORITHM: &str = "ES256";

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The private key is none that this server signs with.
    #[error("the signing key is no PKCS #8 P-256 key: {0}")]
    Private(String),
    /// A public key is none that this server verifies with.
    #[error("a verification key is no P-256 public key: {0}")]
    Public(String),
    /// The system's random numbers cannot be had.
    #[error("no random numbers")]
    Random,
}

/// A public key, with its name.
#[derive(Clone, PartialEq, Eq)]
struct PublicKey {
    id: String,
    point: [u8; POINT],
}

impl PublicKey {
    fn new(point: &[u8]) -> Option<Self> {
        let point: [u8; POINT] = point.try_into().ok().filter(|p: &[u8; POINT]| p[0] == 4)?;
        let der = [PREFIX.as_slice(), &point].concat();
        Some(Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(der)), point })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.point).verify(message, signature).is_ok()
    }

    fn jwk(&self) -> Value {
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(&self.point[from..from + 32]);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ALGORITHM,
            "x": coordinate(1), "y": coordinate(33),
        })
    }
}

/// A signing key and the keys whose signatures are accepted; the signing key's own are always.
pub struct Keys {
    signer: EcdsaKeyPair,
    random: SystemRandom,
    /// The signing key's public half is the first.
    verifiers: Vec<PublicKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.verifiers.iter().map(|v| &v.id)).finish()
    }
}

impl Keys {
    /// `private` (PEM, PKCS #8) signs; every public key in the texts of `public` (PEM) is accepted too.
    pub fn from_pem<'a>(private: &str, public: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(private.as_bytes()).map_err(|e| KeyError::Private(e.to_string()))?;
        let mut keys = Self::from_pkcs8(der.secret_pkcs8_der())?;
        for text in public {
            for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
                let der = der.map_err(|e| KeyError::Public(e.to_string()))?;
                let key = der.strip_prefix(PREFIX.as_slice()).and_then(PublicKey::new);
                let key = key.ok_or_else(|| KeyError::Public("another kind of key".to_owned()))?;
                if !keys.verifiers.contains(&key) {
                    keys.verifiers.push(key);
                }
            }
        }
        Ok(keys)
    }

    /// A new key that lives as long as this value: for servers whose state is not kept either.
    pub fn generate() -> Result<Self, KeyError> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(der.as_ref())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map_err(|e| KeyError::Private(e.to_string()))?;
        let own = PublicKey::new(signer.public_key().as_ref());
        let own = own.ok_or_else(|| KeyError::Private("its point is compressed".to_owned()))?;
        Ok(Self { signer, random, verifiers: vec![own] })
    }

    /// A compact JWS of `claims`.
    pub(crate) fn sign(&self, claims: &impl serde::Serialize) -> Result<String, KeyError> {
        let header = json!({"alg": ALGORITHM, "kid": self.verifiers[0].id});
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.signer.sign(&self.random, token.as_bytes()).map_err(|_| KeyError::Random)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// The claims of a compact JWS that one of the keys has signed; else why not.
    pub(crate) fn verify(&self, token: &str) -> Result<Vec<u8>, String> {
        let malformed = || "the token is no signed JWT".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
        // Nothing but what is signed with: the token does not choose how it is checked.
        if header["alg"] != ALGORITHM {
            return Err(format!("unexpected signature algorithm {}; expected [\"{ALGORITHM}\"]", header["alg"]));
        }
        let id = header["kid"].as_str().unwrap_or_default();
        let mut candidates = self.verifiers.iter().filter(|key| id.is_empty() || key.id == id).peekable();
        if candidates.peek().is_none() {
            return Err("invalid signature, no keys found".to_owned());
        }
        let signature = decode(signature)?;
        if !candidates.any(|key| key.verifies(signed.as_bytes(), &signature)) {
            return Err("error in cryptographic primitive: the signature is not valid".to_owned());
        }
        decode(claims)
    }

    /// The JSON Web Key Set of the accepted keys.
    pub(super) fn jwks(&self) -> Value {
        json!({"keys": self.verifiers.iter().map(PublicKey::jwk).collect::<Vec<_>>()})
    }

    /// The algorithms that the keys are used with.
    pub(super) fn algorithms(&self) -> [&'static str; 1] {
        [ALGORITHM]
    }
}

/// The claims of a compact JWS, unverified: for telling whose token it may be, never for trusting it.
pub(super) fn peek(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_was_signed_is_verified_and_nothing_else() {
        let keys = Keys::generate().unwrap();
        let token = keys.sign(&json!({"sub": "me"})).unwrap();
        let claims: Value = serde_json::from_slice(&keys.verify(&token).unwrap()).unwrap();
        assert_eq!(claims, json!({"sub": "me"}));
        assert_eq!(peek(&token).unwrap(), claims);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let other = URL_SAFE_NO_PAD.encode(r#"{"sub":"admin"}"#);
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in [
            format!("{header}.{other}.{signature}"),
            format!("{none}.{other}."),
            format!("{signed}.{}", &signature[1..]),
            format!("{signed}.{signature}.{signature}"),
            signed.to_owned(),
            String::new(),
        ] {
            assert!(keys.verify(&forged).is_err(), "{forged}");
        }
        assert_eq!(Keys::generate().unwrap().verify(&token).unwrap_err(), "invalid signature, no keys found");
    }

    #[test]
    fn after_a_rotation_the_old_tokens_stay_good() {
        let (old, new) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let token = Keys::from_pem(&old.serialize_pem(), []).unwrap().sign(&json!({})).unwrap();
        let public = old.public_key_pem() + &new.public_key_pem();
        let rotated = Keys::from_pem(&new.serialize_pem(), [public.as_str()]).unwrap();
        assert!(rotated.verify(&token).is_ok());
        assert_eq!(rotated.jwks()["keys"].as_array().unwrap().len(), 2);
        let forgotten = Keys::from_pem(&new.serialize_pem(), []).unwrap();
        assert!(forgotten.verify(&token).is_err());
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(matches!(Keys::from_pem(&key.serialize_pem(), []), Err(KeyError::Private(_))));
        let good = rcgen::KeyPair::generate().unwrap();
        let public = key.public_key_pem();
        assert!(matches!(Keys::from_pem(&good.serialize_pem(), [public.as_str()]), Err(KeyError::Public(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_token_makes_it_panic(token in "[A-Za-z0-9_.{}\"-]{0,80}") {
            let keys = Keys::generate().unwrap();
            let _ = (keys.verify(&token), peek(&token));
        }
    }
}
