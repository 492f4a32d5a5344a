//! Services, data, nodes.

use super::check;
use serde_json::json;

#[test]
fn services() {
    check(&[
        ("Service", "/spec/ports", json!([]), "spec.ports: Required value"),
        (
            "Service",
            "/spec/ports/0/port",
            json!(0),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        ("Service", "/spec/ports/1", json!({"port": 81}), "spec.ports[1].name: Required value"),
        (
            "Service",
            "/spec/ports/1",
            json!({"name": "http", "port": 81}),
            "spec.ports[1].name: Duplicate value: \"http\"",
        ),
        ("Service", "/spec/ports/1", json!({"name": "other", "port": 80}), "spec.ports[1]: Duplicate value: {"),
        ("Service", "/spec/ports/0/protocol", json!("x"), "spec.ports[0].protocol: Unsupported value: \"x\""),
        ("Service", "/spec/ports/0/targetPort", json!("UPPER"), "spec.ports[0].targetPort: Invalid value: \"UPPER\""),
        (
            "Service",
            "/spec/ports/0/nodePort",
            json!(30000),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            "Service",
            "/spec/type",
            json!("Magic"),
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        ("Service", "/spec/type", json!("ExternalName"), "spec.externalName: Required value"),
        ("Service", "/spec/selector", json!({"a": "b c"}), "spec.selector: Invalid value: \"b c\""),
        (
            "Service",
            "/spec/sessionAffinity",
            json!("x"),
            "spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            "Service",
            "/spec/clusterIPs/0",
            json!("10.96.0.10"),
            "spec.clusterIPs: Invalid value: [\"10.96.0.10\",\"10.96.0.9\"]: first value must match `clusterIP`",
        ),
        (
            "Service",
            "/spec/externalIPs",
            json!(["127.0.0.1"]),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
        ),
        (
            "Service",
            "/spec/externalTrafficPolicy",
            json!("Local"),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        ("Service", "/spec/internalTrafficPolicy", json!("x"), "spec.internalTrafficPolicy: Unsupported value: \"x\""),
    ]);
}

#[test]
fn data_and_nodes() {
    check(&[
        (
            "ConfigMap",
            "/data",
            json!({"a b": ""}),
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of",
        ),
        (
            "ConfigMap",
            "/binaryData",
            json!({"a": ""}),
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
        ),
        (
            "ConfigMap",
            "/data",
            json!({"a": "x".repeat((1 << 20) + 1)}),
            ": Too long: may not be more than 1048576 bytes",
        ),
        ("Secret", "/data", json!({"..": ""}), "data[..]: Invalid value: \"..\": must not be '..'"),
        ("Secret", "/data", json!({"a": "x".repeat(1_500_000)}), "data: Too long: may not be more than 1048576 bytes"),
        ("Secret", "/type", json!("kubernetes.io/tls"), "data[tls.crt]: Required value"),
        ("Secret", "/type", json!("kubernetes.io/basic-auth"), "data[username]: Required value"),
        ("Secret", "/type", json!("kubernetes.io/ssh-auth"), "data[ssh-privatekey]: Required value"),
        ("Secret", "/type", json!("kubernetes.io/dockerconfigjson"), "data[.dockerconfigjson]: Required value"),
        (
            "Secret",
            "/type",
            json!("kubernetes.io/service-account-token"),
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
        ),
        (
            "Namespace",
            "/spec",
            json!({"finalizers": ["mine"]}),
            "spec.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
        ),
        ("Node", "/spec", json!({"taints": [{"key": "a"}]}), "metadata.taints[0].effect: Required value"),
        (
            "Node",
            "/spec",
            json!({"podCIDRs": ["x"]}),
            "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value",
        ),
        (
            "Node",
            "/status/capacity/cpu",
            json!("-1"),
            "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
    ]);
}
