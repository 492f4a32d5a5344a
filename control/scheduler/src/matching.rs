//! Matching labels, node selectors, taints and affinity terms.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector,
};
use wherry_api::selector::{LabelSelector, Operator, Requirement};

pub(crate) type Labels = BTreeMap<String, String>;

fn operator(text: &str) -> Option<Operator> {
    Some(match text {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    })
}

/// A selector from (key, operator, values); one that cannot be valid matches nothing.
fn compile<'a>(terms: impl Iterator<Item = (&'a str, &'a str, Vec<String>)>) -> LabelSelector {
    let requirements = terms.map(|(key, op, values)| Requirement::new(key, operator(op)?, values).ok());
    requirements.collect::<Option<Vec<_>>>().map_or_else(LabelSelector::nothing, LabelSelector::of)
}

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

/// A term of a node selector: labels and fields, all of which must match.
#[derive(Debug, Clone)]
pub(crate) struct NodeTerm {
    labels: LabelSelector,
    fields: LabelSelector,
}

impl NodeTerm {
    /// None for an empty term, which matches no node.
    pub(crate) fn new(term: &NodeSelectorTerm) -> Self {
        let read = |list: &Option<Vec<NodeSelectorRequirement>>| {
            compile(
                list.iter()
                    .flatten()
                    .map(|e| (e.key.as_str(), e.operator.as_str(), e.values.clone().unwrap_or_default())),
            )
        };
        let empty = term.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && term.match_fields.as_ref().is_none_or(Vec::is_empty);
        if empty {
            return Self { labels: LabelSelector::nothing(), fields: LabelSelector::nothing() };
        }
        Self { labels: read(&term.match_expressions), fields: read(&term.match_fields) }
    }

    pub(crate) fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.matches(labels)
            && (self.fields.is_everything()
                || self.fields.matches(&Labels::from([("metadata.name".into(), name.into())])))
    }
}

/// A Pod affinity or anti-affinity term, ready to match.
#[derive(Debug, Clone)]
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

/// Whether a toleration lets a Pod ignore a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (ours, theirs) = (text(&toleration.value), text(&taint.value));
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => !key.is_empty() && ours == theirs,
        "Exists" => true,
        operator @ ("Lt" | "Gt") => match (theirs.parse::<i64>(), ours.parse::<i64>()) {
            (Ok(taint), Ok(limit)) => {
                if operator == "Lt" {
                    taint < limit
                } else {
                    taint > limit
                }
            }
            _ => false,
        },
        _ => false,
    }
}

/// The taints with one of these effects that no toleration covers.
pub(crate) fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &'a [Toleration],
    effects: &'a [&'a str],
) -> impl Iterator<Item = &'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
