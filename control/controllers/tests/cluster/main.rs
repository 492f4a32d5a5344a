//! The controllers against the real API server over the memory store, with an agent that needs no runtime: it binds Pods,
//! reports them Ready and confirms their end.

#![allow(clippy::unwrap_used, reason = "tests")]

mod autoscalers;
mod crons;
mod daemons;
mod harness;
mod jobs;
mod keys;
mod sets;
mod volumes;

use std::collections::BTreeSet;

use harness::{Cluster, deployment, meta_name};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{
        ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota,
        Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    rbac::v1::ClusterRole,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

fn progress(deployment: &Deployment) -> Option<String> {
    let status = deployment.status.as_ref()?;
    if status.observed_generation != deployment.metadata.generation {
        return None;
    }
    let conditions = status.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Progressing")?.reason.clone()
}

fn is_rolled_out(deployment: &Deployment, image: &str, replicas: i32) -> bool {
    let spec = deployment.spec.as_ref().unwrap();
    let status = deployment.status.clone().unwrap_or_default();
    spec.template.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)
        && progress(deployment).as_deref() == Some("NewReplicaSetAvailable")
        && [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas]
            .iter()
            .all(|count| count.unwrap_or(0) == replicas)
}

fn revision(deployment: &Deployment) -> &str {
    &deployment.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_back_and_scales() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Deployment>("default");
    api.create(&PostParams::default(), &deployment("web", "app:1", 4)).await.unwrap();
    let first = cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 4)).await;
    assert_eq!(revision(&first), "1");

    let bounds = cluster.watch_bounds("web");
    cluster.patch(&api, "web", image("app:2")).await;
    let second = cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:2", 4)).await;
    assert_eq!(revision(&second), "2");
    let (most, fewest) = bounds.await.unwrap();
    assert!(most <= 5, "25% of 4 may surge: {most}");
    assert!(fewest >= 3, "25% of 4 may be unavailable: {fewest}");

    cluster.patch(&api, "web", image("app:1")).await;
    let third = cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 4)).await;
    assert_eq!(revision(&third), "3");
    let sets = cluster.api::<ReplicaSet>("default").list(&Default::default()).await.unwrap().items;
    assert_eq!(sets.len(), 2, "going back reuses the old set");

    cluster.patch(&api, "web", json!({ "spec": { "replicas": 7 } })).await;
    cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 7)).await;
    cluster.patch(&api, "web", json!({ "spec": { "replicas": 0 } })).await;
    cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 0)).await;
    cluster.until_gone_all::<Pod>("default").await;
    cluster.stop().await;
}

fn image(image: &str) -> serde_json::Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "app", "image": image }] } } } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pausing_and_recreating() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Deployment>("default");
    let mut paused = deployment("web", "app:1", 2);
    paused.spec.as_mut().unwrap().strategy = Some(serde_json::from_value(json!({ "type": "Recreate" })).unwrap());
    api.create(&PostParams::default(), &paused).await.unwrap();
    cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 2)).await;

    cluster.patch(&api, "web", json!({ "spec": { "paused": true } })).await;
    cluster.patch(&api, "web", image("app:2")).await;
    cluster.until::<Deployment>("default", "web", |web| progress(web).as_deref() == Some("DeploymentPaused")).await;
    let sets = cluster.api::<ReplicaSet>("default").list(&Default::default()).await.unwrap().items;
    assert_eq!(sets.len(), 1, "a paused Deployment does not roll out");

    let bounds = cluster.watch_bounds("web");
    cluster.patch(&api, "web", json!({ "spec": { "paused": false } })).await;
    cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:2", 2)).await;
    let (most, _) = bounds.await.unwrap();
    assert!(most <= 2, "no new Pod before the old ones are gone: {most}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_sets_replace_adopt_and_release() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Deployment>("default");
    api.create(&PostParams::default(), &deployment("web", "app:1", 2)).await.unwrap();
    cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 2)).await;
    let pods = cluster.api::<Pod>("default");
    let before = pods.list(&Default::default()).await.unwrap().items;

    // A deleted Pod is replaced.
    let victim = meta_name(&before[0]);
    pods.delete(&victim, &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<Pod>("default", &victim).await;
    cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 2)).await;

    // A Pod that loses its labels is released and replaced.
    let released = meta_name(&before[1]);
    cluster.patch(&pods, &released, json!({ "metadata": { "labels": { "app": "debug" } } })).await;
    cluster.until::<Pod>("default", &released, |pod| pod.metadata.owner_references.is_none()).await;
    let three = cluster.until_count::<Pod>("default", 3).await;
    let owned = three.iter().filter(|pod| pod.metadata.owner_references.is_some()).count();
    assert_eq!(owned, 2);

    // With its labels back it is adopted, and one Pod too many goes.
    cluster.patch(&pods, &released, json!({ "metadata": { "labels": { "app": "web" } } })).await;
    let two = cluster.until_count::<Pod>("default", 2).await;
    assert!(two.iter().all(|pod| pod.metadata.owner_references.is_some()));
    let reasons: BTreeSet<_> =
        cluster.until_event("SuccessfulDelete").await.into_iter().filter_map(|event: Event| event.reason).collect();
    for reason in ["ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"] {
        assert!(reasons.contains(reason), "{reason} in {reasons:?}");
    }
    cluster.stop().await;
}

