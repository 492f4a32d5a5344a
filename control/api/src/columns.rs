//! Tables as kubectl prints them: columns and one printer of rows a kind.
//!
//! A row has one cell a column, in order. Columns of priority 1 are shown by `-o wide` only. Printers never fail: what is missing
//! prints as upstream prints it (`<none>`, `<unknown>`, 0).

use jiff::Timestamp;
use serde_json::Value;

use crate::validation::text;

mod cluster;
mod duration;
mod metrics;
mod network;
mod pod;
mod policy;
mod storage;
mod workloads;

pub(crate) use cluster::*;
pub use duration::human_duration;
pub(crate) use metrics::*;
pub(crate) use network::*;
pub(crate) use pod::*;
pub(crate) use policy::*;
pub(crate) use storage::*;
pub(crate) use workloads::*;

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading; kubectl prints it in capitals.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`.
    pub kind: &'static str,
    /// `name` for the column that holds the object's name, else empty.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// A column that is always shown.
const fn shown(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

/// A column of numbers.
const fn number(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description, priority: 0 }
}

/// A column of truths.
const fn truth(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", description, priority: 0 }
}

/// A column for `-o wide`.
const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "The object's name, unique within its namespace.",
    priority: 0,
};
const AGE: Column = shown("Age", "The time since the object was created.");

/// The columns of kinds without their own.
pub(crate) const NAME_AGE: &[Column] = &[NAME, AGE];

/// The row for [`NAME_AGE`].
pub(crate) fn name_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// The object's name.
fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// The object's age.
fn age(object: &Value, now: Timestamp) -> Value {
    Value::String(since(&object["metadata"]["creationTimestamp"], now))
}

/// The time since a timestamp, as people say it.
fn since(timestamp: &Value, now: Timestamp) -> String {
    match timestamp.as_str().and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(then) => human_duration(now.as_second() - then.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A text, or `<none>`.
fn or_none(value: &str) -> Value {
    Value::from(if value.is_empty() { "<none>" } else { value })
}

/// A truth as text.
fn truth_text(value: &Value) -> Value {
    value.as_bool().map_or("<unset>", |b| if b { "True" } else { "False" }).into()
}

/// The object's name, marked if an annotation says that it is the default of its kind.
fn name_or_default(object: &Value, annotation: &str) -> Value {
    let default = crate::meta::annotation(object, annotation) == Some("true");
    if default { format!("{} (default)", text(&object["metadata"], "name")).into() } else { name(object) }
}

/// A number, 0 if missing.
fn count(value: &Value) -> Value {
    Value::from(value.as_i64().unwrap_or(0))
}

/// A number as text, or what stands for a missing one.
fn shown_or(value: &Value, missing: &str) -> String {
    match value {
        Value::Null => missing.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Names of containers and of their images, joined.
fn containers_and_images(pod_spec: &Value) -> [Value; 2] {
    let containers = crate::validation::items(pod_spec, "containers");
    let join = |key: &str| Value::String(containers.iter().map(|c| text(c, key)).collect::<Vec<_>>().join(","));
    [join("name"), join("image")]
}

/// A label selector as text; `<none>` if it selects everything.
fn selector(selector: &Value) -> Value {
    if selector.is_null() {
        return "<none>".into();
    }
    let mut parts: Vec<(&str, String)> = crate::validation::entries(&selector["matchLabels"])
        .map(|(k, v)| (k.as_str(), format!("{k}={}", v.as_str().unwrap_or_default())))
        .collect();
    for expression in crate::validation::items(selector, "matchExpressions") {
        let key = text(expression, "key");
        let mut values: Vec<&str> =
            crate::validation::items(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match text(expression, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key, text));
    }
    parts.sort_by_key(|(key, _)| *key);
    or_none(&parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
}

/// A map of labels as `a=b,c=d`, or `<none>`.
fn labels(map: &Value) -> Value {
    let mut parts: Vec<String> =
        crate::validation::entries(map).map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    parts.sort_unstable();
    or_none(&parts.join(","))
}

#[cfg(test)]
mod tests;
