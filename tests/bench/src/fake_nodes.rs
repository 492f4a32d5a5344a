//! Nodes that are objects alone, as kwok has them: their leases are renewed, and where wanted, Pods that are bound to them are said to
//! run, and Pods that are being deleted are gone.
//!
//! One watch of all Pods tells what there is to say; it is said by a bounded number of requests side by side.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use wherry_test::PATIENCE;

use crate::seen::Watch;

/// Requests side by side.
pub(crate) const WORKERS: usize = 32;
/// Each node's lease is renewed so often, as a kubelet does.
const RENEWAL: Duration = Duration::from_secs(10);
/// Nodes are spread over so many zones.
pub(crate) const ZONES: u32 = 10;
const LEASES: &str = "kube-node-lease";

/// Makes so many nodes and waits until they take Pods; the watch of all Pods with which they live. `run` says whether Pods that are bound to
/// them are said to run.
pub(crate) async fn start(client: &Client, count: u32, run: bool) -> anyhow::Result<Watch> {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    stream::iter(0..count)
        .map(Ok)
        .try_for_each_concurrent(WORKERS, |number| make(&nodes, &leases, number))
        .await
        .context("make the nodes")?;
    untainted(&nodes, count).await?;
    let (hand_on, changed) = mpsc::unbounded_channel();
    let mut watch = Watch::start(client, run.then_some(hand_on));
    watch.beside(renew(leases, count));
    if run {
        watch.beside(perform(client.clone(), changed));
    }
    Ok(watch)
}

fn name(number: u32) -> String {
    format!("fake-{number:04}")
}

async fn make(nodes: &Api<Node>, leases: &Api<Lease>, number: u32) -> anyhow::Result<()> {
    let name = name(number);
    let room = json!({"cpu": "32", "memory": "256Gi", "pods": "110"});
    let now = Timestamp::now();
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", number % ZONES),
        }},
        "status": {"capacity": room, "allocatable": room, "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "as kubelet says",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }]},
    }))?;
    let status = json!({"status": node.status});
    nodes.create(&PostParams::default(), &node).await?;
    // What a server drops of a node at its creation, it takes here.
    nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    let lease: Lease = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": LEASES},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro(now)},
    }))?;
    leases.create(&PostParams::default(), &lease).await?;
    Ok(())
}

/// Kubernetes' MicroTime.
fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Waits until none of the nodes has a taint of one that is new.
async fn untainted(nodes: &Api<Node>, count: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let all = nodes.list(&ListParams::default()).await?;
        let taken = |node: &&Node| node.spec.as_ref().is_none_or(|spec| spec.taints.as_ref().is_none_or(Vec::is_empty));
        if all.items.iter().filter(taken).count() == count as usize {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "not all nodes take Pods");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Renews one lease after the other, and does not wait for a slow answer before the next is due.
async fn renew(leases: Api<Lease>, count: u32) -> anyhow::Result<()> {
    let due = stream::unfold(tokio::time::interval(RENEWAL / count.max(1)), |mut turns| async {
        turns.tick().await;
        Some(((), turns))
    });
    let due = due.zip(stream::iter((0..count).cycle())).map(Ok);
    due.try_for_each_concurrent(WORKERS, |((), number)| {
        let leases = &leases;
        async move {
            let renewed = json!({"spec": {"renewTime": micro(Timestamp::now())}});
            let (name, params) = (name(number), PatchParams::default());
            leases.patch(&name, &params, &Patch::Merge(renewed)).await.map(drop).context("renew a lease")
        }
    })
    .await
}

/// What a kubelet would do about a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Act {
    Run,
    Remove,
}

fn decide(pod: &Pod) -> Option<Act> {
    pod.spec.as_ref()?.node_name.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Act::Remove);
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    (phase.unwrap_or("Pending") == "Pending").then_some(Act::Run)
}

/// Does what is to be done about Pods that changed, once each.
async fn perform(client: Client, mut changed: mpsc::UnboundedReceiver<Pod>) -> anyhow::Result<()> {
    // What was asked for already is not asked for again while its event is on the way.
    let mut asked = HashSet::new();
    let changed = stream::poll_fn(|context| changed.poll_recv(context));
    let acts = changed.filter_map(|pod| {
        let act = decide(&pod).filter(|act| asked.insert((pod.uid(), *act)));
        std::future::ready(act.map(|act| Ok((act, pod))))
    });
    acts.try_for_each_concurrent(WORKERS, |(act, pod)| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        async move {
            let name = pod.name_any();
            let done = match act {
                Act::Run => {
                    let running = Patch::Strategic(running(&pod));
                    pods.patch_status(&name, &PatchParams::default(), &running).await.map(drop)
                }
                Act::Remove => pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop),
            };
            match done {
                // It went, or another has its name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                done => done.with_context(|| format!("{act:?} {name}")),
            }
        }
    })
    .await
}

/// The status of a Pod whose only container runs.
fn running(pod: &Pod) -> serde_json::Value {
    let now = Timestamp::now();
    let now = format!("{:.0}", now);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"].map(condition);
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {
            "phase": "Running",
            "podIP": "10.200.0.1",
            "podIPs": [{"ip": "10.200.0.1"}],
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": containers.map(|container| json!({
                "name": container.name, "image": container.image, "imageID": "", "containerID": "fake://1",
                "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
            })).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_bound_pod_is_run_once_and_a_deleted_one_goes() {
        let pod = |text: serde_json::Value| serde_json::from_value::<Pod>(text).unwrap();
        let spec = json!({"nodeName": "n", "containers": []});
        assert_eq!(decide(&pod(json!({"metadata": {}, "spec": {"containers": []}}))), None);
        assert_eq!(decide(&pod(json!({"metadata": {}, "spec": spec}))), Some(Act::Run));
        assert_eq!(decide(&pod(json!({"metadata": {}, "spec": spec, "status": {"phase": "Running"}}))), None);
        let gone = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec});
        assert_eq!(decide(&pod(gone)), Some(Act::Remove));
    }

    #[test]
    fn times_are_as_kubernetes_has_them() {
        let time = "2026-01-02T03:04:05.5Z".parse().unwrap();
        assert_eq!(micro(time), "2026-01-02T03:04:05.500000Z");
    }
}