fn ready_addresses(slice: &EndpointSlice) -> usize {
    let endpoints = slice.endpoints.iter().flatten();
    endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_follow_their_pods() {
    let cluster = Cluster::start().await;
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
    }))
    .unwrap();
    cluster.api("default").create(&PostParams::default(), &service).await.unwrap();
    let empty = cluster.until_slice("web", |_| true).await;
    assert_eq!(ready_addresses(&empty), 0);

    let deployments = cluster.api::<Deployment>("default");
    deployments.create(&PostParams::default(), &deployment("web", "app:1", 3)).await.unwrap();
    let slice = cluster.until_slice("web", |slice| ready_addresses(slice) == 3).await;
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080), "the named port of the Pods");
    cluster
        .until::<Endpoints>("default", "web", |endpoints| {
            let subsets = endpoints.subsets.as_deref().unwrap_or_default();
            subsets.len() == 1 && subsets[0].addresses.as_ref().is_some_and(|addresses| addresses.len() == 3)
        })
        .await;

    // A Pod that is being deleted stops being ready at once, while it still runs.
    cluster.hold_deletions();
    let pods = cluster.api::<Pod>("default");
    let victim = meta_name(&pods.list(&Default::default()).await.unwrap().items[0]);
    pods.delete(&victim, &DeleteParams::default()).await.unwrap();
    cluster
        .until_slice("web", |slice| {
            slice.endpoints.iter().flatten().any(|endpoint| {
                let conditions = endpoint.conditions.clone().unwrap_or_default();
                endpoint.target_ref.as_ref().unwrap().name.as_deref() == Some(&victim)
                    && conditions.ready == Some(false)
                    && conditions.serving == Some(true)
                    && conditions.terminating == Some(true)
            })
        })
        .await;
    cluster.release_deletions().await;
    cluster
        .until_slice("web", |slice| ready_addresses(slice) == 3 && slice.endpoints.iter().flatten().count() == 3)
        .await;

    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_no_slice("web").await;
    cluster.until_gone::<Endpoints>("default", "web").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_goes_with_its_owners() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Deployment>("default");
    for (name, params) in [("background", DeleteParams::background()), ("foreground", DeleteParams::foreground())] {
        api.create(&PostParams::default(), &deployment(name, "app:1", 2)).await.unwrap();
        cluster.until::<Deployment>("default", name, |web| is_rolled_out(web, "app:1", 2)).await;
        api.delete(name, &params).await.unwrap();
        cluster.until_gone::<Deployment>("default", name).await;
        if name == "foreground" {
            let pods = cluster.api::<Pod>("default").list(&Default::default()).await.unwrap().items;
            assert!(pods.is_empty(), "in the foreground the dependents go first");
        }
        cluster.until_gone_all::<ReplicaSet>("default").await;
        cluster.until_gone_all::<Pod>("default").await;
    }

    api.create(&PostParams::default(), &deployment("orphan", "app:1", 2)).await.unwrap();
    cluster.until::<Deployment>("default", "orphan", |web| is_rolled_out(web, "app:1", 2)).await;
    api.delete("orphan", &DeleteParams::orphan()).await.unwrap();
    cluster.until_gone::<Deployment>("default", "orphan").await;
    let sets = cluster.api::<ReplicaSet>("default").list(&Default::default()).await.unwrap().items;
    assert_eq!(sets.len(), 1);
    assert!(sets[0].metadata.owner_references.is_none(), "orphans have no owner");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_has_its_defaults_and_is_emptied() {
    let cluster = Cluster::start().await;
    let namespaces = cluster.cluster_api::<Namespace>();
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "shop" } })).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    cluster.until::<ServiceAccount>("shop", "default", |_| true).await;
    cluster
        .until::<ConfigMap>("shop", "kube-root-ca.crt", |map| map.data.as_ref().unwrap()["ca.crt"] == harness::ROOT_CA)
        .await;
    let maps = cluster.api::<ConfigMap>("shop");
    cluster.patch(&maps, "kube-root-ca.crt", json!({ "data": { "ca.crt": "forged", "extra": "x" } })).await;
    cluster
        .until::<ConfigMap>("shop", "kube-root-ca.crt", |map| {
            let data = map.data.as_ref().unwrap();
            data.len() == 1 && data["ca.crt"] == harness::ROOT_CA
        })
        .await;

    let api = cluster.api::<Deployment>("shop");
    api.create(&PostParams::default(), &deployment("web", "app:1", 2)).await.unwrap();
    cluster.until::<Deployment>("shop", "web", |web| is_rolled_out(web, "app:1", 2)).await;
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<Namespace>("", "shop").await;
    assert!(cluster.api::<Pod>("shop").list(&Default::default()).await.unwrap().items.is_empty());
    assert!(api.list(&Default::default()).await.unwrap().items.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_get_addresses_and_taints_evict() {
    let cluster = Cluster::start().await;
    let first = cluster.until::<Node>("", harness::NODE, has_cidr).await;
    let second: Node = serde_json::from_value(json!({ "metadata": { "name": "second" } })).unwrap();
    cluster.cluster_api::<Node>().create(&PostParams::default(), &second).await.unwrap();
    let second = cluster.until::<Node>("", "second", has_cidr).await;
    let cidr = |node: &Node| node.spec.as_ref().unwrap().pod_cidr.clone().unwrap();
    assert_ne!(cidr(&first), cidr(&second));
    cluster
        .until::<Node>("", "second", |node| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            taints.map(|taint| &*taint.key).any(|key| key == "node.kubernetes.io/not-ready")
        })
        .await;

    let api = cluster.api::<Deployment>("default");
    api.create(&PostParams::default(), &deployment("web", "app:1", 1)).await.unwrap();
    cluster.until::<Deployment>("default", "web", |web| is_rolled_out(web, "app:1", 1)).await;
    let pod = meta_name(&cluster.api::<Pod>("default").list(&Default::default()).await.unwrap().items[0]);
    let taint = json!({ "spec": { "taints": [{ "key": "maintenance", "effect": "NoExecute" }] } });
    let nodes = cluster.cluster_api::<Node>();
    nodes.patch(harness::NODE, &PatchParams::default(), &Patch::Merge(taint)).await.unwrap();
    cluster.until_gone::<Pod>("default", &pod).await;
    cluster.stop().await;
}

