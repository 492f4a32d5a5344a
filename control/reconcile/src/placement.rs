//! Whether a node is for a Pod: node selectors and taints, as the scheduler and the DaemonSet controller ask them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use wherry_api::selector::{LabelSelector, Operator, Requirement};

/// Labels, or fields that are asked like labels.
pub type Labels = BTreeMap<String, String>;

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
pub fn compile<'a>(terms: impl Iterator<Item = (&'a str, &'a str, Vec<String>)>) -> LabelSelector {
    let requirements = terms.map(|(key, op, values)| Requirement::new(key, operator(op)?, values).ok());
    requirements.collect::<Option<Vec<_>>>().map_or_else(LabelSelector::nothing, LabelSelector::of)
}

/// A term of a node selector: labels and fields, all of which must match.
#[derive(Debug, Clone)]
pub struct NodeTerm {
    labels: LabelSelector,
    fields: LabelSelector,
}

impl NodeTerm {
    /// A term, ready to match; an empty one matches no node.
    pub fn new(term: &NodeSelectorTerm) -> Self {
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

    /// Whether it matches a node of this name with these labels.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.matches(labels)
            && (self.fields.is_everything()
                || self.fields.matches(&Labels::from([("metadata.name".into(), name.into())])))
    }
}

/// Whether a toleration lets a Pod ignore a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
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
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &'a [Toleration],
    effects: &'a [&'a str],
) -> impl Iterator<Item = &'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
