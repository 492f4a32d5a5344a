//! Pods that use more than they may, and a node that runs short: through the real agent and API server, the same for both kinds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::{Value, json};
use wherry_agent::ports::{Amount, ImageSource as _};
use wherry_runtime::fake::FakeRuntime;
use wherry_runtime::{ContainerSpec, DiskUse, ImageKind, MemoryUse, Stats};
use world::{Images, NODE, World};

const IMAGES: [&str; 2] = ["wasm:1", "oci:1"];
const MIB: u64 = 1 << 20;
/// Until the next look at what is used.
const LOOK: Duration = Duration::from_secs(11);

impl World {
    fn runtime(&self, image: &str) -> &FakeRuntime {
        if image == "wasm:1" { &self.wasm } else { &self.containers }
    }

    /// A container of a Pod that is ready.
    async fn ready_container(&self, image: &str, pod: &str, name: &str) -> ContainerSpec {
        self.ready(pod).await;
        let mut specs = self.runtime(image).specs().into_iter();
        specs.find(|spec| spec.pod.name == pod && spec.name == name).unwrap()
    }
}

/// A container that may have so much of the node's disk.
fn container(name: &str, image: &str, limit: Option<&str>) -> Value {
    let limits = limit.map(|limit| json!({ "ephemeral-storage": limit }));
    let mounts = json!([{ "name": "v", "mountPath": "/data" }]);
    json!({ "name": name, "image": image, "resources": { "limits": limits }, "volumeMounts": mounts })
}

