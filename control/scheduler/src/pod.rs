//! A Pod as the scheduler sees it: everything that filters and scores ask, read once.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, Toleration},
    jiff::Timestamp,
};
use wherry_api::selector::LabelSelector;
use wherry_reconcile::{
    ObjectKey,
    host_ports::{self, HostPort},
    ownership::controller_of,
    resources::{self, Resources},
};

use crate::matching::{Labels, NodeTerm, PodTerm, selector_with};

/// A constraint on how Pods spread over domains.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    pub(crate) topology_key: String,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: i64,
    pub(crate) required: bool,
    pub(crate) selector: LabelSelector,
    pub(crate) honor_affinity: bool,
    pub(crate) honor_taints: bool,
}

/// A claim that a Pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimUse {
    pub(crate) name: String,
    /// It is made for this Pod.
    pub(crate) ephemeral: bool,
}

/// A Pod and what was read from it.
#[derive(Debug, Clone)]
pub struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) labels: Labels,
    pub(crate) owner: Option<String>,
    pub(crate) priority: i32,
    pub(crate) node_name: Option<String>,
    pub(crate) requests: Resources,
    /// CPU and memory for comparing nodes.
    pub(crate) weights: (i64, i64),
    pub(crate) ports: Vec<HostPort>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) node_selector: Labels,
    pub(crate) node_required: Option<Vec<NodeTerm>>,
    pub(crate) node_preferred: Vec<(i64, NodeTerm)>,
    pub(crate) affinity: Vec<PodTerm>,
    pub(crate) anti_affinity: Vec<PodTerm>,
    /// Preferred terms; those to keep away from have a negative weight.
    pub(crate) preferred: Vec<(i64, PodTerm)>,
    pub(crate) spreads: Vec<Spread>,
    pub(crate) images: Vec<String>,
    /// The claims that its volumes name.
    pub(crate) claims: Vec<ClaimUse>,
    /// Whether it is being deleted.
    pub(crate) terminating: bool,
    /// Whether it is being deleted to make room for a Pod of higher priority.
    pub(crate) preempted: bool,
    /// Whether others may be deleted to make room for it.
    pub(crate) preempts: bool,
    /// The node where room is made for it.
    pub(crate) nominated: Option<String>,
    /// When its node took it up.
    pub(crate) started: Option<Timestamp>,
    /// Whether it needs a node that runs containers; known only where it matters.
    pub(crate) needs_containers: bool,
}

impl PodInfo {
    /// Reads a Pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let key = ObjectKey::of(&*pod);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let affinity = spec.affinity.clone().unwrap_or_default();
        let node = affinity.node_affinity.unwrap_or_default();
        let with = affinity.pod_affinity.unwrap_or_default();
        let without = affinity.pod_anti_affinity.unwrap_or_default();
        let term = |term: &_| PodTerm::new(term, &key.namespace, &labels);
        let near = with.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        let apart = without.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        let preferred = near
            .iter()
            .map(|w| (i64::from(w.weight), term(&w.pod_affinity_term)))
            .chain(apart.iter().map(|w| (-i64::from(w.weight), term(&w.pod_affinity_term))))
            .collect();
        let required = |terms: Option<Vec<_>>| terms.iter().flatten().map(term).collect();
        let status = pod.status.clone().unwrap_or_default();
        let terminating = pod.metadata.deletion_timestamp.is_some();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            owner: controller_of(&pod.metadata).map(|owner| owner.uid.clone()),
            priority: spec.priority.unwrap_or_default(),
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            requests: resources::held(&pod),
            weights: resources::weights(&spec),
            ports: host_ports::of(&spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_required: node
                .required_during_scheduling_ignored_during_execution
                .map(|selector| selector.node_selector_terms.iter().map(NodeTerm::new).collect()),
            node_preferred: node
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(|preferred| (i64::from(preferred.weight), NodeTerm::new(&preferred.preference)))
                .collect(),
            affinity: required(with.required_during_scheduling_ignored_during_execution),
            anti_affinity: required(without.required_during_scheduling_ignored_during_execution),
            preferred,
            spreads: spreads(&spec, &labels),
            images: spec
                .init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
                .filter_map(|container| container.image.clone())
                .collect(),
            claims: claims(&spec, &key.name),
            preempted: terminating && status.conditions.iter().flatten().any(is_preemption),
            terminating,
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            nominated: nominated(&pod),
            started: status.start_time.map(|time| time.0),
            needs_containers: false,
            key,
            labels,
            pod,
        }
    }

    /// The same Pod with what is known about its images.
    pub fn needing_containers(mut self, needs: bool) -> Self {
        self.needs_containers = needs;
        self
    }
}

/// The node where room is made for a Pod, as its status says.
pub(crate) fn nominated(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.nominated_node_name.clone().filter(|name| !name.is_empty())
}

/// The condition of a Pod that the scheduler has asked to go, and its reason.
pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub(crate) const PREEMPTION: &str = "PreemptionByScheduler";

fn is_preemption(condition: &PodCondition) -> bool {
    condition.type_ == DISRUPTION_TARGET
        && condition.status == "True"
        && condition.reason.as_deref() == Some(PREEMPTION)
}

fn claims(spec: &k8s_openapi::api::core::v1::PodSpec, pod: &str) -> Vec<ClaimUse> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(ClaimUse { name: claim.claim_name.clone(), ephemeral: false }),
            (None, Some(_)) => Some(ClaimUse { name: format!("{pod}-{}", volume.name), ephemeral: true }),
            _ => None,
        })
        .collect()
}

fn spreads(spec: &k8s_openapi::api::core::v1::PodSpec, labels: &Labels) -> Vec<Spread> {
    let constraints = spec.topology_spread_constraints.iter().flatten();
    constraints
        .map(|c| Spread {
            topology_key: c.topology_key.clone(),
            max_skew: i64::from(c.max_skew),
            min_domains: i64::from(c.min_domains.unwrap_or(1)),
            required: c.when_unsatisfiable == "DoNotSchedule",
            selector: selector_with(c.label_selector.as_ref(), labels, c.match_label_keys.as_ref(), None),
            honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        })
        .collect()
}
