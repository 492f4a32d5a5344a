//! What the types of `metrics.k8s.io` and `custom.metrics.k8s.io` are for: the crate k8s-openapi does not have them.

use serde_json::{Value, json};

const PACKAGE: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";
const CUSTOM: &str = "io.k8s.metrics.pkg.apis.custom_metrics.v1beta2";
const API_VERSION: &str = "The versioned schema of this representation of an object.";
const KIND: &str = "The REST resource that this object represents.";
const WINDOW: &str = "The time over which the CPU usage was measured; it ended at the timestamp.";

/// By component, as [`Descriptions`](super::Descriptions) holds them.
pub(super) fn descriptions() -> impl Iterator<Item = (String, Value)> {
    let field = |text: &str| json!({"description": text});
    let object = |description: &str, last: &str, last_text: &str| {
        json!({
            "description": description,
            "properties": {
                "apiVersion": field(API_VERSION), "kind": field(KIND),
                "metadata": field("Name and labels of what was measured."),
                "timestamp": field("When it was measured."), "window": field(WINDOW), last: field(last_text),
            },
        })
    };
    let list = |of: &str| {
        json!({
            "description": format!("A list of {of}."),
            "properties": {
                "apiVersion": field(API_VERSION), "kind": field(KIND), "metadata": field("Standard list metadata."),
                "items": field(&format!("The {of}.")),
            },
        })
    };
    let usage = "CPU and memory in use, by the resource's name; memory is the working set.";
    [
        ("NodeMetrics", object("What a node uses.", "usage", usage)),
        ("NodeMetricsList", list("NodeMetrics")),
        ("PodMetrics", object("What the containers of a Pod use.", "containers", "What each container uses.")),
        ("PodMetricsList", list("PodMetrics")),
        (
            "ContainerMetrics",
            json!({
                "description": "What a container uses.",
                "properties": {"name": field("The container's name."), "usage": field(usage)},
            }),
        ),
    ]
    .into_iter()
    .map(|(name, words)| (format!("{PACKAGE}.{name}"), words))
    .chain(custom().map(|(name, words)| (format!("{CUSTOM}.{name}"), words)))
}

fn custom() -> impl Iterator<Item = (&'static str, Value)> {
    let field = |text: &str| json!({"description": text});
    [
        (
            "MetricIdentifier",
            json!({
                "description": "The name of a metric, and which of its series.",
                "properties": {
                    "name": field("The metric's name."), "selector": field("The labels by which its series were chosen."),
                },
            }),
        ),
        (
            "MetricValue",
            json!({
                "description": "A metric of one object.",
                "properties": {
                    "apiVersion": field(API_VERSION), "kind": field(KIND),
                    "describedObject": field("The object of which it is told."), "metric": field("Which metric it is."),
                    "timestamp": field("When it was measured."),
                    "windowSeconds": field("Over how long a rate was measured; none for what has no rate."),
                    "value": field("The value."),
                },
            }),
        ),
        (
            "MetricValueList",
            json!({
                "description": "A metric of some objects.",
                "properties": {
                    "apiVersion": field(API_VERSION), "kind": field(KIND), "metadata": field("Standard list metadata."),
                    "items": field("The values, one an object."),
                },
            }),
        ),
    ]
    .into_iter()
}
