//! In-place resize of both kinds, through the subresource.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use wherry_runtime::fake::Call;
use world::{World, condition};

fn amounts(cpu: &str, memory: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } })
}

async fn resize(world: &World, pod: &str, resources: Value) -> Result<Pod, kube::Error> {
    let patch = Patch::Strategic(json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } }));
    world.pods().patch_subresource("resize", pod, &PatchParams::default(), &patch).await
}

fn has(cpu: &'static str) -> impl Fn(&Value) -> bool + Send {
    move |status| {
        let container = &status["containerStatuses"][0];
        container["resources"]["limits"]["cpu"] == cpu && container["allocatedResources"]["cpu"] == cpu
    }
}

#[tokio::test]
async fn a_running_container_gets_other_limits_and_runs_on() {
    let world = World::new(88).await;
    for (pod, image, runtime) in [("wasm", "wasm:1", &world.wasm), ("oci", "oci:1", &world.containers)] {
        let container = json!({ "name": "c", "image": image, "resources": amounts("100m", "64Mi") });
        world.create(pod, json!({ "containers": [container] })).await;
        world.ready(pod).await;
        let changed = resize(&world, pod, amounts("250m", "128Mi")).await.unwrap();
        assert_eq!(changed.metadata.generation, Some(2));
        let status = world.status(pod, "the new limits", has("250m")).await;
        assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
        let spec = runtime.running("c", 0).await;
        assert_eq!((spec.limits.cpu_millis, spec.limits.memory_bytes), (Some(250), Some(128 << 20)));
        // One that fails is told, and what runs stays as it is.
        runtime.fail(Call::Update, "device or resource busy");
        resize(&world, pod, amounts("300m", "64Mi")).await.unwrap();
        // It is under way first, and without a reason until it has failed.
        let progress = |status: &Value| {
            let all = status["conditions"].as_array()?;
            all.iter().find(|one| one["type"] == "PodResizeInProgress").cloned()
        };
        let failed = |status: &Value| progress(status).is_some_and(|told| told["reason"] == "Error");
        let status = world.status(pod, "the failure", failed).await;
        let told = progress(&status).unwrap();
        assert_eq!((&told["status"], &told["message"]), (&json!("True"), &json!("c: device or resource busy")));
        assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["cpu"], "250m");
        resize(&world, pod, amounts("200m", "128Mi")).await.unwrap();
        let status = world.status(pod, "the last limits", has("200m")).await;
        assert_eq!(condition(&status, "PodResizeInProgress"), "");
    }
}

#[tokio::test]
async fn a_resize_policy_may_ask_for_a_restart() {
    let world = World::new(89).await;
    for (pod, image, runtime) in [("wasm", "wasm:1", &world.wasm), ("oci", "oci:1", &world.containers)] {
        let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
        let container =
            json!({ "name": "c", "image": image, "resources": amounts("100m", "64Mi"), "resizePolicy": policy });
        world.create(pod, json!({ "containers": [container] })).await;
        world.ready(pod).await;
        resize(&world, pod, amounts("200m", "64Mi")).await.unwrap();
        world.status(pod, "more CPU", has("200m")).await;
        resize(&world, pod, amounts("200m", "128Mi")).await.unwrap();
        world.event(pod, "Killing", "Container c resize requires restart").await;
        let spec = runtime.running("c", 1).await;
        assert_eq!(spec.limits.memory_bytes, Some(128 << 20));
        world.ready(pod).await;
    }
}

#[tokio::test]
async fn only_amounts_change_and_within_the_quality_of_service() {
    let world = World::new(90).await;
    let container = json!({ "name": "c", "image": "wasm:1", "resources": amounts("100m", "64Mi") });
    world.create("p", json!({ "containers": [container] })).await;
    world.ready("p").await;
    let wrong = [
        (
            json!({ "requests": { "cpu": "50m" } }),
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
        ),
        (
            json!({ "limits": { "memory": null } }),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!({ "limits": { "ephemeral-storage": "1Gi" } }),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
    ];
    for (resources, message) in wrong {
        let said = match resize(&world, "p", resources).await {
            Err(kube::Error::Api(status)) => status.message,
            other => panic!("{other:?}"),
        };
        assert!(said.contains(message), "{said}");
    }
    let patch = json!({ "spec": { "containers": [{ "name": "c", "image": "other" }] } });
    let same =
        world.pods().patch_subresource("resize", "p", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    assert_eq!(same.spec.unwrap().containers[0].image.as_deref(), Some("wasm:1"), "only resources are taken over");
}
