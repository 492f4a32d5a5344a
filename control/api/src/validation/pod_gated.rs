//! A Pod that waits at scheduling gates: where it may run can be narrowed, not widened.

use serde_json::Value;

use super::{At, Errors, entries, items};
use crate::strategy::same;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// What a changed spec says of Nodes, beside what it said.
pub(super) fn narrowed(new: &Value, old: &Value, at: &At, errors: &mut Errors) {
    let selector = &new["nodeSelector"];
    if entries(&old["nodeSelector"]).any(|(key, value)| selector[key.as_str()] != *value) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&at.field("nodeSelector"), selector.clone(), why);
    }
    let terms = |spec: &Value| spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].clone();
    let (new_terms, old_terms) = (terms(new), terms(old));
    let (new_list, old_list) = (list(&new_terms), list(&old_terms));
    let at = at.field("affinity");
    let at = at.field("nodeAffinity");
    let at = at.field(REQUIRED);
    let at = at.field("nodeSelectorTerms");
    if old_list.is_empty() {
        return;
    }
    if old_list.len() != new_list.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&at, new_terms, why);
    }
    for (i, (new, _)) in new_list.iter().zip(old_list).enumerate().filter(|(_, (new, old))| !only_adds(new, old)) {
        errors.invalid(&at.index(i), new.clone(), "only additions are allowed (no mutations or deletions)");
    }
}

fn list(terms: &Value) -> &[Value] {
    terms.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether a term's requirements begin with those it had; a term that had none matches nothing and stays so.
fn only_adds(new: &Value, old: &Value) -> bool {
    let begins = |key: &str| {
        let (new, old) = (items(new, key), items(old, key));
        new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| same(new, old))
    };
    let empty = |term: &Value| items(term, "matchExpressions").is_empty() && items(term, "matchFields").is_empty();
    if empty(old) { empty(new) } else { begins("matchExpressions") && begins("matchFields") }
}

/// Whether two affinities differ at most in what is said of Nodes.
pub(super) fn same_but_nodes(new: &Value, old: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().all(|key| same(&new[*key], &old[*key]))
}
