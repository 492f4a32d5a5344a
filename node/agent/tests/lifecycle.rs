//! The agent against a real API server: start, crash, stop, refuse, restart.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use wherry_runtime::ImageKind;
use wherry_runtime::fake::Call;
use world::{World, condition, soon};

fn one(image: &str) -> Value {
    json!({ "containers": [{ "name": "c", "image": image }] })
}

#[tokio::test]
async fn both_kinds_start_and_are_ready() {
    let world = World::new(1).await;
    for (name, image, runtime) in [("w", "wasm:1", &world.wasm), ("o", "oci:1", &world.containers)] {
        let created = world.create(name, one(image)).await;
        let status = world.ready(name).await;
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["hostIP"], "127.0.0.1");
        assert!(status["podIP"].as_str().unwrap().starts_with("127.77.1."));
        let container = &status["containerStatuses"][0];
        let info = wherry_runtime::Runtime::info(&**runtime);
        assert!(container["containerID"].as_str().unwrap().starts_with(&format!("{}://", info.name)));
        assert_eq!(
            (&container["ready"], &container["started"], &container["restartCount"]),
            (&json!(true), &json!(true), &json!(0))
        );
        let spec = runtime.running("c", 0).await;
        assert_eq!(Some(&spec.pod.uid), created.metadata.uid.as_ref());
        assert_eq!(spec.network.namespace().is_some(), image == "oci:1", "only containers need a namespace");
        assert!(spec.mounts.iter().any(|mount| mount.target.ends_with("termination-log")));
        let hosts = spec.mounts.iter().find(|mount| mount.target.ends_with("hosts")).unwrap();
        assert!(
            std::fs::read_to_string(&hosts.source)
                .unwrap()
                .contains(&format!("{}\t{name}", status["podIP"].as_str().unwrap()))
        );
        assert_eq!(
            world.event(name, "Pulled", "").await,
            format!("Container image \"{image}\" already present on machine and can be accessed by the pod")
        );
        assert_eq!(world.event(name, "Created", "").await, "Container created");
        assert_eq!(world.event(name, "Started", "").await, "Container started");
    }
}

#[tokio::test]
async fn a_crash_is_restarted_then_held_back_and_told() {
    let world = World::new(2).await;
    world.create("p", one("wasm:1")).await;
    let spec = world.wasm.running("c", 0).await;
    world.wasm.exit_with(&spec.id, 134, false, Some("wasm trap: unreachable"));
    let spec = world.wasm.running("c", 1).await;
    let status = world.status("p", "a restart", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let last = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"], &last["message"]),
        (&json!(134), &json!("Error"), &json!("wasm trap: unreachable"))
    );
    world.wasm.exit_with(&spec.id, 137, true, None);
    let status = world.waiting("p", "CrashLoopBackOff").await;
    assert_eq!(status["phase"], "Running");
    let container = &status["containerStatuses"][0];
    assert!(
        container["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container=c pod=p_default(")
    );
    assert_eq!(container["lastState"]["terminated"]["reason"], "OOMKilled");
    world.event("p", "BackOff", "Back-off restarting failed container c in pod p_default(").await;
    world.clock.advance(Duration::from_secs(10));
    world.wasm.running("c", 2).await;
    world.status("p", "the second restart", |status| status["containerStatuses"][0]["restartCount"] == 2).await;
}

#[tokio::test]
async fn init_containers_then_containers_then_success() {
    let world = World::new(3).await;
    let spec = json!({ "restartPolicy": "Never", "initContainers": [{ "name": "i", "image": "wasm:1" }], "containers": [{ "name": "c", "image": "oci:1" }] });
    world.create("p", spec).await;
    let init = world.wasm.running("i", 0).await;
    let status = world.waiting("p", "PodInitializing").await;
    assert_eq!(condition(&status, "Initialized"), "False");
    world.wasm.exit(&init.id, 0);
    let main = world.containers.running("c", 0).await;
    std::fs::write(
        &main.mounts.iter().find(|mount| mount.target.ends_with("termination-log")).unwrap().source,
        "all done",
    )
    .unwrap();
    world.containers.exit(&main.id, 0);
    let status = world.status("p", "success", |status| status["phase"] == "Succeeded").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["message"]), (&json!("Completed"), &json!("all done")));
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
    world.delete("p", 30).await;
    world.gone("p").await;
    world.network.emptied().await;
}

