//! `autoscaling/v1` HorizontalPodAutoscalers are stored as `v2`.
//!
//! What `v1` cannot say (metrics other than CPU utilisation, conditions, behaviour) it carries in annotations, as
//! upstream does, so that a `v1` client that reads and writes back loses nothing.

use serde_json::{Map, Value, json};

use crate::meta::{map_mut, metadata_mut};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu_utilization(metric: &Value, side: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"][side]["averageUtilization"].is_number()
}

fn take_annotation(object: &mut Value, name: &str) -> Option<Value> {
    let annotations = metadata_mut(object).get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    if annotations.is_empty() {
        metadata_mut(object).remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(object: &mut Value, name: &str, value: &Value) {
    let annotations = metadata_mut(object).entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(name.to_owned(), value.to_string().into());
    }
}

/// Lists are kept in annotations; anything else that an author put there is dropped.
fn take_list(object: &mut Value, name: &str) -> Vec<Value> {
    match take_annotation(object, name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// From `v1` to `v2`.
pub fn to_v2(hpa: &mut Value) {
    if !hpa.is_object() {
        return;
    }
    let mut metrics = take_list(hpa, METRICS);
    let mut current = take_list(hpa, CURRENT_METRICS);
    let conditions = take_list(hpa, CONDITIONS);
    let behavior = take_annotation(hpa, BEHAVIOR).filter(Value::is_object);

    let spec = map_mut(hpa, "spec");
    if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": target});
        metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if !metrics.is_empty() {
        spec.insert("metrics".into(), metrics.into());
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".into(), behavior);
    }
    let status = map_mut(hpa, "status");
    if let Some(utilization) = status.remove("currentCPUUtilizationPercentage") {
        let is_known = current.iter().any(|metric| is_cpu_utilization(metric, "current"));
        if !is_known {
            let value = json!({"averageUtilization": utilization});
            current.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": value}}));
        }
    }
    if !current.is_empty() {
        status.insert("currentMetrics".into(), current.into());
    }
    if !conditions.is_empty() {
        status.insert("conditions".into(), conditions.into());
    }
    hpa["apiVersion"] = "autoscaling/v2".into();
}

/// From `v2` to `v1`.
pub fn from_v2(hpa: &mut Value) {
    if !hpa.is_object() {
        return;
    }
    let spec = map_mut(hpa, "spec");
    let behavior = spec.remove("behavior");
    let mut metrics = match spec.remove("metrics") {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    if let Some(at) = metrics.iter().position(|metric| is_cpu_utilization(metric, "target")) {
        let metric = metrics.remove(at);
        spec.insert(
            "targetCPUUtilizationPercentage".into(),
            metric["resource"]["target"]["averageUtilization"].clone(),
        );
    }
    let status = map_mut(hpa, "status");
    let current = status.remove("currentMetrics");
    let conditions = status.remove("conditions");
    if let Some(cpu) =
        current.as_ref().and_then(Value::as_array).and_then(|c| c.iter().find(|m| is_cpu_utilization(m, "current")))
    {
        status
            .insert("currentCPUUtilizationPercentage".into(), cpu["resource"]["current"]["averageUtilization"].clone());
    }
    let metrics = (!metrics.is_empty()).then_some(Value::Array(metrics));
    for (name, value) in
        [(METRICS, metrics), (CURRENT_METRICS, current), (CONDITIONS, conditions), (BEHAVIOR, behavior)]
    {
        if let Some(value) = value {
            put_annotation(hpa, name, &value);
        }
    }
    hpa["apiVersion"] = "autoscaling/v1".into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_survives_v1() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "metrics": [cpu, pods], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}}},
            "status": {"conditions": [{"type": "AbleToScale"}], "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5, "averageValue": "1m"}}}]},
        });
        let mut hpa = v2.clone();
        from_v2(&mut hpa);
        assert_eq!(hpa["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(hpa["status"]["currentCPUUtilizationPercentage"], 5);
        assert!(hpa["spec"].get("metrics").is_none());
        to_v2(&mut hpa);
        assert_eq!(hpa, v2);
    }

    #[test]
    fn v1_survives_v2() {
        let v1 = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "annotations": {"x": "y"}},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}, "status": {},
        });
        let mut hpa = v1.clone();
        to_v2(&mut hpa);
        assert_eq!(hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        from_v2(&mut hpa);
        assert_eq!(hpa, v1);
    }
}
