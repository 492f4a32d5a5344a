//! Defaults of everything that is neither a Pod nor holds a Pod template.

use super::*;
use Lit::*;

const TCP: &[(&str, Lit)] = &[("protocol", Str("TCP"))];

/// Service, without what the server allocates (addresses, families, node ports).
pub(crate) fn service(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(spec, &[("sessionAffinity", Str("None")), ("type", Str("ClusterIP"))]);
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            if let Some(config) = child_or_new(spec, "sessionAffinityConfig")
                && let Some(client) = child_or_new(config, "clientIP")
            {
                fill(client, &[("timeoutSeconds", Int(10800))]);
            }
        }
        _ => {}
    }
    each(spec, "ports", |port| {
        fill(port, TCP);
        let unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(Value::Number(n)) => n.as_i64() == Some(0),
            Some(Value::String(s)) => s.is_empty(),
            _ => false,
        };
        if unset && let Some(number) = port.get("port").cloned() {
            port.insert("targetPort".into(), number);
        }
    });
    let kind = text(spec, "type").to_owned();
    let external =
        matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !is_empty(spec, "externalIPs"));
    if external {
        fill(spec, &[("externalTrafficPolicy", Str("Cluster"))]);
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        fill(spec, &[("internalTrafficPolicy", Str("Cluster"))]);
    }
    if kind == "LoadBalancer" {
        fill(spec, &[("allocateLoadBalancerNodePorts", Bool(true))]);
        if let Some(balancer) =
            object.as_object_mut().and_then(|o| child(o, "status")).and_then(|s| child(s, "loadBalancer"))
        {
            each(balancer, "ingress", |ingress| {
                if !text(ingress, "ip").is_empty() {
                    fill(ingress, &[("ipMode", Str("VIP"))]);
                }
            });
        }
    }
}

/// APIService: the port of the service that serves it.
pub(crate) fn api_service(object: &mut Value) {
    if let Some(service) = spec(object).and_then(|spec| child(spec, "service")) {
        fill(service, &[("port", Int(443))]);
    }
}

/// Namespace: its name as a label, so that selectors can name it.
pub(crate) fn namespace(object: &mut Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    if let Some(metadata) = child_or_new(object, "metadata") {
        let name = text(metadata, "name").to_owned();
        if !name.is_empty()
            && let Some(labels) = child_or_new(metadata, "labels")
        {
            labels.insert("kubernetes.io/metadata.name".into(), Value::String(name));
        }
    }
    if let Some(status) = child_or_new(object, "status") {
        fill(status, &[("phase", Str("Active"))]);
    }
}

/// Node: what it can give is what it has, unless it says otherwise.
pub(crate) fn node(object: &mut Value) {
    if let Some(spec) = object.as_object_mut().and_then(|o| child(o, "spec")) {
        pod_cidrs(spec);
    }
    let Some(status) = object.as_object_mut().and_then(|o| child(o, "status")) else {
        return;
    };
    resource_list(status, "capacity");
    resource_list(status, "allocatable");
    if is_empty(status, "allocatable")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        status.insert("allocatable".into(), capacity);
    }
}

/// `podCIDR`, the old name of the first of `podCIDRs`, rules where they differ.
fn pod_cidrs(spec: &mut Object) {
    let first = text(spec, "podCIDR").to_owned();
    let listed = spec.get("podCIDRs").and_then(|list| list.get(0)).and_then(Value::as_str).unwrap_or_default();
    if first.is_empty() && !listed.is_empty() {
        let listed = listed.to_owned();
        spec.insert("podCIDR".into(), listed.into());
    } else if first != listed {
        spec.insert("podCIDRs".into(), vec![first].into());
    }
}

/// Secret: the type, and `stringData` folded into `data`.
pub(crate) fn secret(object: &mut Value) {
    use base64::Engine;
    let Some(object) = object.as_object_mut() else {
        return;
    };
    fill(object, &[("type", Str("Opaque"))]);
    // A value that is no text stays where it is, for the schema to complain about.
    let plain =
        matches!(object.get("stringData"), Some(Value::Object(fields)) if fields.values().all(Value::is_string));
    if plain
        && let Some(Value::Object(fields)) = object.remove("stringData")
        && !fields.is_empty()
        && let Some(data) = child_or_new(object, "data")
    {
        for (key, value) in fields {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, Value::String(encoded));
        }
    }
}

/// Endpoints.
pub(crate) fn endpoints(object: &mut Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    each(object, "subsets", |subset| each(subset, "ports", |port| fill(port, TCP)));
}

/// EndpointSlice.
pub(crate) fn endpoint_slice(object: &mut Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    each(object, "ports", |port| fill(port, &[("name", Text("")), ("protocol", Str("TCP"))]));
}

/// PersistentVolume.
pub(crate) fn persistent_volume(object: &mut Value) {
    if let Some(spec) = spec(object) {
        fill(spec, &[("persistentVolumeReclaimPolicy", Str("Retain")), ("volumeMode", Str("Filesystem"))]);
        volume_source(spec);
        resource_list(spec, "capacity");
    }
    phase(object, "Pending");
}

/// PersistentVolumeClaim.
pub(crate) fn persistent_volume_claim(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        claim_object(object);
    }
}

pub(crate) fn claim_object(claim: &mut Object) {
    if let Some(spec) = child_or_new(claim, "spec") {
        claim_spec(spec);
    }
    if let Some(status) = child_or_new(claim, "status") {
        fill(status, &[("phase", Str("Pending"))]);
        resource_list(status, "capacity");
    }
}