#[tokio::test]
async fn a_deleted_pod_gets_term_then_kill_at_the_end_of_its_grace() {
    let world = World::new(4).await;
    world.create("polite", one("wasm:1")).await;
    world.ready("polite").await;
    world.delete("polite", 30).await;
    world.gone("polite").await;
    world.event("polite", "Killing", "Stopping container c").await;

    world.wasm.ignore_term(true);
    world.create("stubborn", one("wasm:1")).await;
    world.ready("stubborn").await;
    world.delete("stubborn", 30).await;
    world.event("stubborn", "Killing", "Stopping container c").await;
    assert_eq!(world.wasm.specs().len(), 1, "it goes on until its grace is over");
    world.clock.advance(Duration::from_secs(31));
    world.gone("stubborn").await;
    soon("the removal", world.wasm.empty()).await;
    assert!(std::fs::read_dir(world.dir.path().join("pods")).unwrap().count() <= 1);
}

#[tokio::test]
async fn a_pod_that_is_gone_by_force_is_ended_all_the_same() {
    let world = World::new(5).await;
    world.create("p", one("oci:1")).await;
    world.ready("p").await;
    world.delete("p", 0).await;
    world.gone("p").await;
    soon("the end of its container", world.containers.empty()).await;
}

#[tokio::test]
async fn what_is_missing_is_told_and_taken_up_when_it_appears() {
    let world = World::new(6).await;
    let env = json!([
        { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "m", "key": "k" } } },
        { "name": "B", "value": "$(A)-$(KUBERNETES_SERVICE_PORT)" },
        { "name": "C", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "D", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
    ]);
    let container = json!({ "name": "c", "image": "wasm:1", "env": env, "args": ["$(A)"], "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    let volumes = json!([{ "name": "v", "configMap": { "name": "m", "optional": true } }]);
    world.create("p", json!({ "containers": [container], "volumes": volumes })).await;
    let status = world.waiting("p", "CreateContainerConfigError").await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"m\" not found");
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
    let map = serde_json::from_value(json!({ "metadata": { "name": "m" }, "data": { "k": "value" } })).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let status = world.ready("p").await;
    let spec = world.wasm.running("c", 0).await;
    let get = |name: &str| spec.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap();
    assert_eq!((get("A"), get("B"), get("D")), ("value", "value-443", "4"));
    assert_eq!(get("C"), status["podIP"]);
    assert_eq!(spec.args, ["value"]);
    assert!(spec.mounts.iter().any(|mount| mount.target.ends_with("v")));
}

#[tokio::test]
async fn images_that_cannot_be_had_are_backed_off() {
    let world = World::new(7).await;
    world.create("p", one("late:1")).await;
    let status = world.waiting("p", "ErrImagePull").await;
    assert_eq!(status["phase"], "Pending");
    world.event("p", "Failed", "Failed to pull image \"late:1\": late:1: not found in the registry").await;
    world.clock.advance(Duration::from_secs(1));
    let status = world.waiting("p", "ImagePullBackOff").await;
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("Back-off pulling image \"late:1\": ErrImagePull: late:1: not found"), "{message}");
    world.images.add("late:1", ImageKind::Wasm, false);
    world.clock.advance(Duration::from_secs(10));
    world.ready("p").await;
    world.event("p", "Pulled", "Successfully pulled image \"late:1\" in ").await;

    world
        .create("never", json!({ "containers": [{ "name": "c", "image": "other:1", "imagePullPolicy": "Never" }] }))
        .await;
    let status = world.waiting("never", "ErrImageNeverPull").await;
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["message"],
        "Container image \"other:1\" is not present with pull policy of Never"
    );
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let world = World::new(8).await;
    world.wasm.fail(Call::Prepare, "not a WebAssembly module: bad magic number");
    world.create("bad", one("wasm:1")).await;
    let status = world.waiting("bad", "ImageInspectError").await;
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["message"],
        "Failed to inspect image \"wasm:1\": not a WebAssembly module: bad magic number"
    );
    world.event("bad", "InspectFailed", "Failed to inspect image \"wasm:1\": not a WebAssembly module").await;
    world.event("bad", "Failed", "Error: ImageInspectError").await;

    world.containers.fail(Call::Start, "exec: no such file");
    world.create("once", json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "oci:1" }] })).await;
    let status = world.status("once", "failure", |status| status["phase"] == "Failed").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"], &ended["message"]),
        (&json!(128), &json!("StartError"), &json!("exec: no such file"))
    );
}

