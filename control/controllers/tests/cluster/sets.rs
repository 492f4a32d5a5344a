//! StatefulSets: order, identity, updates with a partition, claims and who takes them along.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{harness::Cluster, image};

fn set(name: &str, replicas: i32, spec: serde_json::Value) -> StatefulSet {
    let mut all = json!({
        "replicas": replicas,
        "serviceName": name,
        "selector": { "matchLabels": { "app": name } },
        "template": {
            "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
        },
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": all })).unwrap()
}

fn is_complete(set: &StatefulSet, image: &str, replicas: i32) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let template = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    template.containers[0].image.as_deref() == Some(image)
        && status.observed_generation == set.metadata.generation
        && status.replicas == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && status.current_revision == status.update_revision
}

fn images(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_keeps_order_and_identity() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<StatefulSet>("default");
    api.create(&PostParams::default(), &set("web", 3, json!({}))).await.unwrap();
    cluster.until::<StatefulSet>("default", "web", |set| is_complete(set, "app:1", 3)).await;
    let pods = cluster.until_count::<Pod>("default", 3).await;
    let revision = |pod: &Pod| pod.resource_version().unwrap();
    assert_eq!(pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["web-0", "web-1", "web-2"]);
    assert_eq!(pods[1].labels()["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pods[1].spec.as_ref().unwrap().subdomain.as_deref(), Some("web"));

    // One that is gone comes back as itself.
    let before = revision(&pods[1]);
    cluster.api::<Pod>("default").delete("web-1", &DeleteParams::default()).await.unwrap();
    cluster
        .until::<Pod>("default", "web-1", |pod| revision(pod) != before && pod.metadata.deletion_timestamp.is_none())
        .await;

    // A canary: only from the partition on.
    let partition = |n: i32| json!({ "spec": { "updateStrategy": { "rollingUpdate": { "partition": n } } } });
    cluster.patch(&api, "web", partition(2)).await;
    cluster.patch(&api, "web", image("app:2")).await;
    cluster.until_all::<Pod>("with one canary", |pods| images(pods) == ["app:1", "app:1", "app:2"]).await;
    cluster
        .until::<StatefulSet>("default", "web", |set| {
            let status = set.status.clone().unwrap();
            status.updated_replicas == Some(1) && status.current_replicas == Some(2) && status.ready_replicas == Some(3)
        })
        .await;
    cluster.api::<Pod>("default").delete("web-0", &DeleteParams::default()).await.unwrap();
    cluster.until_all::<Pod>("with the old one back", |pods| images(pods) == ["app:1", "app:1", "app:2"]).await;
    cluster.patch(&api, "web", partition(0)).await;
    cluster.until::<StatefulSet>("default", "web", |set| is_complete(set, "app:2", 3)).await;
    assert_eq!(images(&cluster.until_count::<Pod>("default", 3).await), ["app:2"; 3]);

    let revisions = cluster.until_count::<ControllerRevision>("default", 2).await;
    let old = revisions.iter().find(|revision| revision.revision == 1).unwrap();
    let patch = Patch::Strategic(&old.data.as_ref().unwrap().0);
    api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    cluster.until::<StatefulSet>("default", "web", |set| is_complete(set, "app:1", 3)).await;
    cluster.patch(&api, "web", json!({ "spec": { "replicas": 1 } })).await;
    cluster.until::<StatefulSet>("default", "web", |set| is_complete(set, "app:1", 1)).await;
    let reasons: BTreeSet<_> =
        cluster.until_event("SuccessfulDelete").await.into_iter().filter_map(|event| event.reason).collect();
    assert!(reasons.contains("SuccessfulCreate"), "{reasons:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_stay_or_go_with_their_ordinal() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<StatefulSet>("default");
    let claims = json!([{ "metadata": { "name": "data" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } },
    } }]);
    let spec = json!({ "podManagementPolicy": "Parallel", "volumeClaimTemplates": claims });
    api.create(&PostParams::default(), &set("db", 3, spec)).await.unwrap();
    cluster.until::<StatefulSet>("default", "db", |set| is_complete(set, "app:1", 3)).await;
    let claims = cluster.until_count::<PersistentVolumeClaim>("default", 3).await;
    let names: Vec<_> = claims.iter().map(|claim| claim.name_any()).collect();
    assert_eq!(names, ["data-db-0", "data-db-1", "data-db-2"]);

    cluster.patch(&api, "db", json!({ "spec": { "replicas": 2 } })).await;
    cluster.until::<StatefulSet>("default", "db", |set| is_complete(set, "app:1", 2)).await;
    cluster.until_count::<PersistentVolumeClaim>("default", 3).await;
    let policy = json!({ "whenDeleted": "Retain", "whenScaled": "Delete" });
    cluster
        .patch(&api, "db", json!({ "spec": { "persistentVolumeClaimRetentionPolicy": policy, "replicas": 1 } }))
        .await;
    cluster.until_gone::<PersistentVolumeClaim>("default", "data-db-1").await;
    let policy = json!({ "whenDeleted": "Delete", "whenScaled": "Retain" });
    cluster.patch(&api, "db", json!({ "spec": { "persistentVolumeClaimRetentionPolicy": policy } })).await;
    cluster
        .until::<PersistentVolumeClaim>("default", "data-db-0", |claim| {
            claim.owner_references().iter().any(|owner| owner.kind == "StatefulSet")
        })
        .await;
    api.delete("db", &DeleteParams::background()).await.unwrap();
    cluster.until_gone::<PersistentVolumeClaim>("default", "data-db-0").await;
    // That of an ordinal that went under the older policy is nobody's.
    cluster.until_count::<PersistentVolumeClaim>("default", 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_that_waits_for_its_end_makes_no_revisions() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<StatefulSet>("default");
    api.create(&PostParams::default(), &set("web", 1, json!({}))).await.unwrap();
    cluster.until::<StatefulSet>("default", "web", |set| is_complete(set, "app:1", 1)).await;
    cluster.hold_deletions();
    api.delete("web", &DeleteParams::foreground()).await.unwrap();
    // Its Pod takes its time, its revision goes; a pass is not to bring it back.
    cluster.until_gone_all::<ControllerRevision>("default").await;
    cluster.patch(&api, "web", json!({ "spec": { "replicas": 2 } })).await;
    cluster
        .until::<StatefulSet>("default", "web", |set| {
            set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation
        })
        .await;
    let revisions = cluster.api::<ControllerRevision>("default").list(&Default::default()).await.unwrap();
    assert!(revisions.items.is_empty(), "{revisions:?}");
    cluster.release_deletions().await;
    cluster.until_gone::<StatefulSet>("default", "web").await;
    cluster.stop().await;
}
