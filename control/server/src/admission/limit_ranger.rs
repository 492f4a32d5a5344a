//! What a namespace's LimitRanges say: defaults for containers that ask for nothing, and bounds for containers, Pods and claims.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use wherry_api::meta;
use wherry_api::quantity::Quantity;
use wherry_api::status::Status;

use super::amounts::{self, Amounts, Side};
use super::{Attributes, Operation, Plugin};
use crate::objects;

/// Says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if !attributes.creates("", "pods") {
            return Ok(());
        }
        for range in ranges(attributes)? {
            fill(&range, object);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        for range in ranges(attributes)? {
            let mut wrong = Vec::new();
            for limit in list(&range["spec"], "limits") {
                if attributes.resource.plural == "pods" {
                    pod(limit, object, &mut wrong);
                } else {
                    claim(limit, object, &mut wrong);
                }
            }
            if !wrong.is_empty() {
                return Err(attributes.forbidden(aggregate(&wrong)));
            }
        }
        Ok(())
    }
}

/// Pods when they are made or resized, claims whenever they are written; nothing that is on its way out.
fn concerns(attributes: &Attributes<'_>) -> bool {
    let resize = attributes.resource.group.is_empty()
        && attributes.resource.plural == "pods"
        && attributes.subresource == "resize"
        && attributes.operation == Operation::Update;
    let claim = attributes.is("", "persistentvolumeclaims") && attributes.operation != Operation::Delete;
    let leaving = attributes.old.is_some_and(|old| meta::deletion_timestamp(old).is_some());
    (attributes.creates("", "pods") || resize || claim) && !leaving
}

fn ranges(attributes: &Attributes<'_>) -> Result<Vec<Value>, Status> {
    let entries = attributes.engine.of_namespace("limitranges", attributes.namespace)?;
    entries.iter().map(|entry| objects::stored_tree(entry)).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Upstream's way of joining several errors into one text: each once.
fn aggregate(wrong: &[String]) -> String {
    let mut seen = BTreeSet::new();
    let once: Vec<&str> = wrong.iter().map(String::as_str).filter(|text| seen.insert(*text)).collect();
    if once.len() == 1 { once[0].to_owned() } else { format!("[{}]", once.join(", ")) }
}

/// Gives containers what they do not ask for.
fn fill(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for limit in list(&range["spec"], "limits").iter().filter(|l| l["type"] == "Container") {
        requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
        limits.extend(limit["default"].as_object().cloned().unwrap_or_default());
    }
    let mut filled = Vec::new();
    let spec = meta::map_mut(pod, "spec");
    for (key, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            for (side, defaults, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let added = fill_one(container, side, defaults);
                if !added.is_empty() {
                    let name = container["name"].as_str().unwrap_or_default();
                    filled.push(format!("{} {word} for {what} {name}", added.join(", ")));
                }
            }
        }
    }
    if !filled.is_empty() {
        let annotations = meta::metadata_mut(pod).entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", filled.join("; ")).into();
    }
}

/// The names of what was added, in order.
fn fill_one(container: &mut Value, side: &str, defaults: &Map<String, Value>) -> Vec<String> {
    if defaults.is_empty() || !container.is_object() {
        return Vec::new();
    }
    let amounts = &mut container["resources"][side];
    let mut added: Vec<String> = defaults.keys().filter(|name| amounts.get(name.as_str()).is_none()).cloned().collect();
    for name in &added {
        amounts[name] = defaults[name].clone();
    }
    added.sort();
    added
}

fn pod(limit: &Value, pod: &Value, wrong: &mut Vec<String>) {
    let kind = limit["type"].as_str().unwrap_or_default();
    match kind {
        "Container" => {
            for key in ["containers", "initContainers"] {
                for container in list(&pod["spec"], key) {
                    let resources = &container["resources"];
                    let (requests, limits) = (amounts::of(&resources["requests"]), amounts::of(&resources["limits"]));
                    bounds(kind, limit, &requests, &limits, wrong);
                }
            }
        }
        "Pod" => {
            let requests = amounts::of_containers(pod, Side::Requests);
            bounds(kind, limit, &requests, &amounts::of_containers(pod, Side::Limits), wrong);
        }
        _ => {}
    }
}

fn bounds(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    for (check, key) in
        [((|of| of.min()) as Check, "min"), (|of| of.max(), "max"), (|of| of.ratio(), "maxLimitRequestRatio")]
    {
        for (name, bound) in amounts::of(&limit[key]) {
            let bound = Bound { kind, name: &name, bound, request: requests.get(&name), limit: limits.get(&name) };
            wrong.extend(check(&bound));
        }
    }
}

