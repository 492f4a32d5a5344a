//! The server over the store on disk: what was there is there again.

use std::sync::Arc;

use serde_json::json;
use wherry_api::resource::Registry;
use wherry_server::{Config, describe};
use wherry_store::{LogStore, Options, open};

use crate::harness::*;

fn on_disk(dir: &std::path::Path) -> Arc<LogStore> {
    let registry = Arc::new(Registry::builtin());
    Arc::new(open(dir, Options::new(describe(registry))).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let api = Api::over(Config::new(store.clone())).await;
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    let made = api.post(PODS, &bound).await.expect(201);
    let service = json!({
        "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]},
    });
    let services = "/api/v1/namespaces/default/services";
    api.post(services, &service).await.expect(201);
    drop(api);
    store.close().await;
    drop(store);

    let store = on_disk(dir.path());
    let api = Api::over(Config::new(store.clone())).await;
    assert_eq!(api.get(&format!("{PODS}/p")).await.expect(200), made);
    // Selectors see what they saw before.
    for query in ["fieldSelector=spec.nodeName%3Dn1", "labelSelector=app%3Dp"] {
        let found = api.get(&format!("{PODS}?{query}")).await.expect(200);
        assert_eq!(found["items"], json!([made]), "{query}");
    }
    let mut again = service.clone();
    again["metadata"]["name"] = json!("t");
    assert_eq!(api.post(services, &again).await.code, 422);
    store.close().await;
}
