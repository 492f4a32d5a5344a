//! What an object uses, by its resource: one row for each that is measured otherwise than by counting objects.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use wherry_api::meta;
use wherry_api::quantity::{Format, Quantity};

use super::scopes;
use crate::admission::Operation;
use crate::admission::amounts::{self, Amounts, Side};

/// How the objects of one resource are measured. Every object also counts as one of `count/RESOURCE.GROUP`.
pub(crate) struct Measure {
    /// The storage group-resource, such as `deployments.apps`; empty in the row for all others.
    pub(super) resource: &'static str,
    /// What the object uses beside its count.
    usage: fn(&Value, Timestamp) -> Amounts,
    /// Whether a name in a quota is one of this resource's, its count aside.
    names: fn(&str) -> bool,
    /// Whether the object is what a scope is about.
    pub(super) scope: fn(&Value, &Value) -> bool,
    /// Which of the names in a quota an object does not say enough about; in upstream's words.
    pub(super) lacks: fn(&BTreeSet<&str>, &Value) -> Option<String>,
    /// Whether a write is charged: operation, subresource, the object before and as it shall be.
    charged: fn(Operation, &str, Option<&Value>, &Value) -> bool,
}

const PODS: Measure = Measure {
    resource: "pods",
    usage: pod,
    names: is_pod_name,
    scope: scopes::pod,
    lacks: pod_lacks,
    charged: |operation, subresource, old, new| match (operation, subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") => old.is_some_and(|old| scopes::is_terminating(old) != scopes::is_terminating(new)),
        (Operation::Update, "resize") => true,
        _ => false,
    },
};
const SERVICES: Measure = Measure {
    resource: "services",
    usage: service,
    names: |name| matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
    charged: when_written,
    ..OTHERS
};
const CLAIMS: Measure = Measure {
    resource: "persistentvolumeclaims",
    usage: claim,
    names: |name| {
        let name = name.split_once(BY_CLASS).map_or(name, |(_, name)| name);
        matches!(name, "persistentvolumeclaims" | "requests.storage")
    },
    scope: scopes::claim,
    charged: when_written,
    ..OTHERS
};
const OTHERS: Measure = Measure {
    resource: "",
    usage: |_, _| Amounts::new(),
    names: |_| false,
    scope: scopes::none,
    lacks: |_, _| None,
    charged: |operation, subresource, _, _| operation == Operation::Create && subresource.is_empty(),
};
/// Resources that are counted under their bare name too, for compatibility.
const ALIASED: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// Resources that are never counted.
const IGNORED: [&str; 3] = ["bindings", "componentstatuses", "events"];
/// Between the name of a storage class and what is counted of it.
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

static TABLE: [&Measure; 4] = [&PODS, &SERVICES, &CLAIMS, &OTHERS];

fn when_written(operation: Operation, subresource: &str, _: Option<&Value>, _: &Value) -> bool {
    matches!(operation, Operation::Create | Operation::Update) && subresource.is_empty()
}

impl Measure {
    /// How objects of a resource are measured; none if they are not.
    pub(crate) fn of(resource: &str) -> Option<&'static Self> {
        let found = TABLE.iter().find(|measure| measure.resource == resource || measure.resource.is_empty());
        found.copied().filter(|_| !IGNORED.contains(&resource))
    }

    /// Whether a write is charged, given the object before and as it shall be.
    pub(crate) fn charges(&self, operation: Operation, subresource: &str, old: Option<&Value>, new: &Value) -> bool {
        (self.charged)(operation, subresource, old, new)
    }

    /// All that an object of `resource` uses.
    pub(super) fn usage(&self, resource: &str, object: &Value, now: Timestamp) -> Amounts {
        let mut usage = (self.usage)(object, now);
        usage.insert(format!("count/{resource}"), one());
        if ALIASED.contains(&resource) {
            usage.insert(resource.to_owned(), one());
        }
        usage
    }
}

/// The resource whose objects use up what `name` in a quota limits; none for a name that nobody knows.
pub(super) fn owner(name: &str) -> Option<&str> {
    if let Some(resource) = name.strip_prefix("count/") {
        return Some(resource);
    }
    if let Some(alias) = ALIASED.iter().find(|alias| **alias == name) {
        return Some(alias);
    }
    TABLE.iter().find(|measure| (measure.names)(name)).map(|measure| measure.resource)
}

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

fn is_pod_name(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let basic = matches!(bare, "cpu" | "memory") || bare == "ephemeral-storage" || name == "pods";
    let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    // Extended resources cannot be overcommitted: their request is what counts.
    let extended = name.starts_with("requests.") && bare.contains('/') && !bare.contains("kubernetes.io/");
    basic || huge || extended
}

