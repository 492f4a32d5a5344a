//! What is to be done next about a certificate signing request. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use wherry_api::certificates::{self, KUBELET_CLIENT, Request};

/// How long a certificate is good unless less is asked for: a year.
const LIFE: i64 = 365 * 24 * 3600;
/// In seconds; upstream's sanity check below what validation lets through.
const SHORTEST_LIFE: i64 = 600;
/// How long requests are kept that were decided or failed.
const DECIDED: Duration = Duration::from_secs(3600);
/// How long requests are kept that wait for somebody.
const WAITING: Duration = Duration::from_secs(24 * 3600);

/// A permission by which a node's request is approved: a subresource of certificatesigningrequests, and what the approval
/// then says.
pub(super) type Permission = (&'static str, &'static str);

const SELF_NODE: Permission =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const NODE: Permission = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");

/// The next step.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Approve it if its author has one of the permissions.
    Ask(Vec<Permission>),
    /// Issue the certificate.
    Sign { request: Box<Request>, usages: Vec<String>, seconds: i64 },
    /// Its signer would never sign it.
    Fail(String),
    /// It has served its time.
    Delete,
    /// Nothing until then.
    Wait(Option<Timestamp>),
}

/// What is to be done next about `csr`.
pub(super) fn next(csr: &CertificateSigningRequest, now: Timestamp) -> Step {
    let end = end(csr);
    if end.is_some_and(|end| end <= now) {
        return Step::Delete;
    }
    let wait = Step::Wait(end);
    let issued = csr.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|c| !c.0.is_empty());
    if issued || condition(csr, "Denied").is_some() || condition(csr, "Failed").is_some() {
        return wait;
    }
    // Validation has let it through; what does not parse is nobody's to sign.
    let Ok(request) = Request::from_pem(&csr.spec.request.0) else { return wait };
    let usages = csr.spec.usages.clone().unwrap_or_default();
    let names: Vec<&str> = usages.iter().map(String::as_str).collect();
    let Some(checked) = certificates::check(&csr.spec.signer_name, &request, &names) else { return wait };
    if condition(csr, "Approved").is_none() {
        if csr.spec.signer_name != KUBELET_CLIENT || checked.is_err() {
            return wait;
        }
        let own = csr.spec.username.as_deref() == Some(&request.common_name);
        return Step::Ask(own.then_some(SELF_NODE).into_iter().chain([NODE]).collect());
    }
    match checked {
        Ok(()) => {
            let seconds = csr.spec.expiration_seconds.map_or(LIFE, i64::from).clamp(SHORTEST_LIFE, LIFE);
            Step::Sign { request: Box::new(request), usages, seconds }
        }
        Err(why) => Step::Fail(why),
    }
}

/// When the request goes: the first of the ends that its state has (upstream's cleaner).
fn end(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let after = |at: Option<Timestamp>, kept: Duration| at.and_then(|at| at.checked_add(kept).ok());
    let decided = |kind: &str| condition(csr, kind)?.last_update_time.as_ref().map(|time| time.0);
    let certificate = csr.status.as_ref().and_then(|status| status.certificate.as_ref()).filter(|c| !c.0.is_empty());
    let undecided = csr.status.as_ref().and_then(|status| status.conditions.as_ref()).is_none_or(Vec::is_empty);
    let created = csr.metadata.creation_timestamp.as_ref().map(|time| time.0).filter(|_| undecided);
    let approved = decided("Approved");
    let expires = certificate
        .filter(|_| approved.is_some())
        .and_then(|pem| Timestamp::from_second(certificates::not_after(&pem.0)?).ok());
    [
        after(approved, if certificate.is_some() { DECIDED } else { WAITING }),
        after(decided("Denied"), DECIDED),
        after(decided("Failed"), DECIDED),
        after(created, WAITING),
        expires,
    ]
    .into_iter()
    .flatten()
    .min()
}