#[tokio::test]
async fn fields_that_cannot_be_honoured_are_refused_with_their_path() {
    let world = World::new(9).await;
    let nfs = json!({ "containers": [{ "name": "c", "image": "wasm:1" }], "volumes": [{ "name": "v", "nfs": { "server": "s", "path": "/" } }] });
    world.create("nfs", nfs).await;
    let status = world.waiting("nfs", "CreateContainerConfigError").await;
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("spec.volumes[0].nfs: "), "{message}");
    let privileged = |image: &str| json!({ "containers": [{ "name": "c", "image": image, "securityContext": { "privileged": true } }] });
    world.create("wasm", privileged("wasm:1")).await;
    let status = world.waiting("wasm", "CreateContainerConfigError").await;
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("spec.containers[0].securityContext.privileged: "), "{message}");
    world.create("oci", privileged("oci:1")).await;
    world.ready("oci").await;
    world.delete("nfs", 30).await;
    world.gone("nfs").await;
}

#[tokio::test]
async fn an_agent_that_restarts_adopts_what_runs_and_restarts_what_was_lost() {
    let mut world = World::new(10).await;
    world.create("kept", one("oci:1")).await;
    world.create("lost", one("wasm:1")).await;
    let kept = world.ready("kept").await;
    let lost = world.ready("lost").await;
    world.stop().await;
    // The Wasm runtime ends with the process.
    world.wasm = wherry_runtime::fake::FakeRuntime::new("fakewasm");
    world.start().await;
    let again = world
        .status("lost", "a restart", |status| {
            status["containerStatuses"][0]["restartCount"] == 1 && condition(status, "Ready") == "True"
        })
        .await;
    assert_eq!(again["podIP"], lost["podIP"]);
    assert_eq!(again["containerStatuses"][0]["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    let still = world.ready("kept").await;
    assert_eq!(still["containerStatuses"][0]["containerID"], kept["containerStatuses"][0]["containerID"]);
    assert_eq!(still["containerStatuses"][0]["restartCount"], 0);
    let spec = world.containers.running("c", 0).await;
    world.containers.exit(&spec.id, 1);
    world.containers.running("c", 1).await;
}

/// An agent that is killed as it begins a Pod has told nothing of it yet.
#[tokio::test]
async fn networks_that_an_earlier_life_began_go_with_their_pods() {
    let mut world = World::new(95).await;
    for image in ["wasm:1", "oci:1"] {
        world.stop().await;
        world.network.leave("of-a-pod-that-is-gone");
        let pod = world.create("p", one(image)).await;
        world.network.leave(&pod.metadata.uid.unwrap());
        world.delete("p", 30).await;
        world.start().await;
        world.gone("p").await;
        world.network.emptied().await;
    }
}

#[tokio::test]
async fn a_pod_of_either_kind_has_its_token_which_is_renewed_in_time() {
    let world = World::new(11).await;
    for (name, image, runtime) in [("w", "wasm:1", &world.wasm), ("o", "oci:1", &world.containers)] {
        let mut spec = one(image);
        spec["securityContext"] = json!({ "fsGroup": 10000 });
        let created = world.create(name, spec).await;
        world.ready(name).await;
        let spec = runtime.running("c", 0).await;
        let place = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        let mount = spec.mounts.iter().find(|mount| mount.target == place).unwrap();
        assert!(mount.read_only);
        let read = |file: &str| std::fs::read_to_string(mount.source.join(file)).unwrap();
        assert_eq!((read("namespace").as_str(), read("ca.crt").as_str()), ("default", "the root"));
        let whose = async |token: &str| {
            let review = json!({ "spec": { "token": token } });
            let reviews: Api<TokenReview> = Api::all(world.client.clone());
            let review =
                reviews.create(&PostParams::default(), &serde_json::from_value(review).unwrap()).await.unwrap();
            serde_json::to_value(review.status.unwrap().user).unwrap()
        };
        let user = whose(&read("token")).await;
        assert_eq!(user["username"], "system:serviceaccount:default:default");
        assert_eq!(user["extra"]["authentication.kubernetes.io/pod-uid"], json!([created.metadata.uid]));
        let first = read("token");
        // 80% of 3607 s.
        world.clock.advance(Duration::from_secs(2886));
        let renewed = async {
            // A look at the files while they change places may find none: then it is looked again.
            while std::fs::read_to_string(mount.source.join("token")).map_or(true, |token| token == first) {
                tokio::task::yield_now().await;
            }
        };
        soon("a new token", renewed).await;
        assert_eq!(whose(&read("token")).await["username"], "system:serviceaccount:default:default");
        let of = std::fs::metadata(mount.source.join("token")).unwrap();
        assert_eq!(of.permissions().mode() & 0o777, 0o640);
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            assert_eq!(of.gid(), 10000);
        }
    }
}
