//! Certificate signing requests: what a PKCS #10 request says, and what Kubernetes' own signers ask of it (upstream's
//! `pkg/apis/certificates/helpers.go` and the signer's verification functions).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;

/// Signs certificates for clients of the API server.
pub const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs certificates for nodes as clients of the API server.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs certificates that nodes serve with.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The group of nodes.
const NODES: &str = "system:nodes";
/// Nodes' user names begin so.
const NODE_PREFIX: &str = "system:node:";

/// A PKCS #10 request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The subject's common name, the last if there are several.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// The subject, DER.
    pub subject: Vec<u8>,
    /// The public key (SubjectPublicKeyInfo), DER.
    pub public_key: Vec<u8>,
    /// The value of the extension subjectAltName, DER; none where there is none.
    pub alternative_names: Option<Vec<u8>>,
    names: Names,
}

/// How many alternative names of each type there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Names {
    dns: usize,
    email: usize,
    address: usize,
    uri: usize,
}

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not PEM, or PEM of something else.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    /// Not PKCS #10.
    #[error("x509: malformed certificate request")]
    Malformed,
    /// The signature is not the key's.
    #[error("x509: the signature of the certificate request is not valid")]
    Signature,
}

impl Request {
    /// The request in `spec.request` of an object: PEM in base64. Its signature is verified.
    pub fn from_base64(text: &str) -> Result<Self, RequestError> {
        Self::from_pem(&STANDARD.decode(text).map_err(|_| RequestError::Pem)?)
    }

    /// The request in a PEM text. Its signature is verified.
    pub fn from_pem(text: &[u8]) -> Result<Self, RequestError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(text).map_err(|_| RequestError::Pem)?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(RequestError::Pem);
        }
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| RequestError::Malformed)?;
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let info = &request.certification_request_info;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned);
        let organizations = info.subject.iter_organization().map(text).collect::<Result<_, _>>();
        let common_name = info.subject.iter_common_name().last().map(text).transpose();
        let mut parsed = Self {
            common_name: common_name.map_err(|_| RequestError::Malformed)?.unwrap_or_default(),
            organizations: organizations.map_err(|_| RequestError::Malformed)?,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            alternative_names: None,
            names: Names::default(),
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
            for extension in &requested.extensions {
                if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME {
                    parsed.alternative_names = Some(extension.value.to_vec());
                    parsed.names = names(extension.parsed_extension()).ok_or(RequestError::Malformed)?;
                }
            }
        }
        Ok(parsed)
    }
}

fn names(extension: &ParsedExtension<'_>) -> Option<Names> {
    let ParsedExtension::SubjectAlternativeName(found) = extension else { return None };
    let mut names = Names::default();
    for name in &found.general_names {
        match name {
            GeneralName::DNSName(_) => names.dns += 1,
            GeneralName::RFC822Name(_) => names.email += 1,
            GeneralName::IPAddress(_) => names.address += 1,
            GeneralName::URI(_) => names.uri += 1,
            _ => {}
        }
    }
    Some(names)
}

/// Whether the signer `signer` signs such a request; else why not. `None` if it is no signer of Kubernetes' own.
pub fn check(signer: &str, request: &Request, usages: &[&str]) -> Option<Result<(), String>> {
    match signer {
        API_CLIENT => Some(api_client(usages)),
        KUBELET_CLIENT => Some(kubelet_client(request, usages)),
        KUBELET_SERVING => Some(kubelet_serving(request, usages)),
        _ => None,
    }
}

fn api_client(usages: &[&str]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment"];
    if let Some(other) = usages.iter().find(|usage| **usage != "client auth" && !optional.contains(usage)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.contains(&"client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".to_owned()),
    }
}

fn kubelet_client(request: &Request, usages: &[&str]) -> Result<(), String> {
    let Names { dns, email, address, uri } = request.names;
    let unwanted = [(dns, "DNS"), (email, "Email"), (address, "IP"), (uri, "URI")];
    of_nodes(request)?;
    if let Some((_, name)) = unwanted.iter().find(|(count, _)| *count > 0) {
        return Err(format!("{name} subjectAltNames are not allowed"));
    }
    of_node(request)?;
    exactly(usages, &["client auth", "digital signature", "key encipherment"])
}

