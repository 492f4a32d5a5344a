//! Making certificates, and deciding whether those on disk are still good.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Credentials, Names, PkiError, files};
use crate::User;

const AUTHORITY_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(365);
/// Clocks of a cluster differ a little; a certificate is valid from shortly before it was made.
const BACKDATE: Duration = Duration::minutes(5);

/// What a certificate is for.
pub(super) enum Purpose<'a> {
    Serving(&'a Names),
    Client(&'a User),
}

/// The authority `name` on disk, or a new one, of this common name, if there is none or it has expired.
pub(super) fn authority(dir: &Path, name: &str, common_name: &str) -> Result<Credentials, PkiError> {
    if let Some(found) = load(dir, name)?
        && with_certificate(&found.certificate, |c| c.validity().not_after.to_datetime() > OffsetDateTime::now_utc())
            .unwrap_or(false)
    {
        return Ok(found);
    }
    let failed = |source| PkiError::Issue { name: name.to_owned(), source };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, AUTHORITY_LIFE);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    save(dir, name, Credentials { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The certificate `name` on disk, or a new one where that is missing, aged or not for `purpose`.
pub(super) fn leaf(dir: &Path, name: &str, ca: &Credentials, purpose: &Purpose<'_>) -> Result<Credentials, PkiError> {
    if let Some(found) = load(dir, name)?
        && still_good(&found, ca, purpose)
    {
        return Ok(found);
    }
    let failed = |source| PkiError::Issue { name: name.to_owned(), source };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    match purpose {
        Purpose::Serving(names) => {
            params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            for dns in &names.dns {
                params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into().map_err(failed)?));
            }
            params.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
        }
        Purpose::Client(user) => {
            let groups = groups(user);
            if groups.len() > 1 {
                return Err(PkiError::TooManyGroups(user.name.clone()));
            }
            for group in groups {
                params.distinguished_name.push(DnType::OrganizationName, group);
            }
            params.distinguished_name.push(DnType::CommonName, user.name.as_str());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    validity(&mut params, LEAF_LIFE);
    let ca_key = KeyPair::from_pem(&ca.key).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, ca_key).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    save(dir, name, Credentials { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The groups a certificate has to name: what authentication adds by itself is left out.
fn groups(user: &User) -> Vec<&str> {
    user.groups.iter().map(String::as_str).filter(|g| *g != crate::user::AUTHENTICATED).collect()
}

/// Makes `sa.key` and `sa.pub` where missing; a missing or foreign public half is derived from the private one.
pub(super) fn service_account_keys(dir: &Path) -> Result<(), PkiError> {
    let failed = |source| PkiError::Issue { name: "sa".to_owned(), source };
    let (private, public) = (dir.join("sa.key"), dir.join("sa.pub"));
    let key = match files::read_if_any(&private)? {
        Some(pem) => {
            KeyPair::from_pem(&pem).map_err(|e| PkiError::Malformed { path: private.clone(), reason: e.to_string() })?
        }
        None => {
            let key = KeyPair::generate().map_err(failed)?;
            files::write(&private, &key.serialize_pem())?;
            key
        }
    };
    if files::read_if_any(&public)?.as_deref() != Some(key.public_key_pem().as_str()) {
        files::write(&public, &key.public_key_pem())?;
    }
    Ok(())
}

fn validity(params: &mut CertificateParams, life: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
    // 128 random bits: serials must differ among all certificates of an authority.
    params.serial_number = Some(SerialNumber::from(uuid::Uuid::new_v4().as_bytes().to_vec()));
}

/// The pair on disk; `None` unless both halves are there and belong together.
fn load(dir: &Path, name: &str) -> Result<Option<Credentials>, PkiError> {
    let certificate = files::read_if_any(&dir.join(format!("{name}.crt")))?;
    let key = files::read_if_any(&dir.join(format!("{name}.key")))?;
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Ok(None);
    };
    let belong = KeyPair::from_pem(&key).ok().and_then(|pair| {
        with_certificate(&certificate, |c| c.public_key().subject_public_key.data.as_ref() == pair.public_key_raw())
    });
    Ok((belong == Some(true)).then_some(Credentials { certificate, key }))
}

fn save(dir: &Path, name: &str, credentials: Credentials) -> Result<Credentials, PkiError> {
    files::write(&dir.join(format!("{name}.key")), &credentials.key)?;
    files::write(&dir.join(format!("{name}.crt")), &credentials.certificate)?;
    Ok(credentials)
}

fn with_certificate<T>(pem: &str, f: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(f(&certificate))
}

fn still_good(found: &Credentials, ca: &Credentials, purpose: &Purpose<'_>) -> bool {
    let Some(authority) = with_certificate(&ca.certificate, subject_key).flatten() else {
        return false;
    };
    with_certificate(&found.certificate, |c| {
        let (from, to) = (c.validity().not_before.to_datetime(), c.validity().not_after.to_datetime());
        let now = OffsetDateTime::now_utc();
        from <= now && to - now > (to - from) / 4 && issuer_key(c).as_ref() == Some(&authority) && serves(c, purpose)
    })
    .unwrap_or(false)
}

fn serves(certificate: &X509Certificate<'_>, purpose: &Purpose<'_>) -> bool {
    match purpose {
        Purpose::Serving(names) => {
            let Ok(Some(alternative)) = certificate.subject_alternative_name() else {
                return false;
            };
            let has = |wanted: &dyn Fn(&GeneralName<'_>) -> bool| alternative.value.general_names.iter().any(wanted);
            names.dns.iter().all(|n| has(&|g| matches!(g, GeneralName::DNSName(d) if d == n)))
                && names.addresses.iter().all(|a| {
                    let octets = match a {
                        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
                    };
                    has(&|g| matches!(g, GeneralName::IPAddress(i) if *i == octets.as_slice()))
                })
        }
        Purpose::Client(user) => {
            identity(certificate).is_some_and(|(name, found)| name == user.name && found == groups(user))
        }
    }
}

/// The name (CN) and groups (O) that a client certificate stands for.
pub(crate) fn identity(certificate: &X509Certificate<'_>) -> Option<(String, Vec<String>)> {
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    (!name.is_empty()).then_some((name, groups))
}

pub(super) fn subject_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn issuer_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|k| k.0.to_vec()),
        _ => None,
    })
}
