//! Amounts of resources: what Pods request and nodes have.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use wherry_api::quantity::Quantity;

/// The condition of a Pod whose node has not given it what it requests now.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// Its reason where the node can never give it.
pub const INFEASIBLE: &str = "Infeasible";
/// Its reason where others hold it.
pub const DEFERRED: &str = "Deferred";

/// What a Pod without requests counts as when nodes are compared, so that such Pods spread as well.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources: CPU in thousandths, bytes, or pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the disk of a node.
    pub ephemeral: i64,
    /// Places for Pods.
    pub pods: i64,
    /// What nodes have beside these, by name.
    pub extended: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts of a resource list. What cannot be read counts as nothing: the server validates it.
    #[must_use]
    pub fn read(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut out = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(quantity) = Quantity::parse(&text.0) else {
                continue;
            };
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral = quantity.value(),
                "pods" => out.pods = quantity.value(),
                _ => {
                    out.extended.insert(name.clone(), quantity.value());
                }
            }
        }
        out
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    /// Takes each amount away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
        self.extended.retain(|_, amount| *amount != 0);
    }

    fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral = with(self.ephemeral, other.ephemeral);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = with(*sum, *amount);
        }
    }
}

fn of(container: &Container) -> Resources {
    Resources::read(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn with_defaults(mut requests: Resources, container: &Container) -> Resources {
    let listed = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    if listed.is_none_or(|list| !list.contains_key("cpu")) {
        requests.milli_cpu = DEFAULT_MILLI_CPU;
    }
    if listed.is_none_or(|list| !list.contains_key("memory")) {
        requests.memory = DEFAULT_MEMORY;
    }
    requests
}

/// What a Pod needs at its hungriest moment: all containers and sidecars together, or an init container beside the
/// sidecars that were started before it; plus the overhead of its runtime.
fn needed(spec: &PodSpec, amount: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&amount(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut at_once = amount(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&at_once);
            sidecars.add(&at_once);
            at_once = Resources::default();
        }
        at_once.add(&sidecars);
        starting.raise_to(&at_once);
    }
    running.raise_to(&starting);
    // A Pod's own requests, where given, stand in for the sum of its containers'.
    if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let own = Resources::read(Some(list));
        if list.contains_key("cpu") {
            running.milli_cpu = own.milli_cpu;
        }
        if list.contains_key("memory") {
            running.memory = own.memory;
        }
    }
    running.add(&Resources::read(spec.overhead.as_ref()));
    running
}

/// What a Pod requests. It takes one place of the node's Pods.
#[must_use]
pub fn requests(spec: &PodSpec) -> Resources {
    Resources { pods: 1, ..needed(spec, of) }
}

/// What a Pod takes of its node: what it requests, and what it was given before as long as a resize is on its way. What it
/// requests and can never have is not counted.
#[must_use]
pub fn held(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let status = pod.status.as_ref();
    let statuses = || {
        let lists = status.map(|status| (&status.init_container_statuses, &status.container_statuses));
        lists.into_iter().flat_map(|(init, main)| init.iter().chain(main).flatten())
    };
    let infeasible = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
        conditions.iter().any(|one| one.type_ == RESIZE_PENDING && one.reason.as_deref() == Some(INFEASIBLE))
    });
    let amount = |container: &Container| match statuses().find(|status| status.name == container.name) {
        Some(status) if status.allocated_resources.is_some() => {
            let mut amount = given(status);
            if !infeasible {
                amount.raise_to(&of(container));
            }
            amount
        }
        _ => of(container),
    };
    Resources { pods: 1, ..needed(spec, amount) }
}

/// What a container was promised by its node, or still has.
fn given(status: &ContainerStatus) -> Resources {
    let mut given = Resources::read(status.allocated_resources.as_ref());
    given.raise_to(&Resources::read(status.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
    given
}

/// CPU and memory that a Pod counts as when nodes are compared.
#[must_use]
pub fn weights(spec: &PodSpec) -> (i64, i64) {
    let needed = needed(spec, |container| with_defaults(of(container), container));
    (needed.milli_cpu, needed.memory)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn pod(requests: &str, allocated: &str, has: &str, reason: &str) -> Pod {
        let list = |cpu: &str| serde_json::json!({ "cpu": cpu });
        serde_json::from_value(serde_json::json!({
            "spec": { "containers": [{ "name": "c", "resources": { "requests": list(requests) } }] },
            "status": {
                "conditions": [{ "type": RESIZE_PENDING, "status": "True", "reason": reason }],
                "containerStatuses": [{
                    "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "allocatedResources": list(allocated), "resources": { "requests": list(has) },
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_holds_what_it_has_and_what_it_may_get() {
        for (requests, allocated, has, reason, held_cpu) in [
            ("1", "1", "1", "", 1000),
            ("3", "1", "1", DEFERRED, 3000),
            ("30", "1", "1", INFEASIBLE, 1000),
            // On its way down it has what it had.
            ("1", "1", "2", "", 2000),
        ] {
            let pod = pod(requests, allocated, has, reason);
            assert_eq!(held(&pod).milli_cpu, held_cpu, "{requests} {allocated} {has} {reason}");
        }
    }
}
