//! rustls configurations, and the identity behind a client certificate.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Credentials, PkiError};
use crate::User;

fn failed(error: impl std::fmt::Display) -> PkiError {
    PkiError::Tls(error.to_string())
}

pub(super) fn server(credentials: &Credentials, ca: &str) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.map_err(failed)?).map_err(failed)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).map_err(failed)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The attribute of a subject that is its uid (Kubernetes' own).
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The user that a verified client certificate names; `None` if it names none, or two uids.
pub(crate) fn peer_user(certificates: &[CertificateDer<'_>]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificates.first()?).ok()?;
    let (name, groups) = super::issue::identity(&certificate)?;
    let mut uids =
        certificate.subject().iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == UID);
    let uid = match (uids.next(), uids.next()) {
        (None, _) => "",
        (Some(uid), None) => uid.as_str().ok().filter(|uid| !uid.is_empty())?,
        (Some(_), Some(_)) => return None,
    };
    let digest = hex::encode(Sha256::digest(certificates.first()?));
    let mut user = User::new(name, groups).with_extra(crate::user::CREDENTIAL_ID, &format!("X509SHA256={digest}"));
    user.uid = uid.to_owned();
    Some(user)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_subject_may_name_its_uid() {
        for (uid, expected) in [(None, Some("")), (Some("7"), Some("7")), (Some(""), None)] {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "jane");
            if let Some(uid) = uid {
                params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), uid);
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let user = peer_user(&[certificate.der().clone()]);
            assert_eq!(user.as_ref().map(|user| user.uid.as_str()), expected, "{uid:?}");
        }
    }
}
