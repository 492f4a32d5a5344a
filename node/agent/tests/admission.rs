//! Pods that are bound to a node which cannot have them, of both kinds: failed with kubelet's reason, and nobody else harmed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use serde_json::{Value, json};
use world::World;

fn pod(image: &str, more: &Value) -> Value {
    let mut container = json!({ "name": "c", "image": image });
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "containers": [container] })
}

/// The node of a world has four cores.
#[tokio::test]
async fn what_the_node_cannot_have_is_refused_by_its_reason() {
    let world = World::new(94).await;
    for (image, runtime) in [("wasm:1", world.wasm.clone()), ("oci:1", world.containers.clone())] {
        let port = json!({ "ports": [{ "containerPort": 80, "hostPort": 8080 }] });
        let cpu = |amount: &str| json!({ "resources": { "requests": { "cpu": amount } } });
        world.create("first", pod(image, &port)).await;
        world.ready("first").await;
        world.create("half", pod(image, &cpu("3"))).await;
        world.ready("half").await;
        let cases = [
            (
                "same-port",
                &port,
                "NodePorts",
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
            ),
            (
                "too-much",
                &cpu("1500m"),
                "OutOfcpu",
                "Node didn't have enough resource: cpu, requested: 1500, used: 3000, capacity: 4000",
            ),
        ];
        for (name, more, reason, message) in cases {
            world.create(name, pod(image, more)).await;
            let status = world.status(name, "the refusal", |status| status["phase"] == "Failed").await;
            assert_eq!(status["reason"], reason, "{status}");
            assert_eq!(status["message"], format!("Pod was rejected: {message}"));
            assert_eq!(world.event(name, reason, "").await, message);
        }
        assert_eq!(runtime.specs().len(), 2, "nothing of them was made");

        // Room again: for those that come now.
        for gone in ["half", "first"] {
            world.delete(gone, 0).await;
            world.gone(gone).await;
        }
        world.create("late", pod(image, &json!({ "ports": port["ports"], "resources": cpu("4")["resources"] }))).await;
        world.ready("late").await;
        for gone in ["late", "same-port", "too-much"] {
            world.delete(gone, 0).await;
            world.gone(gone).await;
        }
        runtime.empty().await;
    }
}
