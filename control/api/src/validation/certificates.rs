//! CertificateSigningRequest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{At, Errors, items, names, text};
use crate::certificates::{Request, check_issued};
use crate::strategy::{Sub, same};

/// What a certificate may be for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// In seconds.
const SHORTEST_LIFE: i64 = 600;
/// Conditions that are decisions: they are never taken back.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];
const EXCLUSIVE: &str = "Approved and Denied conditions are mutually exclusive";

/// A new request.
pub(crate) fn request(object: &Value, errors: &mut Errors) {
    spec(object, errors);
    status(object, &Value::Null, errors);
}

/// A changed request: its spec is what it was, so that its status alone can be wrong.
pub(crate) fn update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    if sub != Sub::Main {
        status(new, old, errors);
    }
    let at_status = At::root("status");
    let at = at_status.field("conditions");
    for decision in DECISIONS {
        let (before, after) = (of_type(old, decision), of_type(new, decision));
        if after.len() < before.len() {
            errors.forbidden(&at, format!("updates may not remove a condition of type {decision:?}"));
        } else if sub == Sub::Approval || decision == "Failed" {
        } else if after.len() > before.len() {
            errors.forbidden(&at, format!("updates may not add a condition of type {decision:?}"));
        } else if !after.iter().zip(&before).all(|(a, b)| same(a, b)) {
            errors.forbidden(&at, format!("updates may not modify a condition of type {decision:?}"));
        }
    }
    let (before, after) = (text(&old["status"], "certificate"), text(&new["status"], "certificate"));
    if before != after {
        let at = at_status.field("certificate");
        if sub != Sub::Status {
            errors.forbidden(&at, "updates may not set certificate content");
        } else if !before.is_empty() {
            errors.forbidden(&at, "updates may not modify existing certificate content");
        }
    }
}

fn of_type<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    items(&object["status"], "conditions").iter().filter(|condition| text(condition, "type") == kind).collect()
}

fn spec(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let at_spec = At::root("spec");
    if let Err(error) = Request::from_base64(text(spec, "request")) {
        errors.invalid(&at_spec.field("request"), spec["request"].clone(), error.to_string());
    }
    let at = at_spec.field("usages");
    let usages = items(spec, "usages");
    if usages.is_empty() {
        errors.required(&at, "");
    }
    for (n, usage) in usages.iter().enumerate() {
        errors.one_of(&at.index(n), usage.as_str().unwrap_or_default(), &USAGES);
    }
    for (n, usage) in usages.iter().enumerate().filter(|(n, usage)| usages[..*n].contains(usage)) {
        errors.duplicate(&at.index(n), usage.clone());
    }
    signer_name(text(spec, "signerName"), &at_spec.field("signerName"), errors);
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|seconds| *seconds < SHORTEST_LIFE) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&at_spec.field("expirationSeconds"), seconds, detail);
    }
}

/// `DOMAIN/PATH`, the domain of at least two labels.
fn signer_name(name: &str, at: &At, errors: &mut Errors) {
    if name == LEGACY_SIGNER {
        return errors.invalid(at, name, "the legacy signerName is not allowed via this API version");
    }
    if name.is_empty() {
        errors.required(at, "");
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, path] = parts[..] else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(at, name, detail);
    };
    if domain.len() > 253 {
        errors.too_long(at, 253);
    }
    labels(domain, domain, names::label, at, errors);
    if !domain.contains('.') {
        errors.invalid(at, domain, "should be a domain with at least two segments separated by dots");
    }
    labels(path, path, names::subdomain, at, errors);
    if name.len() > 571 {
        errors.too_long(at, 571);
    }
}

fn labels(dotted: &str, value: &str, rule: names::Rule, at: &At, errors: &mut Errors) {
    for label in dotted.split('.') {
        for message in rule(label) {
            errors.invalid(at, value, format!("validating label {label:?}: {message}"));
        }
    }
}

