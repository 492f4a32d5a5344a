//! Amounts of resources: what Pods request and nodes have.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use wherry_api::quantity::Quantity;

/// What a Pod without requests counts as when nodes are compared, so that such Pods spread as well.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources: CPU in thousandths, bytes, or pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
    pub(crate) pods: i64,
    pub(crate) extended: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts of a resource list. What cannot be read counts as nothing: the server validates it.
    pub(crate) fn read(list: Option<&BTreeMap<String, Text>>) -> Self {
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

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
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
pub(crate) fn requests(spec: &PodSpec) -> Resources {
    Resources { pods: 1, ..needed(spec, of) }
}

/// CPU and memory that a Pod counts as when nodes are compared.
pub(crate) fn weights(spec: &PodSpec) -> (i64, i64) {
    let needed = needed(spec, |container| with_defaults(of(container), container));
    (needed.milli_cpu, needed.memory)
}
