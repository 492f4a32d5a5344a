//! Ephemeral containers of both kinds: added to a running Pod, run once, told, logged, ended with it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use wherry_runtime::Stream;
use world::{World, condition};

async fn debug(world: &World, pod: &str, container: Value) -> Result<Pod, kube::Error> {
    let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
    world.pods().patch_ephemeral_containers(pod, &PatchParams::default(), &patch).await
}

fn refusal(answer: Result<Pod, kube::Error>) -> String {
    match answer {
        Err(kube::Error::Api(status)) => status.message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_runs_once_beside_the_others_and_changes_nothing_for_them() {
    let world = World::new(82).await;
    for (pod, image, runtime) in [("wasm", "wasm:1", &world.wasm), ("oci", "oci:1", &world.containers)] {
        world.create(pod, json!({ "containers": [{ "name": "c", "image": image }] })).await;
        world.ready(pod).await;
        let before = runtime.running("c", 0).await;
        let target = json!({ "name": "debug", "image": image, "command": ["look"], "targetContainerName": "c" });
        let changed = debug(&world, pod, target).await.unwrap();
        assert_eq!(changed.metadata.generation, Some(2));
        let spec = runtime.running("debug", 0).await;
        assert_eq!((&spec.command, spec.network.ips()), (&vec!["look".to_owned()], before.network.ips()));
        let running = |status: &Value| status["ephemeralContainerStatuses"][0]["state"]["running"].is_object();
        let status = world.status(pod, "the debug container", running).await;
        assert_eq!(
            (condition(&status, "Ready"), &status["ephemeralContainerStatuses"][0]["ready"]),
            ("True", &json!(false))
        );
        let about = "spec.ephemeralContainers{debug}";
        assert_eq!(world.event_about(pod, "Started", about).await, "Container started");
        runtime.print(&spec.id, Stream::Stdout, "seen\n").await;
        runtime.exit(&spec.id, 3);
        let ended = |status: &Value| status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3;
        let status = world.status(pod, "its end", ended).await;
        assert_eq!((&status["phase"], condition(&status, "Ready")), (&json!("Running"), "True"));
        assert_eq!(status["ephemeralContainerStatuses"][0]["restartCount"], 0);
        assert_eq!(world.text(&format!("/containerLogs/default/{pod}/debug")).await, (200, "seen\n".to_owned()));
        // A second one, which is there when the Pod ends.
        debug(&world, pod, json!({ "name": "more", "image": image })).await.unwrap();
        runtime.running("more", 0).await;
        world.delete(pod, 30).await;
        world.gone(pod).await;
        runtime.empty().await;
    }
}

#[tokio::test]
async fn it_does_not_hold_a_finished_pod_up() {
    let world = World::new(83).await;
    for (pod, image, runtime) in [("wasm", "wasm:1", &world.wasm), ("oci", "oci:1", &world.containers)] {
        world.create(pod, json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": image }] })).await;
        world.ready(pod).await;
        debug(&world, pod, json!({ "name": "debug", "image": image })).await.unwrap();
        runtime.running("debug", 0).await;
        runtime.exit(&runtime.running("c", 0).await.id, 0);
        world.status(pod, "success", |status| status["phase"] == "Succeeded").await;
        let ended = |status: &Value| status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 143;
        world.status(pod, "the end of the debug container", ended).await;
    }
}

#[tokio::test]
async fn an_agent_that_restarts_knows_it_and_does_not_run_it_again() {
    let mut world = World::new(84).await;
    world.create("p", json!({ "containers": [{ "name": "c", "image": "oci:1" }] })).await;
    world.ready("p").await;
    for name in ["one", "two"] {
        debug(&world, "p", json!({ "name": name, "image": "oci:1" })).await.unwrap();
        world.containers.running(name, 0).await;
    }
    // A patch may put what it adds before what is there.
    let of = |status: &Value, name: &str| {
        let all = status["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["name"] == name).unwrap_or_default()
    };
    let both = |status: &Value| ["one", "two"].iter().all(|name| of(status, name)["state"]["running"].is_object());
    world.status("p", "both", both).await;
    let gone = world.containers.running("one", 0).await;
    world.stop().await;
    world.containers.exit(&gone.id, 5);
    world.start().await;
    let ended = |status: &Value| of(status, "one")["state"]["terminated"]["exitCode"] == 5;
    let status = world.status("p", "the end that nobody saw", ended).await;
    assert!(of(&status, "two")["state"]["running"].is_object());
    assert_eq!(world.containers.specs().iter().filter(|spec| spec.name == "one").count(), 0);
}

#[tokio::test]
async fn what_it_may_not_be_is_refused() {
    let world = World::new(85).await;
    world.create("p", json!({ "containers": [{ "name": "c", "image": "wasm:1" }] })).await;
    world.ready("p").await;
    let wrong = [
        (json!({ "name": "c", "image": "i" }), "spec.ephemeralContainers[0].name: Duplicate value: \"c\""),
        (
            json!({ "name": "d", "image": "i", "ports": [{ "containerPort": 1 }] }),
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({ "name": "d", "image": "i", "resources": { "limits": { "cpu": "1" } } }),
            "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({ "name": "d", "image": "i", "lifecycle": { "preStop": { "sleep": { "seconds": 1 } } } }),
            "spec.ephemeralContainers[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({ "name": "d", "image": "i", "targetContainerName": "nobody" }),
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"nobody\"",
        ),
        (json!({ "name": "d" }), "spec.ephemeralContainers[0].image: Required value"),
    ];
    for (container, message) in wrong {
        let said = refusal(debug(&world, "p", container).await);
        assert!(said.contains(message), "{said}");
    }
    debug(&world, "p", json!({ "name": "d", "image": "wasm:1" })).await.unwrap();
    let said = refusal(debug(&world, "p", json!({ "name": "d", "image": "oci:1" })).await);
    assert!(
        said.contains("spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed"),
        "{said}"
    );
    // PUT takes the whole Pod; of it only the list is taken over.
    let mut pod = world.pods().get_ephemeral_containers("p").await.unwrap();
    pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    pod.spec.as_mut().unwrap().ephemeral_containers = None;
    let said = refusal(world.pods().replace_ephemeral_containers("p", &PostParams::default(), &pod).await);
    assert!(said.contains("existing ephemeral containers \"d\" may not be removed"), "{said}");
    let mut pod = world.pods().get_ephemeral_containers("p").await.unwrap();
    pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let put = world.pods().replace_ephemeral_containers("p", &PostParams::default(), &pod).await.unwrap();
    assert_eq!(put.metadata.labels, None);
}

#[tokio::test]
async fn a_container_cannot_join_a_pod_that_has_no_namespace_for_it() {
    let world = World::new(86).await;
    world.create("p", json!({ "containers": [{ "name": "c", "image": "wasm:1" }] })).await;
    world.ready("p").await;
    debug(&world, "p", json!({ "name": "d", "image": "oci:1" })).await.unwrap();
    let waits = |status: &Value| {
        status["ephemeralContainerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerError"
    };
    let status = world.status("p", "a refusal", waits).await;
    let said = status["ephemeralContainerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(said.contains("a Pod of WebAssembly alone has no network namespace"), "{said}");
    assert_eq!(condition(&status, "Ready"), "True");
}