/// The names under which requests and limits count.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = BTreeMap::from([("pods".to_owned(), one())]);
    for (name, quantity) in requests {
        let basic = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if basic || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *quantity);
        }
        if basic || name.starts_with("hugepages-") || name.contains('/') && !name.contains("kubernetes.io/") {
            usage.insert(format!("requests.{name}"), *quantity);
        }
    }
    for (name, quantity) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), *quantity);
        }
    }
    usage
}

fn pod(pod: &Value, now: Timestamp) -> Amounts {
    if !is_live(pod, now) {
        return Amounts::new();
    }
    compute(&amounts::of_pod(pod, Side::Requests), &amounts::of_pod(pod, Side::Limits))
}

/// Whether a Pod still uses anything: it has not ended, and it is not stuck on its way out.
fn is_live(pod: &Value, now: Timestamp) -> bool {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !ended && stuck_at(pod).is_none_or(|at| now <= at)
}

/// When a Pod that is being deleted counts as stuck, and its namespace is not charged for it any more.
pub(super) fn stuck_at(pod: &Value) -> Option<Timestamp> {
    let at: Timestamp = meta::deletion_timestamp(pod)?.parse().ok()?;
    let grace = meta::deletion_grace_period_seconds(pod)?;
    at.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn pod_lacks(names: &BTreeSet<&str>, pod: &Value) -> Option<String> {
    const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let spec = &pod["spec"];
    let says = |side: &str| amounts::of(&spec["resources"][side]).keys().any(|name| !name.contains('/'));
    if says("requests") || says("limits") {
        return None;
    }
    let mut lacking: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"].iter().flat_map(|key| spec[*key].as_array().into_iter().flatten())
    {
        let side = |side: &str| amounts::of(&container["resources"][side]);
        let said = compute(&side("requests"), &side("limits"));
        for name in DEMANDED.into_iter().filter(|name| names.contains(name) && !said.contains_key(*name)) {
            lacking.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    if lacking.is_empty() {
        return None;
    }
    let each = lacking
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")));
    Some(format!("must specify {}", each.collect::<Vec<_>>().join("; ")))
}

fn service(service: &Value, _: Timestamp) -> Amounts {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let explicit = ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|p| p != 0)).count();
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (explicit, 1),
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    let count = |n: usize| Quantity::new(n as i64, Format::DecimalSi);
    BTreeMap::from([
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(balancers)),
    ])
}

fn claim(claim: &Value, _: Timestamp) -> Amounts {
    let class = crate::admission::class_of_claim(claim);
    let size = |map: &Value| Quantity::from_value(&map["storage"]).map(|q| Quantity::new(q.value(), q.format()));
    let asked = size(&claim["spec"]["resources"]["requests"]);
    // What is being given may be more than what is asked for, when a growth was taken back.
    let storage =
        asked.map(|asked| size(&claim["status"]["allocatedResources"]).map_or(asked, |given| given.max(asked)));
    let mut usage = BTreeMap::from([("persistentvolumeclaims".to_owned(), one())]);
    usage.extend(storage.map(|storage| ("requests.storage".to_owned(), storage)));
    if !class.is_empty() {
        let of_class: Vec<_> = usage.iter().map(|(name, q)| (format!("{class}{BY_CLASS}{name}"), *q)).collect();
        usage.extend(of_class);
    }
    usage
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn shown(resource: &str, object: Value) -> String {
        let usage = Measure::of(resource).unwrap().usage(resource, &object, Timestamp::UNIX_EPOCH);
        usage.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn usage_by_resource() {
        for (resource, object, expected) in [
            ("deployments.apps", json!({}), "count/deployments.apps=1"),
            ("secrets", json!({}), "count/secrets=1,secrets=1"),
            (
                "pods",
                json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}}}]}}),
                "count/pods=1,cpu=1,limits.memory=1Gi,pods=1,requests.cpu=1,requests.example.com/gpu=2",
            ),
            ("pods", json!({"status": {"phase": "Failed"}}), "count/pods=1"),
            (
                "services",
                json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}}),
                "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2",
            ),
            (
                "persistentvolumeclaims",
                json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}),
                "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi",
            ),
        ] {
            assert_eq!(shown(resource, object), expected);
        }
        assert!(Measure::of("events").is_none());
    }

    #[test]
    fn every_name_belongs_to_a_resource() {
        for (name, expected) in [
            ("pods", Some("pods")),
            ("limits.cpu", Some("pods")),
            ("requests.example.com/gpu", Some("pods")),
            ("requests.storage", Some("persistentvolumeclaims")),
            ("gold.storageclass.storage.k8s.io/requests.storage", Some("persistentvolumeclaims")),
            ("services.nodeports", Some("services")),
            ("count/jobs.batch", Some("jobs.batch")),
            ("configmaps", Some("configmaps")),
            ("nonsense", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn a_pod_that_is_stuck_on_its_way_out_is_free() {
        let pod = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:10Z", "deletionGracePeriodSeconds": 10}});
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(is_live(&pod, at(20)) && !is_live(&pod, at(21)));
    }
}
