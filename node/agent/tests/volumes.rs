//! Volumes through the real agent and API server, the same for both kinds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::path::Path;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use world::{NODE, World, soon};

const IMAGES: [&str; 2] = ["wasm:1", "oci:1"];

fn pod(image: &str, volume: &Value, mount: &Value) -> Value {
    json!({
        "containers": [{"name": "c", "image": image, "volumeMounts": [mount]}],
        "volumes": [volume], "restartPolicy": "Never",
    })
}

impl World {
    /// The mount of the Pod's container at `/data`.
    async fn mount(&self, image: &str, name: &str) -> wherry_runtime::Mount {
        let runtime = if image == "wasm:1" { &self.wasm } else { &self.containers };
        self.ready(name).await;
        let spec = runtime.specs().into_iter().find(|spec| spec.pod.name == name).unwrap();
        spec.mounts.into_iter().find(|mount| mount.target == Path::new("/data")).unwrap()
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), "default")
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    /// A claim and its volume of the class local-path on this node, not yet told of each other.
    async fn claim(&self) -> PersistentVolumeClaim {
        let claim = json!({"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeName": "kept", "resources": {"requests": {"storage": "1Gi"}},
        }});
        let claim =
            self.claims().create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
        let volume = json!({
            "metadata": {
                "name": "kept", "finalizers": ["wherry.dev/local-path"],
                "annotations": {"pv.kubernetes.io/provisioned-by": "wherry.dev/local-path"},
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Delete", "local": {"path": "/wherever"},
                "claimRef": {"namespace": "default", "name": "data", "uid": claim.metadata.uid},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]},
                ]}]}},
            },
        });
        self.volumes().create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
        claim
    }
}

#[tokio::test]
async fn a_claim_is_mounted_once_it_is_bound_and_its_directory_goes_with_the_volume() {
    let world = World::new(41).await;
    world.claim().await;
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
    for image in IMAGES {
        world.create(&image[..3], pod(image, &volume, &json!({"name": "v", "mountPath": "/data"}))).await;
    }
    world.event("was", "FailedMount", "error processing PVC default/data: PVC is not bound").await;
    let done = Patch::Merge(json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}}));
    world.claims().patch("data", &PatchParams::default(), &done).await.unwrap();
    let dir = world.dir.path().join("volumes/kept");
    for image in IMAGES {
        let mount = world.mount(image, &image[..3]).await;
        assert_eq!((mount.source.as_path(), mount.read_only), (dir.as_path(), false), "{image}");
    }
    std::fs::write(dir.join("file"), "kept").unwrap();
    for image in IMAGES {
        world.delete(&image[..3], 0).await;
        world.gone(&image[..3]).await;
    }
    world.network.emptied().await;
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "kept", "it outlives the Pods");

    let bound = Patch::Merge(json!({"status": {"phase": "Bound"}}));
    world.volumes().patch_status("kept", &PatchParams::default(), &bound).await.unwrap();
    world.volumes().delete("kept", &DeleteParams::default()).await.unwrap();
    let released = Patch::Merge(json!({"status": {"phase": "Released"}}));
    world.volumes().patch_status("kept", &PatchParams::default(), &released).await.unwrap();
    let freed = |volume: Option<&PersistentVolume>| {
        volume.is_some_and(|volume| {
            !volume.metadata.finalizers.iter().flatten().any(|name| name == "wherry.dev/local-path")
        })
    };
    soon("the end of the directory", await_condition(world.volumes(), "kept", freed)).await.unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn what_lies_in_an_image_can_be_read_and_no_more() {
    let world = World::new(43).await;
    let volume = json!({"name": "v", "image": {"reference": "oci:1"}});
    for image in IMAGES {
        let name = &image[..3];
        world.create(name, pod(image, &volume, &json!({"name": "v", "mountPath": "/data"}))).await;
        let mount = world.mount(image, name).await;
        assert!(mount.read_only && mount.no_exec, "{mount:?}");
        assert_eq!(std::fs::read_to_string(mount.source.join("name")).unwrap(), "oci:1");
    }
    let missing = json!({"name": "v", "image": {"reference": "none:1", "pullPolicy": "Never"}});
    world.create("none", pod("wasm:1", &missing, &json!({"name": "v", "mountPath": "/data"}))).await;
    world.event("none", "ErrImageNeverPull", "\"none:1\" is not present with pull policy of Never").await;
}

/// A Pod's end removes what is the Pod's, and nothing that was mounted into it.
#[tokio::test]
async fn what_was_mounted_into_a_pod_outlives_it() {
    if !nix::unistd::Uid::effective().is_root() {
        return eprintln!("left out: a container's subPath needs root");
    }
    let world = World::new(44).await;
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir(host.path().join("sub")).unwrap();
    std::fs::write(host.path().join("sub/mine"), "mine").unwrap();
    let volume = json!({"name": "v", "hostPath": {"path": host.path(), "type": "Directory"}});
    for image in IMAGES {
        let name = &image[..3];
        let mount = json!({"name": "v", "mountPath": "/data", "subPath": "sub"});
        world.create(name, pod(image, &volume, &mount)).await;
        let mount = world.mount(image, name).await;
        assert_eq!(std::fs::read_to_string(mount.source.join("mine")).unwrap(), "mine");
        assert!(!mount.source.starts_with(world.dir.path()), "the data directory leads there: {:?}", mount.source);
        world.delete(name, 0).await;
        world.gone(name).await;
        world.network.emptied().await;
    }
    assert_eq!(std::fs::read_to_string(host.path().join("sub/mine")).unwrap(), "mine");
}
