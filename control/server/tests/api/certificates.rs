//! Certificate signing requests: who asked, what is refused, who may decide.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use wherry_server::User;

use crate::harness::*;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn request(name: &str, organization: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, "jane");
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({
        "metadata": {"name": name},
        "spec": {
            "request": STANDARD.encode(pem), "signerName": SIGNER, "usages": ["client auth"],
            "username": "somebody-else", "groups": ["system:masters"],
        },
        "status": {"conditions": [{"type": "Approved", "status": "True"}]},
    })
}

#[tokio::test]
async fn the_server_says_who_asked_and_nobody_approves_themselves() {
    let api = Api::new().await;
    let made = api.post(REQUESTS, &request("a", "dev")).await.expect(201);
    assert_eq!(made["spec"]["username"], "kubernetes-admin");
    assert_eq!(made["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(made["status"], json!({}));
    let mut changed = made.clone();
    changed["spec"]["username"] = "jane".into();
    changed["status"]["conditions"] = json!([{"type": "Approved", "status": "True"}]);
    let kept = api.put(&format!("{REQUESTS}/a"), &changed).await.expect(200);
    assert_eq!((&kept["spec"], &kept["status"]), (&made["spec"], &made["status"]));
}

#[tokio::test]
async fn what_cannot_be_signed_is_refused() {
    let api = Api::new().await;
    let refused = api.post(REQUESTS, &request("masters", "system:masters")).await.expect(403);
    let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert!(refused["message"].as_str().unwrap().ends_with(why), "{refused}");
    for (field, value, said) in [
        ("request", json!("QQ=="), "PEM block type must be CERTIFICATE REQUEST"),
        ("usages", json!([]), "spec.usages: Required value"),
        ("usages", json!(["client auth", "client auth"]), "spec.usages[1]: Duplicate value: \"client auth\""),
        ("usages", json!(["world domination"]), "spec.usages[0]: Unsupported value: \"world domination\""),
        ("signerName", json!("nobody"), "must be a fully qualified domain and path of the form"),
        ("expirationSeconds", json!(599), "may not specify a duration less than 600 seconds (10 minutes)"),
    ] {
        let mut bad = request("bad", "dev");
        bad["spec"]["signerName"] = "example.com/mine".into();
        bad["spec"][field] = value;
        let refused = api.post(REQUESTS, &bad).await.expect(422);
        assert!(refused["message"].as_str().unwrap().contains(said), "{field}: {refused}");
    }
}

#[tokio::test]
async fn decisions_are_made_through_their_own_endpoint() {
    let api = Api::new().await;
    api.post(REQUESTS, &request("a", "dev")).await.expect(201);
    let (main, approval, status) =
        (format!("{REQUESTS}/a"), format!("{REQUESTS}/a/approval"), format!("{REQUESTS}/a/status"));
    let says = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "Because"}]}});
    // Elsewhere a decision is refused or left out.
    assert_eq!(api.merge(&status, &says("Approved")).await.code, 422);
    assert_eq!(api.merge(&main, &says("Approved")).await.expect(200)["status"], json!({}));
    let approved = api.merge(&approval, &says("Approved")).await.expect(200);
    assert!(approved["status"]["conditions"][0]["lastTransitionTime"].is_string());
    assert_eq!(api.get(&approval).await.expect(200)["status"], approved["status"]);
    // It stands, and what contradicts it is refused.
    let mut both = approved["status"]["conditions"].clone();
    both.as_array_mut().unwrap().push(json!({"type": "Denied", "status": "True"}));
    let refused = api.merge(&approval, &json!({"status": {"conditions": both}})).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("mutually exclusive"), "{refused}");
    let refused = api.merge(&approval, &json!({"status": {"conditions": []}})).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("updates may not remove a condition of type \"Approved\""));
    // The certificate comes by the status, once.
    let certificate = STANDARD.encode(rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem());
    let issue = json!({"status": {"certificate": certificate}});
    assert!(api.merge(&approval, &issue).await.expect(200)["status"]["certificate"].is_null());
    let issued = api.merge(&status, &issue).await.expect(200);
    assert_eq!(issued["status"]["certificate"], certificate.as_str());
    assert_eq!(issued["status"]["conditions"], approved["status"]["conditions"]);
    assert_eq!(api.merge(&status, &json!({"status": {"certificate": null}})).await.code, 422);
    assert_eq!(api.as_user(User::new("jane", ["dev"])).merge(&approval, &says("Approved")).await.code, 403);
}
