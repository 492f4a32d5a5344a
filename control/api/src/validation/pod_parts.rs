//! What the subresources `ephemeralcontainers` and `resize` may change of a Pod.

use serde_json::Value;

use super::{At, Errors, entries, is_set, items, text};
use crate::strategy::{qos_class, same};

/// The annotation of a Pod that stands for a static one.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_mirror(pod: &Value) -> bool {
    is_set(&pod["metadata"]["annotations"], MIRROR)
}

/// Ephemeral containers are added, never changed or taken away.
pub(super) fn ephemeral(new: &Value, old: &Value, errors: &mut Errors) {
    if is_mirror(old) {
        return errors.forbidden(&At::root(""), "static pods do not support ephemeral containers");
    }
    let at = At::root("spec");
    let at = at.field("ephemeralContainers");
    let now = items(&new["spec"], "ephemeralContainers");
    for before in items(&old["spec"], "ephemeralContainers") {
        let name = text(before, "name");
        match now.iter().find(|container| text(container, "name") == name) {
            None => errors.forbidden(&at, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(after) if !same(before, after) => {
                errors.forbidden(&at, format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// CPU and memory of containers and sidecars may change, within their quality of service.
pub(super) fn resize(new: &Value, old: &Value, errors: &mut Errors) {
    if is_mirror(old) {
        return errors.forbidden(&At::root(""), "static pods cannot be resized");
    }
    let (new, old, at) = (&new["spec"], &old["spec"], At::root("spec"));
    let class = qos_class(new);
    if class != qos_class(old) {
        errors.invalid(&at, class, "Pod QOS Class may not change as a result of resizing");
    }
    let lists = ["containers", "initContainers"];
    for list in lists {
        let (now, before) = (items(new, list), items(old, list));
        let what = if list == "containers" { "containers" } else { "initContainers" };
        if now.len() != before.len() {
            return errors.forbidden(&at.field(list), format!("{what} may not be added or removed on resize"));
        }
        for (i, (now, before)) in now.iter().zip(before).enumerate() {
            if text(now, "name") != text(before, "name") {
                let why = format!("{what} may not be renamed or reordered on resize");
                return errors.forbidden(&at.field(list).index(i).field("name"), why);
            }
        }
    }
    for list in lists {
        for (i, (now, before)) in items(new, list).iter().zip(items(old, list)).enumerate() {
            let at = at.field(list);
            let at = at.index(i);
            let at = at.field("resources");
            let (now_resources, before_resources) = (&now["resources"], &before["resources"]);
            if list == "initContainers" && before["restartPolicy"] != "Always" && !same(now_resources, before_resources)
            {
                errors.forbidden(&at, "resources for non-sidecar init containers are immutable");
                continue;
            }
            for (key, why) in
                [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
            {
                if entries(&before_resources[key]).any(|(resource, _)| !is_set(&now_resources[key], resource)) {
                    errors.forbidden(&at.field(key), why);
                }
            }
        }
    }
    let without_amounts = |spec: &Value| {
        let mut spec = spec.clone();
        for list in lists {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                forget_amounts(container);
            }
        }
        spec
    };
    if !same(&without_amounts(new), &without_amounts(old)) {
        errors.forbidden(&at, "only cpu and memory resources are mutable");
    }
}

/// Takes away what a resize may change.
fn forget_amounts(container: &mut Value) {
    let Some(container) = container.as_object_mut() else { return };
    container.remove("resizePolicy");
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    for key in ["requests", "limits"] {
        if let Some(list) = resources.get_mut(key).and_then(Value::as_object_mut) {
            list.remove("cpu");
            list.remove("memory");
            if list.is_empty() {
                resources.remove(key);
            }
        }
    }
    if resources.is_empty() {
        container.remove("resources");
    }
}
