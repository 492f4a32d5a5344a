//! The Node object, as kubelet registers it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use wherry_reconcile::storage::LOCAL_PATH_DIR;
use wherry_reconcile::waking::WAITED_FOR;
use wherry_runtime::RuntimeInfo;

use super::{Capacity, extended};
use crate::ports::NodeImage;
use crate::shortage::Pressure;

/// The version of Kubernetes that this agent behaves as.
pub(crate) const KUBELET_VERSION: &str = concat!("v1.36.3+wherry.", env!("CARGO_PKG_VERSION"));
/// `status.images` shows at most so many.
const MAX_IMAGES: usize = 50;

/// What is told of a node.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where volumes of the class local-path are made.
    pub(crate) local_path: PathBuf,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) capacity: Capacity,
    pub(crate) runtime: RuntimeInfo,
}

/// Why the node is not ready; none where it is.
pub(crate) type NotReady = Option<String>;

/// Creates the Node, or takes up the one that is there.
pub(crate) async fn register(client: &kube::Client, facts: &Facts) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": facts.name, "labels": facts.labels, "annotations": {
            "node.alpha.kubernetes.io/ttl": "0", LOCAL_PATH_DIR: facts.local_path,
        } },
        "spec": {},
    });
    let node = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Ok(node) => Ok(node),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let told = json!({ "metadata": {
                "labels": facts.labels,
                // Whoever waited in an earlier life of the agent does so no longer.
                "annotations": { LOCAL_PATH_DIR: facts.local_path, WAITED_FOR: null },
            } });
            api.patch(&facts.name, &PatchParams::default(), &Patch::Merge(told)).await
        }
        Err(error) => Err(error),
    }
}

/// The status as a strategic merge patch. `known`: the Node as the API has it, for its conditions' times and for what others say
/// that it has.
pub(crate) fn status(
    facts: &Facts,
    known: Option<&Node>,
    not_ready: &NotReady,
    images: &[NodeImage],
    pressure: Pressure,
    now: Timestamp,
) -> Value {
    let capacity = json!({
        "cpu": quantity_millis(facts.capacity.cpu_millis),
        "memory": format!("{}Ki", facts.capacity.memory_bytes / 1024),
        "ephemeral-storage": format!("{}Ki", facts.capacity.storage_bytes / 1024),
        "pods": facts.capacity.pods.to_string(),
    });
    let mut allocatable = capacity.clone();
    if let (Some(allocatable), Some(known)) = (allocatable.as_object_mut(), known) {
        allocatable.extend(extended::changes(known));
    }
    let mut addresses: Vec<Value> =
        facts.ips.iter().map(|ip| json!({ "type": "InternalIP", "address": ip.to_string() })).collect();
    addresses.push(json!({ "type": "Hostname", "address": facts.name }));
    let condition = |type_: &str, on: bool, reason: &str, message: &str| {
        let status = if on { "True" } else { "False" };
        let old = known.and_then(|node| {
            node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
        });
        let since = old
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.as_ref())
            .map_or(now, |time| time.0);
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": seconds(now), "lastTransitionTime": seconds(since),
        })
    };
    let pressed = |type_: &str, on: bool, bad: &str, good: &str, bad_text: &str, good_text: &str| {
        if on { condition(type_, true, bad, bad_text) } else { condition(type_, false, good, good_text) }
    };
    let conditions = json!([
        pressed(
            "MemoryPressure",
            pressure.memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "kubelet has insufficient memory available",
            "kubelet has sufficient memory available"
        ),
        pressed(
            "DiskPressure",
            pressure.disk,
            "KubeletHasDiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has disk pressure",
            "kubelet has no disk pressure"
        ),
        pressed(
            "PIDPressure",
            pressure.pids,
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            "kubelet has insufficient PID available",
            "kubelet has sufficient PID available"
        ),
        match not_ready {
            None => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            Some(why) => condition("Ready", false, "KubeletNotReady", why),
        },
    ]);
    let images: Vec<Value> =
        images.iter().take(MAX_IMAGES).map(|image| json!({ "names": image.names, "sizeBytes": image.size })).collect();
    let mut status = Map::new();
    status.insert("capacity".to_owned(), capacity);
    status.insert("allocatable".to_owned(), allocatable);
    status.insert("addresses".to_owned(), Value::Array(addresses));
    status.insert("conditions".to_owned(), conditions);
    status.insert("images".to_owned(), Value::Array(images));
    status.insert("nodeInfo".to_owned(), node_info(facts));
    status.insert("features".to_owned(), json!({ "supplementalGroupsPolicy": true }));
    json!({ "status": status })
}

fn node_info(facts: &Facts) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let machine = read("/etc/machine-id");
    let system = read("/sys/class/dmi/id/product_uuid");
    let release = read("/etc/os-release");
    let pretty = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned());
    json!({
        "machineID": machine,
        "systemUUID": if system.is_empty() { machine.clone() } else { system },
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "osImage": pretty.unwrap_or_else(|| "Linux".to_owned()),
        "containerRuntimeVersion": format!("{}://{}", facts.runtime.name, facts.runtime.version),
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture(),
    })
}

/// As Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn quantity_millis(millis: i64) -> String {
    if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{millis}m") }
}

fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
