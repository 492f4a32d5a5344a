//! Signing what others ask for: a certificate out of a PKCS #10 request.
//!
//! Subject, key and alternative names are taken over byte by byte (a subject may name several groups, which the generator of our
//! own certificates cannot say); everything else is decided here. DER is written by hand: it is a dozen nested values.

use rcgen::{KeyPair, SigningKey as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use wherry_api::certificates::Request;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::issue::subject_key;
use super::{Credentials, PkiError};

/// A certificate is valid from a little before it was made; a short one is not cut by that (upstream's signing policy).
const BACKDATE: i64 = 300;
const SHORT: i64 = 8 * 3600;

/// The object identifiers that are needed, as DER content.
mod oid {
    pub(super) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    pub(super) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    pub(super) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
    pub(super) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    pub(super) const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
    pub(super) const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
    pub(super) const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
    pub(super) const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
}

/// A certificate (PEM) for `request` by the authority `ca`, good for `usages` and for `seconds` from `now`, but never longer than
/// the authority itself.
pub(super) fn certificate(
    ca: &Credentials,
    request: &Request,
    usages: &[&str],
    seconds: i64,
    now: i64,
) -> Result<String, PkiError> {
    let failed = |reason: String| PkiError::Sign(reason);
    let key = KeyPair::from_pem(&ca.key).map_err(|e| failed(e.to_string()))?;
    let der = CertificateDer::from_pem_slice(ca.certificate.as_bytes()).map_err(|e| failed(e.to_string()))?;
    let (_, authority) = X509Certificate::from_der(&der).map_err(|e| failed(e.to_string()))?;
    if !std::ptr::eq(key.algorithm(), &rcgen::PKCS_ECDSA_P256_SHA256) {
        return Err(failed("the authority's key is not P-256".to_owned()));
    }
    let from = now - BACKDATE;
    let to = if seconds < SHORT { now + seconds } else { from + seconds };
    let to = to.min(authority.validity().not_after.timestamp());
    if to <= now {
        return Err(failed("the authority has expired".to_owned()));
    }
    let algorithm = sequence(&[&tlv(0x06, oid::ECDSA_SHA256)]);
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    // Positive, and as short as it can be written.
    serial[0] = serial[0] & 0x7f | 0x40;
    let body = sequence(&[
        &tlv(0xa0, &tlv(0x02, &[2])),
        &tlv(0x02, &serial),
        &algorithm,
        authority.subject().as_raw(),
        &sequence(&[&moment(from)?, &moment(to)?]),
        &request.subject,
        &request.public_key,
        &tlv(0xa3, &sequence(&[&extensions(request, usages, subject_key(&authority))?])),
    ]);
    let signature = key.sign(&body).map_err(|e| failed(e.to_string()))?;
    let whole = sequence(&[&body, &algorithm, &tlv(0x03, &[&[0], &signature[..]].concat())]);
    Ok(pem(&whole))
}

fn extensions(request: &Request, usages: &[&str], authority_key: Option<Vec<u8>>) -> Result<Vec<u8>, PkiError> {
    let (mut bits, mut purposes) = (0u8, Vec::new());
    for usage in usages {
        match *usage {
            "digital signature" | "signing" => bits |= 0x80,
            "key encipherment" => bits |= 0x20,
            "server auth" => purposes.extend(tlv(0x06, oid::SERVER_AUTH)),
            "client auth" => purposes.extend(tlv(0x06, oid::CLIENT_AUTH)),
            other => return Err(PkiError::Sign(format!("unrecognized usage values: [{other:?}]"))),
        }
    }
    let mut all = Vec::new();
    if bits != 0 {
        let unused = u8::try_from(bits.trailing_zeros()).unwrap_or_default();
        all.extend(extension(oid::KEY_USAGE, true, &tlv(0x03, &[unused, bits])));
    }
    if !purposes.is_empty() {
        all.extend(extension(oid::EXTENDED_KEY_USAGE, false, &tlv(0x30, &purposes)));
    }
    all.extend(extension(oid::BASIC_CONSTRAINTS, true, &tlv(0x30, &[])));
    if let Some(key) = authority_key {
        all.extend(extension(oid::AUTHORITY_KEY, false, &sequence(&[&tlv(0x80, &key)])));
    }
    if let Some(names) = &request.alternative_names {
        all.extend(extension(oid::ALTERNATIVE_NAMES, false, names));
    }
    Ok(all)
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(0x01, &[0xff]) } else { Vec::new() };
    sequence(&[&tlv(0x06, id), &critical, &tlv(0x04, value)])
}

/// A time: with two digits of the year up to 2049, as X.509 has it.
fn moment(seconds: i64) -> Result<Vec<u8>, PkiError> {
    let at = OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| PkiError::Sign(e.to_string()))?;
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    Ok(match at.year() {
        year @ 1950..2050 => tlv(0x17, format!("{:02}{rest}", year % 100).as_bytes()),
        year => tlv(0x18, format!("{year:04}{rest}").as_bytes()),
    })
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// Tag, length, value.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(value.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length: Vec<u8> = value.len().to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(length.len()).unwrap_or_default());
            out.extend(length);
        }
    }
    out.extend(value);
    out
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rcgen::{CertificateParams, DnType};

    use super::*;
    use crate::pki::Pki;

    #[test]
    fn a_signed_certificate_is_the_requests_and_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.distinguished_name.push(DnType::CommonName, "jane");
        let key = KeyPair::generate().unwrap();
        let text = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = Request::from_pem(text.as_bytes()).unwrap();
        assert_eq!((request.common_name.as_str(), &request.organizations[..]), ("jane", &["dev".to_owned()][..]));
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let usages = ["digital signature", "client auth"];
        for (seconds, from, to) in [(600, -300, 600), (24 * 3600, -300, 24 * 3600 - 300)] {
            let signed = certificate(&pki.ca, &request, &usages, seconds, now).unwrap();
            let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
            let (rest, found) = X509Certificate::from_der(&der).unwrap();
            assert!(rest.is_empty());
            let ca = CertificateDer::from_pem_slice(pki.ca_certificate().as_bytes()).unwrap();
            let (_, ca) = X509Certificate::from_der(&ca).unwrap();
            found.verify_signature(Some(ca.public_key())).unwrap();
            assert_eq!(found.issuer(), ca.subject());
            assert_eq!(crate::pki::issue::identity(&found).unwrap(), ("jane".to_owned(), vec!["dev".to_owned()]));
            assert_eq!(found.validity().not_before.timestamp(), now + from);
            assert_eq!(found.validity().not_after.timestamp(), now + to);
            assert!(found.key_usage().unwrap().unwrap().value.digital_signature());
            assert!(!found.key_usage().unwrap().unwrap().value.key_encipherment());
            let purposes = found.extended_key_usage().unwrap().unwrap();
            assert!(purposes.value.client_auth && !purposes.value.server_auth);
            assert!(!found.is_ca());
            assert_eq!(found.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
            assert_eq!(found.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        }
        assert!(certificate(&pki.ca, &request, &["cert sign"], 600, now).is_err());
    }
}
