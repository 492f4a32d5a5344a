//! DaemonSet: the count of its template's changes, which older clients read from an annotation
//! (upstream: `pkg/registry/apps/daemonset/strategy.go`).

use serde_json::Value;

use super::{Sub, same};
use crate::defaults::{Object, child_or_new};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A new DaemonSet's template is the first.
pub(super) fn new_daemon_set(set: &mut Object) {
    write(set, 1);
}

/// One more for each change of the template; clients cannot set it.
pub(super) fn update_daemon_set(new: &mut Object, old: &Value, sub: Sub) {
    if sub != Sub::Main {
        return;
    }
    let before = old["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|text| text.parse().ok());
    let template = new.get("spec").map(|spec| &spec["template"]);
    let changed = !template.is_some_and(|template| same(template, &old["spec"]["template"]));
    write(new, before.unwrap_or(1_u64).saturating_add(changed.into()));
}

fn write(set: &mut Object, generation: u64) {
    let annotations = child_or_new(set, "metadata").and_then(|metadata| child_or_new(metadata, "annotations"));
    if let Some(annotations) = annotations {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}