fn claim(limit: &Value, claim: &Value, wrong: &mut Vec<String>) {
    const KIND: &str = "PersistentVolumeClaim";
    if limit["type"] != KIND {
        return;
    }
    let requests = amounts::of(&claim["spec"]["resources"]["requests"]);
    for (name, bound) in amounts::of(&limit["min"]) {
        let bound = Bound { kind: KIND, name: &name, bound, request: requests.get(&name), limit: None };
        wrong.extend(bound.min());
    }
    for (name, bound) in amounts::of(&limit["max"]) {
        wrong.extend(match requests.get(&name) {
            None => Some(format!("maximum {name} usage per {KIND} is {bound}.  No request is specified")),
            Some(asked) if *asked > bound => {
                Some(format!("maximum {name} usage per {KIND} is {bound}, but request is {asked}"))
            }
            Some(_) => None,
        });
    }
}

/// A bound on a resource of a kind, and what is asked for.
struct Bound<'a> {
    kind: &'a str,
    name: &'a str,
    bound: Quantity,
    request: Option<&'a Quantity>,
    limit: Option<&'a Quantity>,
}

/// What is wrong with what is asked for.
type Check = fn(&Bound<'_>) -> Option<String>;

impl Bound<'_> {
    fn min(&self) -> Option<String> {
        let Self { kind, name, bound, .. } = self;
        let base = format!("minimum {name} usage per {kind} is {bound}");
        match (self.request, self.limit) {
            (None, _) => Some(format!("{base}.  No request is specified")),
            (Some(asked), _) if asked < bound => Some(format!("{base}, but request is {asked}")),
            (_, Some(limit)) if limit < bound => Some(format!("{base}, but limit is {limit}")),
            _ => None,
        }
    }

    fn max(&self) -> Option<String> {
        let Self { kind, name, bound, .. } = self;
        let base = format!("maximum {name} usage per {kind} is {bound}");
        match (self.request, self.limit) {
            (_, None) => Some(format!("{base}.  No limit is specified")),
            (_, Some(limit)) if limit > bound => Some(format!("{base}, but limit is {limit}")),
            (Some(asked), _) if asked > bound => Some(format!("{base}, but request is {asked}")),
            _ => None,
        }
    }

    fn ratio(&self) -> Option<String> {
        let Self { kind, name, bound, .. } = self;
        let base = format!("{name} max limit to request ratio per {kind} is {bound}, but");
        let Some(request) = self.request.filter(|q| !q.is_zero()) else {
            return Some(format!("{base} no request is specified or request is 0"));
        };
        let Some(limit) = self.limit.filter(|q| !q.is_zero()) else {
            return Some(format!("{base} no limit is specified or limit is 0"));
        };
        let observed = limit.as_f64() / request.as_f64();
        (observed > bound.as_f64()).then(|| format!("{base} provided ratio is {observed:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: Value, limits: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
    }

    #[test]
    fn bounds_speak_as_upstream() {
        let limit = |kind: &str, key: &str, bound: &str| json!({"type": kind, key: {"cpu": bound}});
        let both = |r: &str, l: &str| container(json!({"cpu": r}), json!({"cpu": l}));
        for (limit, object, expected) in [
            (limit("Container", "min", "100m"), both("100m", "1"), ""),
            (
                limit("Container", "min", "100m"),
                both("50m", "1"),
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (
                limit("Container", "min", "100m"),
                container(json!({}), json!({})),
                "minimum cpu usage per Container is 100m.  No request is specified",
            ),
            (limit("Container", "max", "1"), both("1", "2"), "maximum cpu usage per Container is 1, but limit is 2"),
            (
                limit("Pod", "max", "1"),
                container(json!({"cpu": "1"}), json!({})),
                "maximum cpu usage per Pod is 1.  No limit is specified",
            ),
            (limit("Pod", "maxLimitRequestRatio", "2"), both("1", "2"), ""),
            (
                limit("Pod", "maxLimitRequestRatio", "2"),
                both("1", "3"),
                "cpu max limit to request ratio per Pod is 2, but provided ratio is 3.000000",
            ),
        ] {
            let mut wrong = Vec::new();
            pod(&limit, &object, &mut wrong);
            assert_eq!(wrong.join("|"), expected, "{limit} {object}");
        }
    }

    #[test]
    fn several_errors_are_one_text() {
        let texts = |t: &[&str]| aggregate(&t.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(texts(&["a"]), "a");
        assert_eq!(texts(&["a", "b", "a"]), "[a, b]");
    }

    #[test]
    fn what_is_not_asked_for_is_filled_in_and_noted() {
        let range = json!({"spec": {"limits": [
            {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}},
        ]}});
        let mut pod = container(json!({}), json!({"cpu": "2"}));
        fill(&range, &mut pod);
        let resources = &pod["spec"]["containers"][0]["resources"];
        assert_eq!(*resources, json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "2", "memory": "1Gi"}}));
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
    }
}