fn condition<'a>(csr: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    csr.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn only_the_end_comes_by_time_and_only_what_is_approved_is_signed(
            signer in 0usize..4, user in 0usize..2, issued in any::<bool>(), asked in prop::option::of(-5i32..40_000_000),
            conditions in prop::collection::btree_map(0usize..3, 0i64..200_000, 0..3), now in 0i64..400_000, later in 0i64..400_000,
        ) {
            let signer = [KUBELET_CLIENT, certificates::KUBELET_SERVING, certificates::API_CLIENT, "example.com/mine"][signer];
            let second = |second: i64| Timestamp::from_second(second).unwrap();
            let kinds = ["Approved", "Denied", "Failed"];
            let told: Vec<_> = conditions.iter().map(|(kind, at)| {
                json!({"type": kinds[*kind], "status": "True", "lastUpdateTime": second(*at).to_string()})
            }).collect();
            let user = ["system:node:a", "jane"][user];
            let mut csr = csr(signer, user, json!(told), if issued { "issued" } else { "" });
            csr.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(second(0)));
            csr.spec.expiration_seconds = asked;
            let has = |kind: &str| conditions.keys().any(|known| kinds[*known] == kind);
            let step = next(&csr, second(now));
            match &step {
                Step::Sign { seconds, .. } => {
                    prop_assert!(has("Approved") && signer != "example.com/mine");
                    prop_assert!((SHORTEST_LIFE..=LIFE).contains(seconds));
                    prop_assert!(asked.is_none_or(|asked| *seconds <= i64::from(asked).max(SHORTEST_LIFE)), "no longer than asked for");
                }
                Step::Fail(_) => prop_assert!(has("Approved") && signer != "example.com/mine"),
                Step::Ask(permissions) => {
                    prop_assert!(!has("Approved") && signer == KUBELET_CLIENT);
                    prop_assert_eq!(permissions.contains(&SELF_NODE), user == "system:node:a");
                }
                Step::Wait(_) | Step::Delete => {}
            }
            if issued || has("Denied") || has("Failed") {
                prop_assert!(matches!(step, Step::Wait(_) | Step::Delete), "{:?}: it is decided", step);
            }
            // Time brings the end, once, and nothing else.
            let later = next(&csr, second(now + later));
            prop_assert!(later == step || later == Step::Delete, "{:?} became {:?}", step, later);
            if let Step::Wait(Some(end)) = step {
                prop_assert!(end > second(now));
                prop_assert_eq!(next(&csr, end), Step::Delete);
                prop_assert_eq!(next(&csr, end - Duration::from_nanos(1)), step);
            }
        }
    }

    /// Of `system:node:a` in `system:nodes`, with a P-256 key.
    const NODE_REQUEST: &str = include_str!("node.csr");

    fn csr(signer: &str, user: &str, conditions: Value, certificate: &str) -> CertificateSigningRequest {
        use k8s_openapi::ByteString;
        let mut csr: CertificateSigningRequest = serde_json::from_value(json!({
            "metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "request": "", "signerName": signer, "username": user, "usages": ["digital signature", "client auth"],
            },
            "status": {"conditions": conditions},
        }))
        .unwrap();
        csr.spec.request = ByteString(NODE_REQUEST.as_bytes().to_vec());
        csr.status.as_mut().unwrap().certificate = Some(ByteString(certificate.as_bytes().to_vec()));
        csr
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-01-{time}Z").parse().unwrap()
    }

    fn said(kind: &str) -> Value {
        json!([{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T01:00:00Z"}])
    }

    #[test]
    fn nodes_are_approved_by_permission_and_others_by_hand() {
        let now = at("01T00:00:01");
        let waiting = Step::Wait(Some(at("02T00:00:00")));
        let by_self = next(&csr(KUBELET_CLIENT, "system:node:a", json!([]), ""), now);
        assert_eq!(by_self, Step::Ask(vec![SELF_NODE, NODE]));
        assert_eq!(next(&csr(KUBELET_CLIENT, "bootstrap", json!([]), ""), now), Step::Ask(vec![NODE]));
        for signer in [certificates::API_CLIENT, certificates::KUBELET_SERVING, "example.com/mine"] {
            assert_eq!(next(&csr(signer, "system:node:a", json!([]), ""), now), waiting, "{signer}");
        }
    }

    #[test]
    fn what_is_approved_is_signed_or_fails() {
        let now = at("01T01:00:01");
        let mut short = csr(certificates::API_CLIENT, "jane", said("Approved"), "");
        let Step::Sign { request, seconds, .. } = next(&short, now) else { panic!("not signed") };
        assert_eq!((request.common_name.as_str(), seconds), ("system:node:a", LIFE));
        short.spec.expiration_seconds = Some(700);
        assert!(matches!(next(&short, now), Step::Sign { seconds: 700, .. }));
        let serving = csr(certificates::KUBELET_SERVING, "jane", said("Approved"), "");
        assert_eq!(next(&serving, now), Step::Fail("DNS or IP subjectAltName is required".to_owned()));
        let foreign = csr("example.com/mine", "jane", said("Approved"), "");
        assert_eq!(next(&foreign, now), Step::Wait(Some(at("02T01:00:00"))));
    }

    #[test]
    fn requests_go_when_their_time_is_over() {
        for (conditions, certificate, end) in [
            (json!([]), "", at("02T00:00:00")),
            (said("Approved"), "issued", at("01T02:00:00")),
            (said("Denied"), "", at("01T02:00:00")),
            (said("Failed"), "", at("01T02:00:00")),
        ] {
            let csr = csr(certificates::API_CLIENT, "jane", conditions.clone(), certificate);
            assert_eq!(next(&csr, end), Step::Delete, "{conditions}");
            assert_ne!(next(&csr, end - Duration::from_secs(1)), Step::Delete, "{conditions}");
        }
        let unsigned = csr("example.com/mine", "jane", said("Approved"), "");
        assert_eq!(next(&unsigned, at("02T01:00:00")), Step::Delete);
    }
}