#[tokio::test]
async fn who_outgrows_a_limit_is_evicted_and_nobody_else() {
    let world = World::new(50).await;
    for image in IMAGES {
        let pods = [
            ("volume", [None, None], json!({ "sizeLimit": "1Mi" })),
            ("pod", [Some("1Mi"), Some("1Mi")], json!({})),
            ("container", [Some("1Mi"), Some("9Mi")], json!({})),
            ("critical", [Some("1Mi"), None], json!({})),
            ("neighbour", [Some("1Mi"), Some("1Mi")], json!({ "sizeLimit": "1Mi" })),
        ];
        let named = |name: &str| format!("{name}-{}", &image[..3]);
        for (name, limits, volume) in pods {
            let containers = [container("a", image, limits[0]), container("b", image, limits[1])];
            let mut spec = json!({ "containers": containers, "volumes": [{ "name": "v", "emptyDir": volume }] });
            if name == "critical" {
                spec["priorityClassName"] = json!("system-node-critical");
            }
            world.create(&named(name), spec).await;
            world.ready_container(image, &named(name), "a").await;
        }
        for (name, size) in [("volume", 2 * MIB), ("pod", 3 * MIB), ("neighbour", MIB / 2)] {
            let spec = world.ready_container(image, &named(name), "a").await;
            let volume = spec.mounts.iter().find(|mount| mount.target.as_os_str() == "/data").unwrap();
            std::fs::write(volume.source.join("much"), vec![1; usize::try_from(size).unwrap()]).unwrap();
        }
        for name in ["container", "critical"] {
            let spec = world.ready_container(image, &named(name), "a").await;
            world.runtime(image).fill(&spec.id, DiskUse { bytes: 2 * MIB, inodes: 1 });
        }
        world.clock.advance(LOOK);
        for (name, told) in [
            ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
            ("pod", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
            ("container", "Container a exceeded its local ephemeral storage limit \"1Mi\". "),
        ] {
            let status = world.status(&named(name), "eviction", |status| status["phase"] == "Failed").await;
            assert_eq!((status["reason"].as_str(), status["message"].as_str()), (Some("Evicted"), Some(told)));
            assert_eq!(world.event(&named(name), "Evicted", "").await, told);
            assert_eq!(world::condition(&status, "DisruptionTarget"), "", "the node was not short of anything");
        }
        for name in ["critical", "neighbour"] {
            let status = world.ready(&named(name)).await;
            assert_eq!((&status["phase"], &status["reason"]), (&json!("Running"), &Value::Null));
        }
    }
}

/// A Pod of one container that requests so much memory.
fn requesting(image: &str, memory: Option<&str>) -> Value {
    let requests = memory.map(|memory| json!({ "memory": memory }));
    json!({ "containers": [{ "name": "c", "image": image, "resources": { "requests": requests } }] })
}

fn memory(bytes: u64) -> Stats {
    Stats { memory: MemoryUse { usage: bytes, working_set: bytes, ..MemoryUse::default() }, ..Stats::default() }
}

fn short_of(available: u64, capacity: u64) -> Option<Amount> {
    Some(Amount { available, capacity })
}

#[tokio::test]
async fn a_node_short_of_memory_evicts_one_pod_and_takes_none_that_says_not_what_it_needs() {
    for (image, subnet) in IMAGES.into_iter().zip(51..) {
        let world = World::new(subnet).await;
        // Each would have to go before the next.
        let pods = [("greedy", Some("64Mi"), 256), ("smaller", None, 128), ("keeping", Some("1Gi"), 512)];
        let mut started = Vec::new();
        for (name, request, used) in pods {
            world.create(name, requesting(image, request)).await;
            started.push((world.ready_container(image, name, "c").await.id, memory(used * MIB)));
        }
        world.machine().set(|left| left.memory = short_of(50 * MIB, 1 << 30));
        world.clock.advance(LOOK);
        world.node_condition("MemoryPressure", "True").await;
        world.event(NODE, "NodeHasInsufficientMemory", "Node n1 status is now: NodeHasInsufficientMemory").await;
        world.event(NODE, "EvictionThresholdMet", "Attempting to reclaim memory").await;
        // Nobody was chosen as long as it was not known what they use.
        for (id, stats) in started {
            world.runtime(image).use_up(&id, stats);
        }
        world.clock.advance(LOOK);
        let status = world.status("greedy", "eviction", |status| status["phase"] == "Failed").await;
        let told = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 256Mi, \
                    request is 64Mi, has larger consumption of memory. ";
        assert_eq!((status["reason"].as_str(), status["message"].as_str()), (Some("Evicted"), Some(told)));
        assert_eq!(world::condition(&status, "DisruptionTarget"), "True");
        let conditions = status["conditions"].as_array().unwrap();
        let target = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
        assert_eq!((target["reason"].as_str(), target["message"].as_str()), (Some("TerminationByKubelet"), Some(told)));
        assert_eq!(world.event("greedy", "Evicted", "").await, told);

        world.create("careless", requesting(image, None)).await;
        let status = world.status("careless", "refusal", |status| status["phase"] == "Failed").await;
        let refused = "Pod was rejected: The node had condition: [MemoryPressure]. ";
        assert_eq!((status["reason"].as_str(), status["message"].as_str()), (Some("Evicted"), Some(refused)));
        world.create("careful", requesting(image, Some("1Mi"))).await;
        world.ready("careful").await;

        // What it gave back is enough; the node is told to be short for a while longer.
        world.machine().set(|left| left.memory = short_of(1 << 29, 1 << 30));
        world.clock.advance(LOOK);
        world.create("too-early", requesting(image, None)).await;
        world.status("too-early", "refusal", |status| status["phase"] == "Failed").await;
        world.clock.advance(Duration::from_secs(300));
        world.node_condition("MemoryPressure", "False").await;
        world.create("in-time", requesting(image, None)).await;
        for name in ["smaller", "keeping", "in-time"] {
            assert_eq!(world.ready(name).await["phase"], "Running", "{name}");
        }
    }
}

/// What has not changed is not written: each write of the Node waits for the control plane's disk.
#[tokio::test]
async fn a_node_that_stays_as_it_is_is_not_written() {
    let world = World::new(56).await;
    world.machine().set(|left| left.memory = short_of(50 * MIB, 1 << 30));
    // A look that is planned as the clock moves is planned for later.
    let mut again = tokio::time::interval(Duration::from_millis(20));
    let moving = async {
        loop {
            again.tick().await;
            world.clock.advance(LOOK);
        }
    };
    tokio::select! {
        () = world.node_condition("MemoryPressure", "True") => {}
        () = moving => {}
    }
    let nodes: Api<Node> = Api::all(world.client.clone());
    let known = nodes.get(NODE).await.unwrap().metadata.resource_version.unwrap();
    let wanted = world.machine().looks() + 10;
    let look = async {
        while world.machine().looks() < wanted {
            world.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    world::soon("looks at the machine", look).await;
    world.machine().set(|left| left.memory = short_of(1 << 29, 1 << 30));
    world.clock.advance(LOOK);
    let changes = nodes.watch(&WatchParams::default().fields(&format!("metadata.name={NODE}")), &known).await.unwrap();
    let mut changes = std::pin::pin!(changes);
    let first = async {
        loop {
            world.clock.advance(LOOK);
            match futures::FutureExt::now_or_never(changes.next()) {
                Some(change) => break change,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let Some(Ok(WatchEvent::Modified(node))) = world::soon("a change of the Node", first).await else {
        panic!("no change of the Node");
    };
    let conditions = node.status.unwrap().conditions.unwrap();
    let pressure = conditions.iter().find(|condition| condition.type_ == "MemoryPressure").unwrap();
    assert_eq!(pressure.status, "False", "the Node was written with nothing new");
}

#[tokio::test]
async fn a_node_short_of_disk_gives_up_images_before_pods() {
    for (image, subnet) in IMAGES.into_iter().zip(53..) {
        let world = World::new(subnet).await;
        world.images.add("spare:1", if image == "wasm:1" { ImageKind::Wasm } else { ImageKind::Container }, true);
        world.create("spare", requesting("spare:1", None)).await;
        world.ready_container(image, "spare", "c").await;
        for (name, size) in [("large", 8), ("small", 4)] {
            world.create(name, requesting(image, None)).await;
            let spec = world.ready_container(image, name, "c").await;
            world.runtime(image).fill(&spec.id, DiskUse { bytes: size * MIB, inodes: 1 });
        }
        let prepared = |reference: &str| world.runtime(image).prepared().contains(&Images::digest(reference));
        assert!(prepared("spare:1") && prepared(image));
        world.delete("spare", 0).await;
        world.gone("spare").await;
        world.network.pods(2).await;

        // The images that nobody uses are enough for Pods, if not for what is wanted of the disk.
        let capacity = 100 * MIB;
        world.machine().set(|left| left.disk = short_of(5 * MIB - 1, capacity));
        world.clock.advance(LOOK);
        world.node_condition("DiskPressure", "True").await;
        world.event(NODE, "NodeHasDiskPressure", "NodeHasDiskPressure").await;
        world.event(NODE, "FreeDiskSpaceFailed", "(96% of 100.0 MiB used). Failed to free sufficient space").await;
        assert!(!prepared("spare:1") && prepared(image), "what was made of an image goes with it");
        assert!(world.images.get("spare:1").unwrap().is_none() && world.images.get(image).unwrap().is_some());
        for name in ["large", "small"] {
            assert_eq!(world.ready(name).await["phase"], "Running", "{name}");
        }

        // Now nothing is left but Pods.
        world.machine().set(|left| left.disk = short_of(MIB, capacity));
        world.clock.advance(LOOK);
        let status = world.status("large", "eviction", |status| status["phase"] == "Failed").await;
        let told = status["message"].as_str().unwrap();
        let low = "The node was low on resource: ephemeral-storage. Threshold quantity: 5Mi, available: 1Mi. Container c was using ";
        assert!(
            told.starts_with(low) && told.ends_with(", request is 0, has larger consumption of ephemeral-storage. "),
            "{told}"
        );
        assert_eq!(world::condition(&status, "DisruptionTarget"), "True");
        world.create("late", requesting(image, Some("1Mi"))).await;
        let status = world.status("late", "refusal", |status| status["phase"] == "Failed").await;
        assert_eq!(status["message"], "Pod was rejected: The node had condition: [DiskPressure]. ");
        assert_eq!(world.ready("small").await["phase"], "Running");
    }
}
