//! Resizes that the node has no room for, of both kinds: told, waited for, and forgotten by no restart.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use wherry_runtime::fake::FakeRuntime;
use world::{World, condition};

/// The node of a world has four cores.
fn kinds(world: &World) -> [(&'static str, &'static str, Arc<FakeRuntime>); 2] {
    [("wasm", "wasm:1", world.wasm.clone()), ("oci", "oci:1", world.containers.clone())]
}

fn requests(cpu: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": "64Mi" }, "limits": { "cpu": cpu, "memory": "64Mi" } })
}

fn container(image: &str, resources: Value) -> Value {
    json!({ "containers": [{ "name": "c", "image": image, "resources": resources }] })
}

async fn resize(world: &World, pod: &str, resources: Value) -> Pod {
    let patch = Patch::Strategic(json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } }));
    world.pods().patch_subresource("resize", pod, &PatchParams::default(), &patch).await.unwrap()
}

fn pending(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|one| one["type"] == "PodResizePending").unwrap_or_default()
}

fn allocated(status: &Value) -> &Value {
    &status["containerStatuses"][0]["allocatedResources"]["cpu"]
}

#[tokio::test]
async fn what_the_node_can_never_give_is_infeasible() {
    let world = World::new(91).await;
    for (pod, image, runtime) in kinds(&world) {
        world.create(pod, container(image, requests("100m"))).await;
        world.ready(pod).await;
        resize(&world, pod, requests("5")).await;
        let status = world.status(pod, "the refusal", |status| condition(status, "PodResizePending") == "True").await;
        let told = pending(&status);
        assert_eq!(told["reason"], "Infeasible");
        assert_eq!(told["message"], "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000");
        assert_eq!((&told["observedGeneration"], &status["observedGeneration"]), (&json!(2), &json!(2)));
        assert_eq!((allocated(&status), condition(&status, "PodResizeInProgress")), (&json!("100m"), ""));
        let text = world.event(pod, "ResizeInfeasible", "requested: 5000").await;
        let expected =
            "Pod resize Infeasible: {\"containers\":[{\"name\":\"c\",\"resources\":{\"limits\":{\"cpu\":\"5\",";
        assert!(text.starts_with(expected) && text.contains("\"generation\":2,\"error\":"), "{text}");
        // What is started meanwhile has what it was given before.
        let first = runtime.running("c", 0).await;
        runtime.exit(&first.id, 1);
        assert_eq!(runtime.running("c", 1).await.limits.cpu_millis, Some(100));
        resize(&world, pod, requests("200m")).await;
        let status = world.status(pod, "the second size", |status| allocated(status) == "200m").await;
        assert_eq!(condition(&status, "PodResizePending"), "");
        world.event(pod, "ResizeStarted", "\"generation\":3}").await;
        world.event(pod, "ResizeCompleted", "\"generation\":3}").await;
    }
}

#[tokio::test]
async fn what_finds_no_room_waits_for_it_in_its_turn() {
    let mut world = World::new(92).await;
    for (pod, image, runtime) in kinds(&world) {
        let burstable = json!({ "requests": { "cpu": "100m" } });
        world.create("holder", container(image, requests("3500m"))).await;
        world.create("burstable", container(image, burstable)).await;
        world.create(pod, container(image, requests("100m"))).await;
        for pod in ["holder", "burstable", pod] {
            world.ready(pod).await;
        }
        for (name, wanted) in [("burstable", json!({ "requests": { "cpu": "2" } })), (pod, requests("2500m"))] {
            resize(&world, name, wanted).await;
            let status = world.status(name, "the wait", |status| condition(status, "PodResizePending") == "True").await;
            assert_eq!(pending(&status)["reason"], "Deferred", "{name}");
            world.event(name, "ResizeDeferred", "used: 3600, capacity: 4000").await;
        }
        // Another life of the agent knows who waits, and for what.
        world.stop().await;
        world.start().await;
        let status = world.status(pod, "the wait", |status| condition(status, "PodResizePending") == "True").await;
        assert_eq!(allocated(&status), "100m");

        // Room for one of them: the one of the better quality of service, though it has waited less.
        resize(&world, "holder", requests("1")).await;
        let status = world.status(pod, "its turn", |status| allocated(status) == "2500m").await;
        assert_eq!(condition(&status, "PodResizePending"), "");
        world.event(pod, "ResizeCompleted", "\"cpu\":\"2500m\"").await;
        let attempt = u32::try_from(status["containerStatuses"][0]["restartCount"].as_u64().unwrap()).unwrap();
        let has =
            runtime.specs().into_iter().any(|spec| spec.attempt == attempt && spec.limits.cpu_millis == Some(2500));
        assert!(has, "{:?}", runtime.specs());
        let status = world.status("burstable", "the wait", |status| !pending(status).is_null()).await;
        assert_eq!(allocated(&status), "100m");

        // A Pod that goes leaves room.
        world.delete(pod, 0).await;
        world.status("burstable", "its turn", |status| allocated(status) == "2").await;
        for pod in ["holder", "burstable"] {
            world.delete(pod, 0).await;
            world.gone(pod).await;
        }
        world.gone(pod).await;
        runtime.empty().await;
    }
}

#[tokio::test]
async fn a_status_of_an_earlier_run_hides_no_size() {
    let mut world = World::new(93).await;
    for (pod, image, runtime) in kinds(&world) {
        let mut spec = container(image, requests("100m"));
        spec["containers"][0]["resizePolicy"] = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
        world.create(pod, spec).await;
        let before = world.ready(pod).await;
        resize(&world, pod, requests("200m")).await;
        assert_eq!(runtime.running("c", 1).await.limits.cpu_millis, Some(200));
        world.status(pod, "the second run", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
        world.ready(pod).await;

        // The agent dies before it has told of the second run, and the first size is asked for again.
        world.stop().await;
        let stale = Patch::Merge(json!({ "status": before }));
        world.pods().patch_status(pod, &PatchParams::default(), &stale).await.unwrap();
        resize(&world, pod, requests("100m")).await;
        world.start().await;
        let told = |status: &Value| {
            let container = &status["containerStatuses"][0];
            container["restartCount"] == 1 && container["resources"]["limits"]["cpu"] == "100m"
        };
        world.status(pod, "the run that there is", told).await;
        // What the status tells first is what was allocated: nobody knows yet what the container has.
        runtime.running_with("c", 1, |spec| spec.limits.cpu_millis == Some(100)).await;
    }
}