fn kubelet_serving(request: &Request, usages: &[&str]) -> Result<(), String> {
    let Names { dns, email, address, uri } = request.names;
    of_nodes(request)?;
    if dns + address == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if let Some((_, name)) = [(email, "Email"), (uri, "URI")].iter().find(|(count, _)| *count > 0) {
        return Err(format!("{name} subjectAltNames are not allowed"));
    }
    exactly(usages, &["digital signature", "key encipherment", "server auth"])?;
    of_node(request)
}

fn of_nodes(request: &Request) -> Result<(), String> {
    if request.organizations == [NODES] { Ok(()) } else { Err(format!("subject organization is not {NODES}")) }
}

fn of_node(request: &Request) -> Result<(), String> {
    match request.common_name.starts_with(NODE_PREFIX) {
        true => Ok(()),
        false => Err(format!("subject common name does not begin with {NODE_PREFIX}")),
    }
}

/// Whether `usages` are those `required`; a key that only signs has no use for `key encipherment`.
fn exactly(usages: &[&str], required: &[&str]) -> Result<(), String> {
    let has = |usage: &&str| usages.contains(usage);
    let known = usages.iter().all(|usage| required.contains(usage));
    if known && required.iter().filter(|usage| **usage != "key encipherment").all(has) {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", required.join(" ")))
}

/// When the certificate (the first in a PEM text) ends, in seconds since the epoch; none if it cannot be read.
pub fn not_after(pem: &[u8]) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

/// What is wrong with `status.certificate`, a PEM text.
pub(crate) fn check_issued(text: &[u8]) -> Result<(), String> {
    let mut blocks = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(text) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        block.parse_x509().map_err(|error| format!("x509: malformed certificate: {error}"))?;
        blocks += 1;
    }
    if blocks == 0 { Err("must contain at least one CERTIFICATE PEM block".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn node(alternative: Names) -> Request {
        Request {
            common_name: "system:node:a".to_owned(),
            organizations: vec![NODES.to_owned()],
            subject: Vec::new(),
            public_key: Vec::new(),
            alternative_names: None,
            names: alternative,
        }
    }

    #[test]
    fn signers_ask_for_their_subjects_names_and_usages() {
        let (none, dns) = (Names::default(), Names { dns: 1, ..Names::default() });
        let (client, serving) =
            (["digital signature", "client auth"], ["digital signature", "key encipherment", "server auth"]);
        let stranger = Request { common_name: "jane".to_owned(), ..node(none) };
        let outsider = Request { organizations: vec!["dev".to_owned()], ..node(none) };
        for (signer, request, usages, expected) in [
            (KUBELET_CLIENT, node(none), &client[..], Ok(())),
            (KUBELET_CLIENT, node(dns), &client[..], Err("DNS subjectAltNames are not allowed")),
            (KUBELET_CLIENT, stranger, &client[..], Err("subject common name does not begin with system:node:")),
            (KUBELET_CLIENT, outsider.clone(), &client[..], Err("subject organization is not system:nodes")),
            (
                KUBELET_CLIENT,
                node(none),
                &serving[..],
                Err("usages did not match [client auth digital signature key encipherment]"),
            ),
            (KUBELET_SERVING, node(dns), &serving[..], Ok(())),
            (KUBELET_SERVING, node(none), &serving[..], Err("DNS or IP subjectAltName is required")),
            (API_CLIENT, outsider.clone(), &client[..], Ok(())),
            (API_CLIENT, outsider.clone(), &serving[..], Err("invalid usage for client certificate: server auth")),
            (API_CLIENT, outsider, &client[..1], Err("missing required usage for client certificate: client auth")),
        ] {
            let found = check(signer, &request, usages).unwrap();
            assert_eq!(found, expected.map_err(str::to_owned), "{signer} {usages:?}");
        }
        assert_eq!(check("example.com/mine", &node(none), &client), None);
    }

    #[test]
    fn what_is_no_request_is_told() {
        assert_eq!(Request::from_base64("!"), Err(RequestError::Pem));
        assert_eq!(Request::from_pem(b"text"), Err(RequestError::Pem));
        let other = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(Request::from_pem(other), Err(RequestError::Pem));
        let broken = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        assert_eq!(Request::from_pem(broken), Err(RequestError::Malformed));
    }
}
