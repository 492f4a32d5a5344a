//! Fields of features that upstream has off by default: dropped, unless the old object has them already.

use serde_json::Value;

use super::Sub;
use crate::defaults::Object;

/// Where the fields are: the fields above them, and their names.
type Gate = (&'static [&'static str], &'static [&'static str]);

const STATEFUL_SET: Gate = (&["spec", "updateStrategy", "rollingUpdate"], &["maxUnavailable"]);
const LEASE: Gate = (&["spec"], &["strategy", "preferredHolder"]);

fn drop(object: &mut Object, old: &Value, (above, names): Gate) {
    let old = above.iter().fold(old, |old, key| &old[*key]);
    let mut at = Some(object);
    for key in above {
        at = at.and_then(|object| object.get_mut(*key)).and_then(Value::as_object_mut);
    }
    let Some(at) = at else { return };
    for name in names.iter().filter(|name| old[**name].is_null()) {
        at.remove(*name);
    }
}

/// StatefulSet: one Pod at a time is replaced.
pub(super) fn new_stateful_set(set: &mut Object) {
    drop(set, &Value::Null, STATEFUL_SET);
}

/// The same for a changed one.
pub(super) fn update_stateful_set(set: &mut Object, old: &Value, _: Sub) {
    drop(set, old, STATEFUL_SET);
}

/// Lease: nobody picks its holder.
pub(super) fn new_lease(lease: &mut Object) {
    drop(lease, &Value::Null, LEASE);
}

/// The same for a changed one.
pub(super) fn update_lease(lease: &mut Object, old: &Value, _: Sub) {
    drop(lease, old, LEASE);
}

/// EndpointSlice: the labels of nodes are those of older versions.
pub(super) fn new_endpoint_slice(slice: &mut Object) {
    for endpoint in slice.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.remove("deprecatedTopology");
        }
    }
}

/// The same for a changed one.
pub(super) fn update_endpoint_slice(slice: &mut Object, _: &Value, _: Sub) {
    new_endpoint_slice(slice);
}
