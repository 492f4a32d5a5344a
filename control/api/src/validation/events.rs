//! Event: what one with a time of its own must say (upstream: `legacyValidateEvent` of core). What events.k8s.io asks for beyond
//! that is not asked: events are judged in their stored form, which is core's.

use serde_json::Value;

use super::{At, Errors, is_set, names, text};

/// The most bytes of names, and of the message.
const NAME_LIMIT: usize = 128;
const MESSAGE_LIMIT: usize = 1024;

fn has_time(event: &Value) -> bool {
    is_set(event, "eventTime")
}

/// A new or changed event.
pub(crate) fn event(event: &Value, errors: &mut Errors) {
    let namespace = text(&event["metadata"], "namespace");
    let involved = text(&event["involvedObject"], "namespace");
    let (at, involved_at) = (At::root, At::root("involvedObject"));
    let fits = match (has_time(event), involved.is_empty()) {
        (false, true) => matches!(namespace, "" | "default"),
        (false, false) => involved == namespace,
        (true, true) => matches!(namespace, "default" | "kube-system"),
        (true, false) => true,
    };
    if !fits {
        errors.invalid(&involved_at.field("namespace"), involved, "does not match event.namespace");
    }
    if has_time(event) {
        let reporter = text(event, "reportingComponent");
        let reporter_at = at("reportingComponent");
        if reporter.is_empty() {
            errors.required(&reporter_at, "");
        }
        errors.rule(&reporter_at, reporter, names::qualified);
        for key in ["reportingInstance", "action", "reason"] {
            if text(event, key).is_empty() {
                errors.required(&at(key), "");
            }
            limit(event, key, NAME_LIMIT, errors);
        }
        limit(event, "message", MESSAGE_LIMIT, errors);
    }
}

fn limit(event: &Value, key: &str, most: usize, errors: &mut Errors) {
    if text(event, key).len() > most {
        errors.invalid(&At::root(key), "", format!("can have at most {most} characters"));
    }
}