/// Conditions and certificate; what `old` has already is let be.
fn status(object: &Value, old: &Value, errors: &mut Errors) {
    let at_status = At::root("status");
    let at = at_status.field("conditions");
    let conditions = items(&object["status"], "conditions");
    let known = |kind: &str| !of_type(old, kind).is_empty();
    let both = known("Approved") && known("Denied");
    for (n, condition) in conditions.iter().enumerate() {
        let (kind, value) = (text(condition, "type"), text(condition, "status"));
        let here = at.index(n);
        if kind.is_empty() {
            errors.required(&here.field("type"), "");
        }
        let allowed: &[&str] = if DECISIONS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if value.is_empty() {
            errors.required(&here.field("status"), "");
        } else {
            errors.one_of(&here.field("status"), value, allowed);
        }
        let seen = |kind: &str| conditions[..n].iter().any(|before| text(before, "type") == kind);
        let contradicts = (kind == "Approved" && seen("Denied")) || (kind == "Denied" && seen("Approved"));
        if contradicts && !both {
            errors.invalid(&at, kind, EXCLUSIVE);
        }
        if seen(kind) && of_type(old, kind).len() < 2 {
            errors.duplicate(&here.field("type"), kind);
        }
    }
    let certificate = text(&object["status"], "certificate");
    if !certificate.is_empty() && certificate != text(&old["status"], "certificate") {
        let checked = STANDARD.decode(certificate).map_err(|e| e.to_string()).and_then(|pem| check_issued(&pem));
        if let Err(why) = checked {
            errors.invalid(&at_status.field("certificate"), "<certificate data>", why);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn said(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn signer_names_are_a_domain_and_a_path() {
        let at = At::root("spec");
        for (name, good) in [
            ("kubernetes.io/kube-apiserver-client", true),
            ("example.com/a.b", true),
            ("", false),
            ("example.com", false),
            ("com/a", false),
            ("example.com/", false),
            ("example.com/A", false),
            ("a/b/c", false),
            (LEGACY_SIGNER, false),
        ] {
            let errors = said(|errors| signer_name(name, &at, errors));
            assert_eq!(errors.is_empty(), good, "{name}: {errors:?}");
        }
    }

    fn with(conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<Value> =
            conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
        json!({"status": {"conditions": conditions}})
    }

    #[test]
    fn decisions_are_made_once_by_their_endpoint() {
        let (none, approved) = (with(&[]), with(&[("Approved", "True")]));
        let at = "status.conditions: ";
        for (new, old, sub, expected) in [
            (&approved, &none, Sub::Approval, None),
            (&approved, &none, Sub::Status, Some("Forbidden: updates may not add a condition of type \"Approved\"")),
            (
                &none,
                &approved,
                Sub::Approval,
                Some("Forbidden: updates may not remove a condition of type \"Approved\""),
            ),
            (&with(&[("Failed", "True")]), &none, Sub::Status, None),
            (&approved, &approved, Sub::Status, None),
        ] {
            let expected: Vec<String> = expected.iter().map(|why| format!("{at}{why}")).collect();
            assert_eq!(said(|errors| update(new, old, sub, errors)), expected, "{new} {old}");
        }
        let both = with(&[("Approved", "True"), ("Denied", "True")]);
        let errors = said(|errors| update(&both, &approved, Sub::Approval, errors));
        assert_eq!(errors, [format!("{at}Invalid value: \"Denied\": {EXCLUSIVE}")]);
        let untrue = said(|errors| update(&with(&[("Denied", "False")]), &none, Sub::Approval, errors));
        assert_eq!(untrue, ["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""]);
        let twice = with(&[("Ready", "True"), ("Ready", "True")]);
        let errors = said(|errors| update(&twice, &none, Sub::Status, errors));
        assert_eq!(errors, ["status.conditions[1].type: Duplicate value: \"Ready\""]);
    }

    #[test]
    fn a_certificate_is_set_once_through_the_status() {
        let (none, some) = (json!({}), json!({"status": {"certificate": "QQ=="}}));
        let errors = said(|errors| update(&some, &none, Sub::Status, errors));
        assert_eq!(
            errors,
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"
            ]
        );
        let errors = said(|errors| update(&none, &some, Sub::Status, errors));
        assert_eq!(errors, ["status.certificate: Forbidden: updates may not modify existing certificate content"]);
    }
}
