//! Matching labels and affinity terms; nodes and taints are matched by [`wherry_reconcile::placement`].

use k8s_openapi::{api::core::v1::PodAffinityTerm, apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector};
use wherry_api::selector::{LabelSelector, Operator, Requirement};
use wherry_reconcile::placement::compile;
pub(crate) use wherry_reconcile::placement::{Labels, NodeTerm, tolerates, untolerated};

/// A label selector object, ready to match. None matches nothing, as upstream has it.
pub(crate) fn selector(object: Option<&ObjectSelector>) -> LabelSelector {
    let Some(object) = object else {
        return LabelSelector::nothing();
    };
    let labels = object.match_labels.iter().flatten().map(|(k, v)| (k.as_str(), "In", vec![v.clone()]));
    let expressions = object
        .match_expressions
        .iter()
        .flatten()
        .map(|e| (e.key.as_str(), e.operator.as_str(), e.values.clone().unwrap_or_default()));
    compile(labels.chain(expressions))
}

/// A selector object narrowed by the values that a Pod has for some label keys.
pub(crate) fn selector_with(
    object: Option<&ObjectSelector>,
    labels: &Labels,
    same: Option<&Vec<String>>,
    other: Option<&Vec<String>>,
) -> LabelSelector {
    let base = selector(object);
    if object.is_none() {
        return base;
    }
    let mut requirements = base.requirements().to_vec();
    for (keys, operator) in [(same, Operator::In), (other, Operator::NotIn)] {
        for key in keys.into_iter().flatten() {
            let Some(value) = labels.get(key) else {
                continue;
            };
            match Requirement::new(key, operator, vec![value.clone()]) {
                Ok(requirement) => requirements.push(requirement),
                Err(_) => return LabelSelector::nothing(),
            }
        }
    }
    if base == LabelSelector::nothing() { base } else { LabelSelector::of(requirements) }
}

/// A Pod affinity or anti-affinity term, ready to match.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodTerm {
    pub(crate) topology_key: String,
    selector: LabelSelector,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
}

impl PodTerm {
    /// The term of a Pod that lives in `namespace`.
    pub(crate) fn new(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: selector_with(
                term.label_selector.as_ref(),
                labels,
                term.match_label_keys.as_ref(),
                term.mismatch_label_keys.as_ref(),
            ),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|s| selector(Some(s))),
        }
    }

    /// Whether it speaks of a Pod with these labels in a namespace with those.
    pub(crate) fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        let here = self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| s.matches(namespace_labels));
        here && self.selector.matches(labels)
    }
}
