//! Sidecars and restart rules, of both kinds, against a real API server.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::sync::Arc;

use serde_json::{Value, json};
use wherry_runtime::fake::FakeRuntime;
use world::{World, condition};

/// Both kinds: their image and their runtime.
fn kinds(world: &World) -> [(&'static str, &'static str, Arc<FakeRuntime>); 2] {
    [("wasm", "wasm:1", world.wasm.clone()), ("oci", "oci:1", world.containers.clone())]
}

fn sidecar(image: &str) -> Value {
    json!({ "name": "s", "image": image, "restartPolicy": "Always" })
}

#[tokio::test]
async fn a_sidecar_runs_beside_the_container_and_does_not_hold_its_pod_up() {
    let world = World::new(71).await;
    for (pod, image, runtime) in kinds(&world) {
        let spec = json!({
            "restartPolicy": "Never",
            "initContainers": [sidecar(image)],
            "containers": [{ "name": "c", "image": image }],
        });
        world.create(pod, spec).await;
        let first = runtime.running("s", 0).await;
        let main = runtime.running("c", 0).await;
        let status = world.ready(pod).await;
        assert_eq!(
            (&status["initContainerStatuses"][0]["ready"], &status["initContainerStatuses"][0]["started"]),
            (&json!(true), &json!(true))
        );
        runtime.exit(&first.id, 0);
        runtime.running("s", 1).await;
        world.event(pod, "Started", "").await;
        runtime.exit(&main.id, 0);
        let status = world.status(pod, "success", |status| status["phase"] == "Succeeded").await;
        assert_eq!(world.event(pod, "Killing", "").await, "Stopping container s");
        assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
        assert_eq!(status["initContainerStatuses"][0]["restartCount"], 1);
        assert_eq!(condition(&status, "Ready"), "False");
    }
}

#[tokio::test]
async fn a_sidecar_gets_term_only_after_the_container_has_ended() {
    let world = World::new(72).await;
    for (pod, image, runtime) in kinds(&world) {
        let spec = json!({ "initContainers": [sidecar(image)], "containers": [{ "name": "c", "image": image }] });
        world.create(pod, spec).await;
        let first = runtime.running("s", 0).await;
        let main = runtime.running("c", 0).await;
        world.ready(pod).await;
        runtime.ignore_term(true);
        world.delete(pod, 30).await;
        // Both are told, but the container goes on: it ignores Term. A Term that the sidecar had now would be ignored, too, and
        // nothing would end it, for this clock stands still.
        world.event(pod, "Killing", "Stopping container s").await;
        runtime.ignore_term(false);
        assert!(runtime.specs().iter().any(|spec| spec.id == first.id));
        runtime.exit(&main.id, 0);
        world.gone(pod).await;
    }
}

#[tokio::test]
async fn a_rule_restarts_one_container_or_all() {
    let world = World::new(73).await;
    for (pod, image, runtime) in kinds(&world) {
        let rule =
            |action: &str, code: i32| json!({ "action": action, "exitCodes": { "operator": "In", "values": [code] } });
        let spec = json!({
            "restartPolicy": "Never",
            "initContainers": [{ "name": "i", "image": image }],
            "containers": [
                { "name": "c", "image": image, "restartPolicy": "Never", "restartPolicyRules": [rule("Restart", 42), rule("RestartAllContainers", 88)] },
                { "name": "d", "image": image },
            ],
        });
        world.create(pod, spec).await;
        runtime.exit(&runtime.running("i", 0).await.id, 0);
        runtime.exit(&runtime.running("c", 0).await.id, 42);
        let again = runtime.running("c", 1).await;
        runtime.running("d", 0).await;
        runtime.exit(&again.id, 88);
        // All begin anew, the init container first.
        runtime.exit(&runtime.running("i", 1).await.id, 0);
        let other = runtime.running("d", 1).await;
        // This end is the second in a row.
        world.clock.advance(std::time::Duration::from_secs(10));
        let last = runtime.running("c", 2).await;
        runtime.exit(&other.id, 0);
        runtime.exit(&last.id, 1);
        let status = world.status(pod, "failure", |status| status["phase"] == "Failed").await;
        assert_eq!(condition(&status, "AllContainersRestarting"), "False");
    }
}