pub(crate) fn claim_spec(spec: &mut Object) {
    fill(spec, &[("volumeMode", Str("Filesystem"))]);
    if let Some(resources) = child(spec, "resources") {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
}

fn phase(object: &mut Value, phase: &'static str) {
    if let Some(status) = object.as_object_mut().and_then(|o| child_or_new(o, "status")) {
        fill(status, &[("phase", Str(phase))]);
    }
}

/// LimitRange: a limit is the maximum, a request the limit, unless they are given.
pub(crate) fn limit_range(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    each(spec, "limits", |item| {
        if text(item, "type") == "Container" {
            inherit(item, "max", "default");
            inherit(item, "default", "defaultRequest");
            inherit(item, "min", "defaultRequest");
        }
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            resource_list(item, list);
        }
    });
}

/// ResourceQuota.
pub(crate) fn resource_quota(object: &mut Value) {
    if let Some(spec) = spec(object) {
        resource_list(spec, "hard");
    }
    if let Some(status) = object.as_object_mut().and_then(|o| child(o, "status")) {
        resource_list(status, "hard");
        resource_list(status, "used");
    }
}

/// HorizontalPodAutoscaler, in the form of autoscaling/v2 or v1.
pub(crate) fn horizontal_pod_autoscaler(object: &mut Value) {
    let v1 = object["apiVersion"] == "autoscaling/v1";
    let Some(spec) = spec(object) else { return };
    fill(spec, &[("minReplicas", Int(1))]);
    if v1 {
        return;
    }
    if is_empty(spec, "metrics") {
        let cpu = serde_json::json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }]);
        spec.insert("metrics".into(), cpu);
    }
    if let Some(behavior) = child(spec, "behavior") {
        let percent = || serde_json::json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        if let Some(up) = child_or_new(behavior, "scaleUp") {
            fill(up, &[("stabilizationWindowSeconds", Int(0)), ("selectPolicy", Text("Max"))]);
            let pods = serde_json::json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            scaling_policies(up, || vec![pods, percent()]);
        }
        if let Some(down) = child_or_new(behavior, "scaleDown") {
            fill(down, &[("selectPolicy", Text("Max"))]);
            scaling_policies(down, || vec![percent()]);
        }
    }
}

fn scaling_policies(rules: &mut Object, policies: impl FnOnce() -> Vec<Value>) {
    if rules.get("policies").is_none_or(Value::is_null) {
        rules.insert("policies".into(), Value::Array(policies()));
    }
}

/// Ingress class.
pub(crate) fn ingress_class(object: &mut Value) {
    if let Some(parameters) = spec(object).and_then(|s| child(s, "parameters")) {
        fill(parameters, &[("scope", Str("Cluster"))]);
    }
}

/// NetworkPolicy: it is about ingress, and about egress if it has rules for it.
pub(crate) fn network_policy(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    for rules in ["ingress", "egress"] {
        each(spec, rules, |rule| each(rule, "ports", |port| fill(port, TCP)));
    }
    if is_empty(spec, "policyTypes") {
        let types = if is_empty(spec, "egress") { vec!["Ingress"] } else { vec!["Ingress", "Egress"] };
        spec.insert("policyTypes".into(), types.into());
    }
    fill(spec, &[("podSelector", Struct)]);
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// RoleBinding and ClusterRoleBinding.
pub(crate) fn role_binding(object: &mut Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    if let Some(role) = child(object, "roleRef") {
        fill(role, &[("apiGroup", Str(RBAC))]);
    }
    each(object, "subjects", |subject| {
        if matches!(text(subject, "kind"), "User" | "Group") {
            fill(subject, &[("apiGroup", Str(RBAC))]);
        }
    });
}

/// PriorityClass.
pub(crate) fn priority_class(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        fill(object, &[("preemptionPolicy", Text("PreemptLowerPriority"))]);
    }
}

/// StorageClass.
pub(crate) fn storage_class(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        fill(object, &[("reclaimPolicy", Str("Delete")), ("volumeBindingMode", Str("Immediate"))]);
    }
}

/// CSIDriver.
pub(crate) fn csi_driver(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(
        spec,
        &[
            ("attachRequired", Bool(true)),
            ("podInfoOnMount", Bool(false)),
            ("storageCapacity", Bool(false)),
            ("fsGroupPolicy", Text("ReadWriteOnceWithFSType")),
            ("requiresRepublish", Bool(false)),
            ("seLinuxMount", Bool(false)),
        ],
    );
    if is_empty(spec, "volumeLifecycleModes") {
        spec.insert("volumeLifecycleModes".into(), vec!["Persistent"].into());
    }
}

/// A kind without defaults.
pub(crate) fn nothing(_: &mut Value) {}

/// FlowSchema.
pub(crate) fn flow_schema(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(spec, &[("matchingPrecedence", Positive(1000))]);
}

/// PriorityLevelConfiguration.
pub(crate) fn priority_level(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    if let Some(exempt) = child(spec, "exempt") {
        fill(exempt, &[("nominalConcurrencyShares", Int(0)), ("lendablePercent", Int(0))]);
    }
    let Some(limited) = child(spec, "limited") else { return };
    fill(limited, &[("nominalConcurrencyShares", Int(30)), ("lendablePercent", Int(0))]);
    if let Some(response) = child(limited, "limitResponse")
        && let Some(queuing) = child(response, "queuing")
    {
        fill(queuing, &[("handSize", Positive(8)), ("queues", Positive(64)), ("queueLengthLimit", Positive(50))]);
    }
}
