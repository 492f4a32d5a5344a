//! The Pods of a DaemonSet: where they may run, and what they look like. Pure.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{
        Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
    },
};
use wherry_reconcile::placement::{Labels, NodeTerm, untolerated};

use crate::{hand::pod_of, history::HASH, pods};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
const NODE_NAME: &str = "metadata.name";

/// Whether a node is for a DaemonSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fit {
    /// A Pod should run there.
    pub(super) run: bool,
    /// One that runs there may stay.
    pub(super) stay: bool,
}

/// A DaemonSet's template, ready to be asked.
pub(super) struct Template {
    pod: Pod,
    node_name: Option<String>,
    selector: Labels,
    required: Option<Vec<NodeTerm>>,
}

impl Template {
    /// The template of `set`, whose present revision has the hash `hash`.
    pub(super) fn of(set: &DaemonSet, hash: &str) -> Self {
        let mut pod = set.spec.as_ref().map(|spec| pod_of(set, &spec.template)).unwrap_or_default();
        let labels = pod.metadata.labels.get_or_insert_default();
        if let Some(generation) = generation(set) {
            labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
        }
        labels.insert(HASH.to_owned(), hash.to_owned());
        let spec = pod.spec.get_or_insert_default();
        tolerate(spec);
        let required = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|selector| selector.node_selector_terms.iter().map(NodeTerm::new).collect());
        Self {
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            selector: spec.node_selector.clone().unwrap_or_default(),
            required,
            pod,
        }
    }

    /// Whether a node is for it: by name, labels and taints. Taints of a cordon or of pressure are tolerated by all daemons.
    pub(super) fn fit(&self, node: &Node) -> Fit {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let empty = Labels::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
        let named = self.node_name.as_deref().is_none_or(|wanted| wanted == name);
        let selected = self.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        let required = self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)));
        if !(named && selected && required) {
            return Fit::default();
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let spec = self.pod.spec.as_ref();
        let tolerations = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let bearable = |effects: &[&str]| untolerated(taints, tolerations, effects).next().is_none();
        Fit { run: bearable(&["NoSchedule", "NoExecute"]), stay: bearable(&["NoExecute"]) }
    }

    /// The Pod for a node. It is bound by the scheduler, as every Pod is: an affinity leaves it only one choice.
    pub(super) fn pod_for(&self, node: &str) -> Pod {
        let mut pod = self.pod.clone();
        let spec = pod.spec.get_or_insert_default();
        let term = NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: NODE_NAME.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            ..NodeSelectorTerm::default()
        };
        // What the template required of nodes has been asked: the node's name takes its place.
        spec.affinity
            .get_or_insert_with(Affinity::default)
            .node_affinity
            .get_or_insert_with(NodeAffinity::default)
            .required_during_scheduling_ignored_during_execution =
            Some(NodeSelector { node_selector_terms: vec![term] });
        pod
    }
}

/// How often the template has changed, which older clients tell Pods by.
pub(super) fn generation(set: &DaemonSet) -> Option<&str> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION).map(String::as_str)
}

/// Whether a Pod is of the present template: its hash tells, and only where there is none its generation, which counts from one again
/// for a DaemonSet that is made anew and adopts the Pods of an earlier one. (Upstream's `IsPodUpdated` takes either.)
pub(super) fn is_updated(set: &DaemonSet, hash: &str, pod: &Pod) -> bool {
    let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    match label(HASH) {
        Some(found) => found == hash,
        None => generation(set).is_some_and(|generation| label(GENERATION_LABEL) == Some(generation)),
    }
}

/// The node that a Pod is on, or is meant for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    if let Some(node) = pods::node_of(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NODE_NAME && field.operator == "In");
    names.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}

/// A daemon stays through what would drive or keep others away.
fn tolerate(spec: &mut PodSpec) {
    let mut keys = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        keys.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in keys {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(spec: serde_json::Value) -> Template {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": { "name": "logs", "namespace": "default", "uid": "u",
                "annotations": { TEMPLATE_GENERATION: "3" } },
            "spec": { "selector": {}, "template": { "metadata": { "labels": { "app": "logs" } }, "spec": spec } },
        }))
        .unwrap();
        Template::of(&set, "abc")
    }

    fn node(labels: serde_json::Value, taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "n", "labels": labels }, "spec": { "taints": taints } }))
            .unwrap()
    }

    #[test]
    fn nodes_fit_by_labels_names_and_taints() {
        let run = Fit { run: true, stay: true };
        let any = template(json!({ "containers": [] }));
        let cordoned = json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
        let unready = json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }]);
        assert_eq!(any.fit(&node(json!({}), cordoned)), run);
        assert_eq!(any.fit(&node(json!({}), unready)), run);
        let gpu = |effect: &str| json!([{ "key": "gpu", "effect": effect }]);
        assert_eq!(any.fit(&node(json!({}), gpu("NoSchedule"))), Fit { run: false, stay: true });
        assert_eq!(any.fit(&node(json!({}), gpu("NoExecute"))), Fit { run: false, stay: false });
        assert_eq!(any.fit(&node(json!({}), gpu("PreferNoSchedule"))), run);

        let blue = template(json!({ "containers": [], "nodeSelector": { "color": "blue" } }));
        assert_eq!(blue.fit(&node(json!({ "color": "blue" }), json!([]))), run);
        assert_eq!(blue.fit(&node(json!({ "color": "green" }), json!([]))), Fit::default());
        let named = template(json!({ "containers": [], "nodeName": "other" }));
        assert_eq!(named.fit(&node(json!({}), json!([]))), Fit::default());
        let terms = |key: &str, value: &str| {
            json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { key: [{ "key": "metadata.name", "operator": "In", "values": [value] }] }
            ] } } })
        };
        let fields = |value| template(json!({ "containers": [], "affinity": terms("matchFields", value) }));
        assert_eq!(fields("n").fit(&node(json!({}), json!([]))), run);
        assert_eq!(fields("m").fit(&node(json!({}), json!([]))), Fit::default());
    }

    #[test]
    fn a_pod_adopted_from_an_earlier_set_is_told_by_its_hash() {
        let set: DaemonSet =
            serde_json::from_value(json!({ "metadata": { "annotations": { TEMPLATE_GENERATION: "2" } } })).unwrap();
        let pod =
            |labels: serde_json::Value| serde_json::from_value(json!({ "metadata": { "labels": labels } })).unwrap();
        assert!(is_updated(&set, "abc", &pod(json!({ HASH: "abc", GENERATION_LABEL: "7" }))));
        assert!(!is_updated(&set, "abc", &pod(json!({ HASH: "xyz", GENERATION_LABEL: "2" }))));
        assert!(is_updated(&set, "abc", &pod(json!({ GENERATION_LABEL: "2" }))));
        assert!(!is_updated(&set, "abc", &pod(json!({}))));
    }

    #[test]
    fn pods_name_their_node_and_revision() {
        let template = template(json!({ "containers": [], "hostNetwork": true }));
        let pod = template.pod_for("n");
        assert_eq!(target(&pod), Some("n"));
        let labels = pod.metadata.labels.clone().unwrap();
        assert_eq!((labels[HASH].as_str(), labels[GENERATION_LABEL].as_str()), ("abc", "3"));
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("logs-"));
        assert_eq!(pod.spec.unwrap().tolerations.unwrap().len(), 7);
    }
}
