//! What needs the cluster's keys: certificates and tokens in Secrets.

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;
use wherry_api::certificates::{API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, not_after};

use crate::harness::Cluster;

fn request(name: &str, signer: &str, organization: &str, user: &str) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, user);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let spec = json!({
        "request": ByteString(pem.into_bytes()), "signerName": signer,
        "usages": ["digital signature", "key encipherment", "client auth"],
    });
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
}

fn says(csr: &CertificateSigningRequest, kind: &str) -> Option<String> {
    let conditions = csr.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)?.reason.clone()
}

fn certificate(csr: &CertificateSigningRequest) -> Option<&[u8]> {
    csr.status.as_ref()?.certificate.as_ref().map(|bytes| bytes.0.as_slice())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_approved_signed_and_failed() {
    let cluster = Cluster::start().await;
    let api = cluster.cluster_api::<CertificateSigningRequest>();
    // A node's own, which the administrator may ask for.
    let node = request("node", KUBELET_CLIENT, "system:nodes", "system:node:a");
    api.create(&PostParams::default(), &node).await.unwrap();
    let issued = cluster.until::<CertificateSigningRequest>("", "node", |csr| certificate(csr).is_some()).await;
    assert_eq!(says(&issued, "Approved").as_deref(), Some("AutoApproved"));
    assert!(not_after(certificate(&issued).unwrap()).is_some());
    // Others wait for somebody to approve; what their signer would not sign fails.
    let approved = Patch::Merge(json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "ByHand"},
    ]}}));
    for (name, signer) in [("jane", API_CLIENT), ("serving", KUBELET_SERVING)] {
        api.create(&PostParams::default(), &request(name, signer, "dev", "jane")).await.unwrap();
        api.patch_subresource("approval", name, &PatchParams::default(), &approved).await.unwrap();
    }
    let issued = cluster.until::<CertificateSigningRequest>("", "jane", |csr| certificate(csr).is_some()).await;
    assert_eq!(says(&issued, "Approved").as_deref(), Some("ByHand"));
    let failed = cluster.until::<CertificateSigningRequest>("", "serving", |csr| says(csr, "Failed").is_some()).await;
    assert_eq!(says(&failed, "Failed").as_deref(), Some("SignerValidationFailure"));
    assert_eq!(certificate(&failed), None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_tokens_go_when_their_time_is_over() {
    let cluster = Cluster::start().await;
    let secrets = cluster.api::<Secret>("kube-system");
    for (name, end) in [("old", "2020-01-01T00:00:00Z"), ("new", "2099-01-01T00:00:00Z")] {
        let secret = json!({
            "metadata": { "name": name }, "type": "bootstrap.kubernetes.io/token", "stringData": { "expiration": end },
        });
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }
    cluster.until_gone::<Secret>("kube-system", "old").await;
    assert!(secrets.get("new").await.is_ok());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_names_an_account_is_given_its_token_and_goes_with_it() {
    let cluster = Cluster::start().await;
    let accounts = cluster.api::<ServiceAccount>("default");
    let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "robot" } })).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let secrets = cluster.api::<Secret>("default");
    let secret = |account: &str| -> Secret {
        let annotations = json!({ "kubernetes.io/service-account.name": account });
        let metadata = json!({ "name": format!("of-{account}"), "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "type": "kubernetes.io/service-account-token" })).unwrap()
    };
    secrets.create(&PostParams::default(), &secret("robot")).await.unwrap();
    let data = |secret: &Secret, key: &str| {
        secret.data.as_ref().and_then(|data| data.get(key)).map(|value| String::from_utf8(value.0.clone()).unwrap())
    };
    let filled = cluster.until::<Secret>("default", "of-robot", |secret| data(secret, "token").is_some()).await;
    assert_eq!(data(&filled, "namespace").as_deref(), Some("default"));
    assert_eq!(data(&filled, "ca.crt").as_deref(), Some(crate::harness::ROOT_CA));
    let review = json!({ "spec": { "token": data(&filled, "token") } });
    let reviews = cluster.cluster_api::<TokenReview>();
    let review = reviews.create(&PostParams::default(), &serde_json::from_value(review).unwrap()).await.unwrap();
    let user = review.status.unwrap().user.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:robot"));
    // One for an account that is not there is nobody's.
    secrets.create(&PostParams::default(), &secret("nobody")).await.unwrap();
    cluster.until_gone::<Secret>("default", "of-nobody").await;
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<Secret>("default", "of-robot").await;
    cluster.stop().await;
}
