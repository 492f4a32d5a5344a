//! Claims, volumes, and what becomes of both.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, NODE};

fn claim(name: &str, class: Option<&str>, size: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}},
    }}))
    .unwrap()
}

fn volume(name: &str, policy: &str, extra: Value) -> PersistentVolume {
    let mut volume = json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}, "hostPath": {"path": "/data"},
        "persistentVolumeReclaimPolicy": policy,
    }});
    volume["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(volume).unwrap()
}

fn phase_of(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_volumes_find_each_other_and_part() {
    let cluster = Cluster::start().await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let volumes = cluster.cluster_api::<PersistentVolume>();
    let params = PostParams::default();
    // The claim comes first and waits.
    claims.create(&params, &claim("c", Some(""), "1Gi")).await.unwrap();
    cluster.until_event("FailedBinding").await;
    volumes.create(&params, &volume("kept", "Retain", json!({}))).await.unwrap();
    let bound = cluster.until::<PersistentVolumeClaim>("default", "c", |claim| phase_of(claim) == "Bound").await;
    assert_eq!(bound.spec.as_ref().unwrap().volume_name.as_deref(), Some("kept"));
    assert_eq!(bound.status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0, "5Gi");
    let annotations = bound.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    cluster.until::<PersistentVolume>("", "kept", |volume| phase(volume) == "Bound").await;
    // A volume that is bound stays until its claim is gone; then it is released and keeps its claim's name.
    volumes.delete("kept", &DeleteParams::default()).await.unwrap();
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<PersistentVolumeClaim>("default", "c").await;
    cluster.until_gone::<PersistentVolume>("", "kept").await;

    // Reserved for a claim to come; what cannot be reclaimed is told.
    for (name, policy, reason) in [("d", "Delete", "VolumeFailedDelete"), ("r", "Recycle", "VolumeFailedRecycle")] {
        let reserved = json!({"claimRef": {"namespace": "default", "name": name}});
        volumes.create(&params, &volume(name, policy, reserved)).await.unwrap();
        cluster.until::<PersistentVolume>("", name, |volume| phase(volume) == "Available").await;
        claims.create(&params, &claim(name, Some(""), "1Gi")).await.unwrap();
        cluster.until::<PersistentVolumeClaim>("default", name, |claim| phase_of(claim) == "Bound").await;
        claims.delete(name, &DeleteParams::default()).await.unwrap();
        cluster.until_event(reason).await;
        let failed = cluster.until::<PersistentVolume>("", name, |volume| phase(volume) == "Failed").await;
        assert!(failed.status.as_ref().unwrap().message.as_ref().is_some_and(|message| message.contains("plugin")));
    }

    // Lost.
    volumes.create(&params, &volume("v", "Retain", json!({}))).await.unwrap();
    claims.create(&params, &claim("l", Some(""), "1Gi")).await.unwrap();
    cluster.until::<PersistentVolumeClaim>("default", "l", |claim| phase_of(claim) == "Bound").await;
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    cluster.patch(&volumes, "v", json!({"metadata": {"finalizers": null}})).await;
    cluster.until::<PersistentVolumeClaim>("default", "l", |claim| phase_of(claim) == "Lost").await;
    cluster.until_event("ClaimLost").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_class_makes_a_volume_where_the_first_pod_runs() {
    let cluster = Cluster::start().await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let volumes = cluster.cluster_api::<PersistentVolume>();
    claims.create(&PostParams::default(), &claim("c", None, "1Gi")).await.unwrap();
    let waiting = cluster.until::<PersistentVolumeClaim>("default", "c", |claim| phase_of(claim) == "Pending").await;
    assert_eq!(waiting.spec.as_ref().unwrap().storage_class_name.as_deref(), Some("local-path"));
    cluster.until_event("WaitForFirstConsumer").await;
    // What the scheduler writes; the node has no place for it yet.
    cluster
        .patch(&claims, "c", json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": NODE}}}))
        .await;
    cluster.until_event("ProvisioningFailed").await;
    let place = json!({"metadata": {"annotations": {"wherry.dev/local-path-dir": "/var/lib/w"}}});
    cluster.patch(&cluster.cluster_api::<Node>(), NODE, place).await;
    let bound = cluster.until::<PersistentVolumeClaim>("default", "c", |claim| phase_of(claim) == "Bound").await;
    cluster.until_event("ProvisioningSucceeded").await;
    let name = format!("pvc-{}", bound.metadata.uid.as_ref().unwrap());
    let made = cluster.until::<PersistentVolume>("", &name, |volume| phase(volume) == "Bound").await;
    let finalizers = made.metadata.finalizers.as_ref().unwrap();
    assert!(finalizers.iter().any(|name| name == "wherry.dev/local-path"), "{finalizers:?}");

    // It grows when it is asked to.
    cluster.patch(&claims, "c", json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}})).await;
    let size =
        |claim: &PersistentVolumeClaim| claim.status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0.clone();
    cluster.until::<PersistentVolumeClaim>("default", "c", |claim| size(claim) == "3Gi").await;
    cluster.until_event("VolumeResizeSuccessful").await;
    let grown = volumes.get(&name).await.unwrap();
    assert_eq!(grown.spec.unwrap().capacity.unwrap()["storage"].0, "3Gi");

    // With its claim it is deleted; the node's agent lets it go.
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    let ending = |volume: &PersistentVolume| {
        volume.metadata.deletion_timestamp.is_some()
            && volume.metadata.finalizers.iter().flatten().eq(["wherry.dev/local-path"])
    };
    cluster.until::<PersistentVolume>("", &name, ending).await;
    cluster.patch(&volumes, &name, json!({"metadata": {"finalizers": null}})).await;
    cluster.until_gone::<PersistentVolume>("", &name).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_ephemeral_volume_has_a_claim_that_goes_with_the_pod() {
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>("default");
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
            "metadata": {"labels": {"kind": "scratch"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }}}],
    }});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let made = cluster.until::<PersistentVolumeClaim>("default", "p-scratch", |_| true).await;
    assert_eq!(made.metadata.labels.as_ref().unwrap()["kind"], "scratch");
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<PersistentVolumeClaim>("default", "p-scratch").await;
    cluster.stop().await;
}
