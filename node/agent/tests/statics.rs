//! Static Pods through the real agent and API server, of both kinds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use world::{World, soon};

const IMAGES: [(&str, &str); 2] = [("wasm", "wasm:1"), ("oci", "oci:1")];

impl World {
    /// A world whose agent has a directory of manifests.
    async fn with_manifests(subnet: u8) -> Self {
        let mut world = Self::new(subnet).await;
        world.stop().await;
        world.manifests = Some(tempfile::tempdir().unwrap());
        world
    }

    fn file(&self, name: &str) -> PathBuf {
        self.manifests.as_ref().unwrap().path().join(name)
    }

    /// Writes a manifest.
    fn write(&self, name: &str, namespace: &str, image: &str, variable: &str) {
        let container = json!({ "name": name, "image": image, "env": [{ "name": "A", "value": variable }] });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] },
        });
        std::fs::write(self.file(name), pod.to_string()).unwrap();
    }

    /// Waits for a Pod.
    async fn pod(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool + Send) -> Value {
        let wanted = |pod: Option<&Pod>| pod.is_some_and(|pod| wanted(&serde_json::to_value(pod).unwrap()));
        let found = soon(what, await_condition(self.pods(), name, wanted)).await.unwrap();
        serde_json::to_value(found.unwrap()).unwrap()
    }

    /// Waits until a Pod other than this is ready.
    async fn another(&self, name: &str, than: &Value) -> Value {
        let uid = than["metadata"]["uid"].clone();
        let ready = |pod: &Value| world::condition(&pod["status"], "Ready") == "True";
        self.pod(name, "another Pod", move |pod| pod["metadata"]["uid"] != uid && ready(pod)).await
    }
}

#[tokio::test]
async fn a_manifest_runs_is_shown_and_is_nobody_s_to_end() {
    let mut world = World::with_manifests(91).await;
    for (name, image) in IMAGES {
        world.write(name, "", image, "1");
    }
    world.start().await;
    for (name, _) in IMAGES {
        let shown = format!("{name}-n1");
        let first = world.another(&shown, &json!({})).await;
        let meta = &first["metadata"];
        let hash = meta["annotations"]["kubernetes.io/config.hash"].as_str().unwrap();
        assert_eq!(meta["annotations"]["kubernetes.io/config.mirror"], hash);
        assert_eq!(meta["annotations"]["kubernetes.io/config.source"], "file");
        assert_eq!(meta["ownerReferences"][0]["kind"], "Node");
        assert_ne!(meta["uid"], hash);
        // The API cannot end it.
        world.delete(&shown, 30).await;
        let again = world.another(&shown, &first).await;
        let container = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
        assert_eq!(container(&again)["containerID"], container(&first)["containerID"]);
        assert_eq!(container(&again)["restartCount"], 0);
    }
    // Neither does an agent's end.
    world.stop().await;
    world.start().await;
    for (name, image) in IMAGES {
        let shown = format!("{name}-n1");
        let before = world.another(&shown, &json!({})).await;
        assert_eq!(before["status"]["containerStatuses"][0]["restartCount"], 0);
        // Another manifest is another Pod.
        world.write(name, "", image, "2");
        let after = world.another(&shown, &before).await;
        assert_eq!(after["spec"]["containers"][0]["env"][0]["value"], "2");
        let hash = |pod: &Value| pod["metadata"]["annotations"]["kubernetes.io/config.hash"].clone();
        assert_ne!(hash(&after), hash(&before));
        std::fs::remove_file(world.file(name)).unwrap();
        world.gone(&shown).await;
    }
    world.network.emptied().await;
}

#[tokio::test]
async fn what_the_api_does_not_take_runs_all_the_same() {
    let mut world = World::with_manifests(92).await;
    world.start().await;
    for (name, image) in IMAGES {
        world.write(name, "later", image, "1");
    }
    world.wasm.running("wasm", 0).await;
    world.containers.running("oci", 0).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": "later" } })).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    // Once it may be shown, it is.
    for (name, _) in IMAGES {
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), "later");
        let shown = format!("{name}-n1");
        let runs = |pod: Option<&Pod>| {
            let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
            phase == Some("Running")
        };
        let shown = soon("the mirror Pod", async {
            loop {
                // It is tried again after a while.
                world.clock.advance(std::time::Duration::from_secs(5));
                let wait = await_condition(pods.clone(), &shown, runs);
                if tokio::time::timeout(std::time::Duration::from_millis(200), wait).await.is_ok() {
                    return;
                }
            }
        });
        shown.await;
    }
}
