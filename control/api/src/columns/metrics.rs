//! What nodes and Pods use, as metrics-server prints it.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, NAME, name};
use crate::quantity::Quantity;
use crate::validation::items;

const fn quantity(name: &'static str) -> Column {
    Column { name, kind: "string", format: "quantity", description: "", priority: 0 }
}

pub(crate) const METRICS: &[Column] = &[
    NAME,
    quantity("cpu"),
    quantity("memory"),
    Column { name: "Window", kind: "string", format: "duration", description: "", priority: 0 },
];

pub(crate) fn node_metrics(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), object["usage"]["cpu"].clone(), object["usage"]["memory"].clone(), object["window"].clone()]
}

/// The sum of the containers.
pub(crate) fn pod_metrics(object: &Value, _: Timestamp) -> Vec<Value> {
    let sum = |resource: &str, unit: f64, suffix: &str| {
        let used = items(object, "containers").iter().filter_map(|one| Quantity::from_value(&one["usage"][resource]));
        let sum = (used.map(|quantity| quantity.as_f64()).sum::<f64>() / unit).ceil();
        if sum == 0.0 { Value::from("0") } else { Value::from(format!("{sum}{suffix}")) }
    };
    vec![name(object), sum("cpu", 1e-9, "n"), sum("memory", 1024.0, "Ki"), object["window"].clone()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_the_sum_of_its_containers() {
        let usage = |cpu: &str, memory: &str| json!({ "name": "c", "usage": { "cpu": cpu, "memory": memory } });
        let pod = json!({
            "metadata": { "name": "p" }, "window": "10s",
            "containers": [usage("1500n", "3Ki"), usage("2m", "1Mi"), usage("0", "0")],
        });
        assert_eq!(pod_metrics(&pod, Timestamp::UNIX_EPOCH), ["p", "2001500n", "1027Ki", "10s"]);
        let idle = json!({ "metadata": { "name": "p" }, "window": "10s", "containers": [usage("0", "0")] });
        assert_eq!(pod_metrics(&idle, Timestamp::UNIX_EPOCH), ["p", "0", "0", "10s"]);
    }
}
