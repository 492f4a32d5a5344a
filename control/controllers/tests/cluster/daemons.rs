//! DaemonSets: a Pod on each node, updates, going back, nodes that come and go.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet},
    core::v1::{Node, Pod},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{harness::Cluster, image};

fn daemon(name: &str, strategy: serde_json::Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "updateStrategy": strategy,
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
            },
        },
    }))
    .unwrap()
}

/// Runs this image, up to date, on so many nodes.
fn is_complete(set: &DaemonSet, image: &str, nodes: i32) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let spec = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    spec.containers[0].image.as_deref() == Some(image)
        && status.observed_generation == set.metadata.generation
        && status.desired_number_scheduled == nodes
        && [Some(status.current_number_scheduled), status.updated_number_scheduled, status.number_available]
            .iter()
            .all(|count| *count == Some(nodes))
        && status.number_misscheduled == 0
}

fn nodes(pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect()
}

fn images(pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_updates_and_goes_back() {
    let cluster = Cluster::start().await;
    cluster.add_node("node-2").await;
    cluster.add_node("node-3").await;
    let api = cluster.api::<DaemonSet>("default");
    api.create(&PostParams::default(), &daemon("logs", json!({}))).await.unwrap();
    cluster.until::<DaemonSet>("default", "logs", |set| is_complete(set, "app:1", 3)).await;
    let first = cluster.until_count::<Pod>("default", 3).await;
    assert_eq!(nodes(&first).len(), 3, "one on each node");

    cluster.patch(&api, "logs", image("app:2")).await;
    cluster.until::<DaemonSet>("default", "logs", |set| is_complete(set, "app:2", 3)).await;
    let second = cluster.until_count::<Pod>("default", 3).await;
    assert_eq!(images(&second), BTreeSet::from(["app:2".to_owned()]));
    let revisions = cluster.until_count::<ControllerRevision>("default", 2).await;
    assert_eq!(revisions.iter().map(|revision| revision.revision).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));

    // As `kubectl rollout undo` does: the old revision's content is a patch.
    let old = revisions.iter().find(|revision| revision.revision == 1).unwrap();
    let patch = Patch::Strategic(&old.data.as_ref().unwrap().0);
    api.patch("logs", &PatchParams::default(), &patch).await.unwrap();
    cluster.until::<DaemonSet>("default", "logs", |set| is_complete(set, "app:1", 3)).await;
    let third = cluster.until_count::<Pod>("default", 3).await;
    assert_eq!(images(&third), BTreeSet::from(["app:1".to_owned()]));
    let again =
        cluster.until::<ControllerRevision>("default", &old.name_any(), |revision| revision.revision == 3).await;
    let hash = &again.labels()["controller-revision-hash"];
    assert!(third.iter().all(|pod| &pod.labels()["controller-revision-hash"] == hash));
    cluster.until_count::<ControllerRevision>("default", 2).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_surge_or_wait_for_deletion() {
    let cluster = Cluster::start().await;
    cluster.add_node("node-2").await;
    let api = cluster.api::<DaemonSet>("default");
    let surging = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    api.create(&PostParams::default(), &daemon("logs", surging)).await.unwrap();
    cluster.until::<DaemonSet>("default", "logs", |set| is_complete(set, "app:1", 2)).await;
    // Old Pods stay while new ones come.
    cluster.hold_deletions();
    cluster.patch(&api, "logs", image("app:2")).await;
    cluster.until_count::<Pod>("default", 3).await;
    cluster.release_deletions().await;
    cluster.until::<DaemonSet>("default", "logs", |set| is_complete(set, "app:2", 2)).await;
    cluster.until_all::<Pod>("of the new image", |pods| pods.len() == 2 && images(pods).contains("app:2")).await;

    cluster
        .patch(&api, "logs", json!({ "spec": { "updateStrategy": { "$patch": "replace", "type": "OnDelete" } } }))
        .await;
    cluster.patch(&api, "logs", image("app:3")).await;
    let waiting = |set: &DaemonSet| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation == set.metadata.generation && status.updated_number_scheduled.unwrap_or(0) == 0
    };
    cluster.until::<DaemonSet>("default", "logs", waiting).await;
    let pods = cluster.api::<Pod>("default");
    for pod in pods.list(&Default::default()).await.unwrap().items {
        pods.delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    }
    cluster.until::<DaemonSet>("default", "logs", |set| is_complete(set, "app:3", 2)).await;
    cluster.until_all::<Pod>("of the newest image", |pods| images(pods) == BTreeSet::from(["app:3".to_owned()])).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_follow_labels_taints_and_failures() {
    let cluster = Cluster::start().await;
    cluster.add_node("node-2").await;
    let api = cluster.api::<DaemonSet>("default");
    let mut blue = daemon("blue", json!({}));
    blue.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_selector =
        Some([("color".to_owned(), "blue".to_owned())].into());
    api.create(&PostParams::default(), &blue).await.unwrap();
    cluster
        .until::<DaemonSet>("default", "blue", |set| {
            set.status.as_ref().is_some_and(|s| s.observed_generation.is_some())
        })
        .await;
    let all = cluster.cluster_api::<Node>();
    cluster.patch(&all, "node-2", json!({ "metadata": { "labels": { "color": "blue" } } })).await;
    cluster.until::<DaemonSet>("default", "blue", |set| is_complete(set, "app:1", 1)).await;
    let pods = cluster.until_count::<Pod>("default", 1).await;
    assert_eq!(nodes(&pods), BTreeSet::from(["node-2".to_owned()]));

    // A Pod that failed is replaced, and told of.
    let failed = json!({ "status": { "phase": "Failed" } });
    let name = pods[0].name_any();
    cluster
        .api::<Pod>("default")
        .patch_status(&name, &PatchParams::default(), &Patch::Strategic(failed))
        .await
        .unwrap();
    cluster.until_gone::<Pod>("default", &name).await;
    cluster.until_count::<Pod>("default", 1).await;
    cluster.until::<DaemonSet>("default", "blue", |set| is_complete(set, "app:1", 1)).await;
    cluster.until_event("FailedDaemonPod").await;

    // A taint that nobody tolerates keeps none away that is there, unless it says so.
    cluster.patch(&all, "node-2", json!({ "spec": { "taints": [{ "key": "gpu", "effect": "NoSchedule" }] } })).await;
    cluster
        .until::<DaemonSet>("default", "blue", |set| {
            set.status.as_ref().is_some_and(|s| s.desired_number_scheduled == 0 && s.number_misscheduled == 1)
        })
        .await;
    cluster.patch(&all, "node-2", json!({ "metadata": { "labels": { "color": "green" } } })).await;
    cluster.until_gone_all::<Pod>("default").await;
    api.delete("blue", &DeleteParams::default()).await.unwrap();
    cluster.until_gone_all::<ControllerRevision>("default").await;
    cluster.stop().await;
}