fn has_cidr(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_stays_while_a_pod_uses_it() {
    let cluster = Cluster::start().await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let made = |name: &str| -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
        }))
        .unwrap()
    };
    for name in ["used", "unused"] {
        claims.create(&PostParams::default(), &made(name)).await.unwrap();
    }
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p" },
        "spec": {
            "nodeName": harness::NODE,
            "containers": [{ "name": "c", "image": "i" }],
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "used" } }],
        },
    }))
    .unwrap();
    cluster.api::<Pod>("default").create(&PostParams::default(), &pod).await.unwrap();
    for name in ["used", "unused"] {
        claims.delete(name, &DeleteParams::default()).await.unwrap();
    }
    cluster.until_gone::<PersistentVolumeClaim>("default", "unused").await;
    let held = claims.get("used").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    cluster.api::<Pod>("default").delete("p", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<PersistentVolumeClaim>("default", "used").await;
    cluster.stop().await;
}

fn controller(name: &str, replicas: i32) -> ReplicationController {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "app": name },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_keeps_pods_and_says_when_it_cannot() {
    let cluster = Cluster::start().await;
    let quota: ResourceQuota =
        serde_json::from_value(json!({ "metadata": { "name": "two" }, "spec": { "hard": { "pods": "2" } } })).unwrap();
    cluster.api::<ResourceQuota>("default").create(&PostParams::default(), &quota).await.unwrap();
    let api = cluster.api::<ReplicationController>("default");
    api.create(&PostParams::default(), &controller("web", 3)).await.unwrap();
    let failed = cluster
        .until::<ReplicationController>("default", "web", |web| {
            let status = web.status.clone().unwrap_or_default();
            status.conditions.iter().flatten().any(|condition| condition.type_ == "ReplicaFailure")
                && status.ready_replicas == Some(2)
        })
        .await;
    let condition = failed.status.clone().unwrap().conditions.unwrap().remove(0);
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    assert!(
        condition.message.unwrap().contains("exceeded quota: two, requested: pods=1, used: pods=2, limited: pods=2")
    );
    cluster.patch(&api, "web", json!({ "spec": { "replicas": 2 } })).await;
    cluster
        .until::<ReplicationController>("default", "web", |web| {
            let status = web.status.clone().unwrap_or_default();
            status.conditions.is_none() && status.replicas == 2
        })
        .await;
    // By default the Pods stay; another controller takes them.
    api.delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<ReplicationController>("default", "web").await;
    let pods = cluster.api::<Pod>("default").list(&Default::default()).await.unwrap().items;
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|pod| pod.metadata.owner_references.is_none()));
    api.create(&PostParams::default(), &controller("web", 2)).await.unwrap();
    cluster
        .until::<ReplicationController>("default", "web", |web| {
            web.status.as_ref().is_some_and(|status| status.ready_replicas == Some(2))
        })
        .await;
    let names = |pods: &[Pod]| pods.iter().map(|pod| pod.metadata.name.clone()).collect::<BTreeSet<_>>();
    let adopted = cluster.api::<Pod>("default").list(&Default::default()).await.unwrap().items;
    assert_eq!(names(&adopted), names(&pods));
    cluster.stop().await;
}

