//! What the simulation reads in objects.

use serde_json::Value;

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number; zero where there is none.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string)
}

/// The controller of an object.
pub(crate) fn controller(object: &Value) -> Option<&Value> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

pub(crate) fn controller_uid(object: &Value) -> &str {
    controller(object).map_or("", |owner| text(owner, "/uid"))
}

/// Whether a condition is True.
pub(crate) fn has(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|known| known["type"] == condition && known["status"] == "True")
}

pub(crate) fn is_terminal(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a Pod counts: neither ended nor ending.
pub(crate) fn is_active(pod: &Value) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

/// Whether a Pod serves.
pub(crate) fn is_healthy(pod: &Value) -> bool {
    is_active(pod) && has(pod, "Ready")
}

/// Whether labels satisfy a selector (of `matchLabels` alone: the simulation makes no others).
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object();
    wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

/// A number, or a percentage of `whole`.
pub(crate) fn share(value: &Value, whole: i64, round_up: bool) -> i64 {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    match percent {
        Some(percent) if round_up => (whole * percent + 99) / 100,
        Some(percent) => whole * percent / 100,
        None => value.as_i64().unwrap_or(0),
    }
}

/// The indexes of `0-2,5`.
pub(crate) fn indexes(text: &str) -> Vec<i64> {
    let ranges = text.split(',').filter(|part| !part.is_empty());
    let bounds = ranges.filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    bounds.flatten().collect()
}
