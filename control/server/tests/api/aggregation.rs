//! Extension API servers: what an APIService gives to a Service is asked there, in the name of who asks.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wherry_server::pki::Pki;
use wherry_server::{Config, User};
use wherry_test::Extension;

use crate::harness::*;

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
const AGGREGATED: (&str, &str) = ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// A server that keeps its APIServices, until it is dropped.
struct Kept {
    api: Api,
    authority: String,
    cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Kept {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let front_proxy = Pki::open(dir.path()).unwrap().front_proxy().unwrap();
        let authority = front_proxy.authority.clone();
        let api = Api::over(Config { front_proxy: Some(front_proxy), ..Config::new(store()) }).await;
        let (server, cancel) = (api.server.clone(), CancellationToken::new());
        let until = cancel.clone();
        tokio::spawn(async move { server.maintain(until).await });
        Self { api, authority, cancel, _dir: dir }
    }

    /// Waits until an APIService's condition is for this reason.
    async fn until(&self, name: &str, reason: &str) -> Value {
        let path = format!("{API_SERVICES}?fieldSelector=metadata.name%3D{name}&watch=true");
        let mut events = self.api.watch(&path, &[]).await;
        let reached = async {
            loop {
                let object = events.next().await.unwrap()["object"].clone();
                if object["status"]["conditions"][0]["reason"] == reason {
                    return object;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("{name}: no {reason}"))
    }

    async fn register(&self, extension: &Extension) {
        for object in extension.manifests("default", "external") {
            let path = if object["kind"] == "Service" { "/api/v1/namespaces/default/services" } else { API_SERVICES };
            self.api.post(path, &object).await.expect(201);
        }
        self.until("v1beta1.external.metrics.k8s.io", "Passed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_here_is_shown_and_stays() {
    let kept = Kept::start().await;
    for name in ["v1.", "v1.apps", "v2.autoscaling"] {
        let object = kept.until(name, "Local").await;
        assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    }
    let uid = kept.api.get(&format!("{API_SERVICES}/v1.apps")).await.expect(200)["metadata"]["uid"].clone();
    kept.api.delete(&format!("{API_SERVICES}/v1.apps"), None).await.expect(200);
    let again = kept.until("v1.apps", "Local").await;
    assert_ne!(again["metadata"]["uid"], uid);
    assert_eq!(kept.api.get(DEPLOYMENTS).await.code, 200);
    let taken = json!({
        "metadata": {"name": "v1.apiregistration.k8s.io"},
        "spec": {
            "group": "apiregistration.k8s.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "service": {"namespace": "default", "name": "nobody"},
        },
    });
    kept.api.post(API_SERVICES, &taken).await.expect(201);
    kept.until("v1.apiregistration.k8s.io", "ServiceNotFound").await;
    assert_eq!(kept.api.get(API_SERVICES).await.code, 200, "the way back is never given away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_by_the_extension_in_the_name_of_its_user() {
    let kept = Kept::start().await;
    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = kept.api.get(map).await.expect(200)["data"].clone();
    assert_eq!(data["requestheader-client-ca-file"], kept.authority.as_str());
    assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert_eq!(kept.api.get(EXTERNAL).await.code, 404);

    let extension = Extension::start("external.default.svc", &kept.authority).unwrap();
    extension.set(7);
    kept.register(&extension).await;
    let path = format!("{EXTERNAL}/namespaces/default/queue_length?labelSelector=a%3Db");
    let jane = kept.api.as_user(User::new("jane", ["devs"]));
    assert_eq!(jane.get(&path).await.expect(403)["reason"], "Forbidden");

    let claims = [("x-remote-user", "root"), ("x-remote-group", "others"), ("authorization", "Bearer secret")];
    let told = kept.api.send("GET", &path, &claims, "").await.expect(200);
    assert_eq!(told["items"][0]["value"], "7");
    // The server asks it for its documents meanwhile.
    let heard = extension.heard().into_iter().rfind(|one| one.starts_with(&format!("GET {path} HTTP/1.1"))).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    let about = |name: &str| -> Vec<&str> {
        lines.iter().filter_map(|line| line.split_once(": ")).filter(|(key, _)| *key == name).map(|(_, v)| v).collect()
    };
    assert_eq!(about("x-remote-user"), ["kubernetes-admin"]);
    assert_eq!(about("x-remote-group"), ["system:masters", "system:authenticated"]);
    assert_eq!(about("host"), ["external.default.svc"]);
    assert!(about("authorization").is_empty());

    let listed = kept.api.get("/apis").await.expect(200);
    let group = listed["groups"].as_array().unwrap().iter().find(|group| group["name"] == "external.metrics.k8s.io");
    assert_eq!(group.unwrap()["preferredVersion"]["version"], "v1beta1");
    assert_eq!(kept.api.get(EXTERNAL).await.expect(200)["resources"][0]["name"], "externalmetrics");
    let version = version(&kept).await;
    assert_eq!(version["freshness"], "Current");
    assert_eq!(version["resources"][0]["responseKind"]["kind"], "ExternalMetricValueList");
    let index = kept.api.get("/openapi/v3").await.expect(200);
    let document = index["paths"]["apis/external.metrics.k8s.io/v1beta1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(kept.api.get(document).await.expect(200)["info"]["title"], "external");

    // Nobody is there any more: that is seen by who asks, and told once the Service leads nowhere.
    drop(extension);
    assert_eq!(kept.api.get(&path).await.code, 503);
    kept.api.delete("/api/v1/namespaces/default/services/external", None).await.expect(200);
    kept.until("v1beta1.external.metrics.k8s.io", "ServiceNotFound").await;
    let unavailable = kept.api.get(&path).await;
    assert_eq!((unavailable.code, unavailable.text.as_str()), (503, "service unavailable\n"));
    assert_eq!(self::version(&kept).await["freshness"], "Stale");
    kept.api.delete(&format!("{API_SERVICES}/v1beta1.external.metrics.k8s.io"), None).await.expect(200);
    assert_eq!(kept.api.get(&path).await.code, 404);
}

/// What aggregated discovery tells of external metrics.
async fn version(kept: &Kept) -> Value {
    let all = kept.api.send("GET", "/apis", &[AGGREGATED], "").await.expect(200);
    let items = all["items"].as_array().unwrap();
    let group = items.iter().find(|group| group["metadata"]["name"] == "external.metrics.k8s.io").unwrap();
    group["versions"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_is_not_who_it_should_be_is_not_asked() {
    let kept = Kept::start().await;
    let extension = Extension::start("another.default.svc", &kept.authority).unwrap();
    for object in extension.manifests("default", "external") {
        let path = if object["kind"] == "Service" { "/api/v1/namespaces/default/services" } else { API_SERVICES };
        kept.api.post(path, &object).await.expect(201);
    }
    let object = kept.until("v1beta1.external.metrics.k8s.io", "FailedDiscoveryCheck").await;
    let why = object["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(why.contains("https://external.default.svc:") && why.contains("certificate"), "{why}");
    assert_eq!(kept.api.get(EXTERNAL).await.code, 503);
    assert!(extension.heard().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn built_in_metrics_yield_to_somebody_elses() {
    let kept = Kept::start().await;
    let built_in = "/apis/custom.metrics.k8s.io/v1beta2";
    assert_eq!(kept.api.get(built_in).await.code, 200);
    let adapter = json!({
        "metadata": {"name": "v1beta1.custom.metrics.k8s.io"},
        "spec": {
            "group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "adapter"},
        },
    });
    kept.api.post(API_SERVICES, &adapter).await.expect(201);
    assert_eq!(kept.api.get(built_in).await.code, 404);
    assert_eq!(kept.api.get("/apis/custom.metrics.k8s.io/v1beta1").await.code, 503);
    let group = kept.api.get("/apis/custom.metrics.k8s.io").await.expect(200);
    assert_eq!(group["versions"], json!([{"groupVersion": "custom.metrics.k8s.io/v1beta1", "version": "v1beta1"}]));
    kept.api.delete(&format!("{API_SERVICES}/v1beta1.custom.metrics.k8s.io"), None).await.expect(200);
    assert_eq!(kept.api.get(built_in).await.code, 200);
}