fn owned_pod(name: &str, owner: Option<&Pod>) -> Pod {
    let owners: Vec<_> = owner
        .map(|owner| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "name": owner.metadata.name, "uid": owner.metadata.uid,
                "controller": true, "blockOwnerDeletion": true,
            })
        })
        .into_iter()
        .collect();
    serde_json::from_value(json!({
        "metadata": { "name": name, "ownerReferences": owners },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_owners_holds_nobody() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Pod>("default");
    let first = api.create(&PostParams::default(), &owned_pod("one", None)).await.unwrap();
    let second = api.create(&PostParams::default(), &owned_pod("two", Some(&first))).await.unwrap();
    let third = api.create(&PostParams::default(), &owned_pod("three", Some(&second))).await.unwrap();
    let closing = owned_pod("one", Some(&third)).metadata.owner_references;
    cluster.patch(&api, "one", json!({ "metadata": { "ownerReferences": closing } })).await;
    api.delete("one", &DeleteParams::foreground()).await.unwrap();
    cluster.until_gone_all::<Pod>("default").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_stays_until_its_dependents_are_gone_and_shared_ones_stay() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<ReplicationController>("default");
    for name in ["goes", "stays"] {
        api.create(&PostParams::default(), &controller(name, 3)).await.unwrap();
    }
    let ready = |rc: &ReplicationController| rc.status.as_ref().is_some_and(|status| status.ready_replicas == Some(3));
    cluster.until::<ReplicationController>("default", "goes", ready).await;
    let stays = cluster.until::<ReplicationController>("default", "stays", ready).await;
    let pods = cluster.api::<Pod>("default");
    let mine = ListParams::default().labels("app=goes");
    let shared = pods.list(&mine).await.unwrap().items.remove(0).metadata.name.unwrap();
    let reference = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "name": "stays", "uid": stays.metadata.uid,
    });
    cluster.patch(&pods, &shared, json!({ "metadata": { "ownerReferences": [reference] } })).await;

    // While a Pod takes its time, its owner is there, waiting.
    cluster.hold_deletions();
    api.delete("goes", &DeleteParams::foreground()).await.unwrap();
    cluster
        .until::<Pod>("default", &shared, |pod| pod.metadata.owner_references.as_ref().is_some_and(|o| o.len() == 1))
        .await;
    let waiting = api.get("goes").await.unwrap();
    assert_eq!(waiting.metadata.finalizers.unwrap(), ["foregroundDeletion"]);
    cluster.release_deletions().await;
    cluster.until_gone::<ReplicationController>("default", "goes").await;
    let left = pods.list(&mine).await.unwrap().items;
    assert_eq!(left.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect::<Vec<_>>(), [shared]);
    assert!(left[0].metadata.deletion_timestamp.is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_gather_the_rules_of_others() {
    let cluster = Cluster::start().await;
    let api = cluster.cluster_api::<ClusterRole>();
    let has = |role: &ClusterRole, resource: &str| {
        role.rules.iter().flatten().any(|rule| rule.resources.iter().flatten().any(|known| known == resource))
    };
    // `admin` gathers `edit`, which gathers `view`.
    cluster.until::<ClusterRole>("", "admin", |role| has(role, "pods/log") && has(role, "rolebindings")).await;
    let extra = json!({
        "metadata": {"name": "widgets", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]}],
    });
    api.create(&PostParams::default(), &serde_json::from_value(extra).unwrap()).await.unwrap();
    for name in ["view", "edit", "admin"] {
        cluster.until::<ClusterRole>("", name, |role| has(role, "widgets")).await;
    }
    api.delete("widgets", &DeleteParams::default()).await.unwrap();
    for name in ["view", "edit", "admin"] {
        cluster.until::<ClusterRole>("", name, |role| !has(role, "widgets")).await;
    }
    cluster.stop().await;
}
