//! Pods and what makes them.

use super::check;
use serde_json::{Value, json};

#[test]
fn pods() {
    check(&[
        (
            "Pod",
            "/spec/restartPolicy",
            json!("Sometimes"),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "Pod",
            "/spec/dnsPolicy",
            json!("x"),
            "spec.dnsPolicy: Unsupported value: \"x\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
        ),
        (
            "Pod",
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        ("Pod", "/spec/nodeSelector", json!({"a b": "c"}), "spec.nodeSelector: Invalid value: \"a b\""),
        (
            "Pod",
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        ("Pod", "/spec/hostname", json!("A"), "spec.hostname: Invalid value: \"A\""),
        ("Pod", "/spec/serviceAccountName", json!("A"), "spec.serviceAccountName: Invalid value: \"A\""),
        (
            "Pod",
            "/spec/ephemeralContainers",
            json!([{"name": "e", "image": "i"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            "Pod",
            "/spec/tolerations",
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
        ),
        (
            "Pod",
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Exists", "effect": "Now"}]),
            "spec.tolerations[0].effect: Unsupported value: \"Now\"",
        ),
        (
            "Pod",
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            "Pod",
            "/spec/affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            "Pod",
            "/spec/affinity",
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}),
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
        ),
        ("Pod", "/spec/volumes/0/name", json!(""), "spec.volumes[0].name: Required value"),
        (
            "Pod",
            "/spec/volumes/1",
            json!({"name": "v", "emptyDir": {}}),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (
            "Pod",
            "/spec/volumes/0/secret",
            json!({"secretName": "a"}),
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "Pod",
            "/spec/volumes/0",
            json!({"name": "v", "secret": {}}),
            "spec.volumes[0].secret.secretName: Required value",
        ),
        (
            "Pod",
            "/spec/volumes/0",
            json!({"name": "v", "configMap": {"name": "a", "items": [{"key": "k", "path": "../x"}]}}),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            "Pod",
            "/spec/volumes/0",
            json!({"name": "v", "configMap": {"name": "a", "defaultMode": 4096}}),
            "spec.volumes[0].configMap.defaultMode: Invalid value: 4096: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            "Pod",
            "/spec/volumes/0",
            json!({"name": "v", "hostPath": {}}),
            "spec.volumes[0].hostPath.path: Required value",
        ),
        (
            "Pod",
            "/spec/volumes/0",
            json!({"name": "v", "hostPath": {"path": "/x", "type": "Dir"}}),
            "spec.volumes[0].hostPath.type: Unsupported value: \"Dir\"",
        ),
        (
            "Pod",
            "/spec/volumes/0",
            json!({"name": "v", "persistentVolumeClaim": {}}),
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value",
        ),
        (
            "Pod",
            "/spec/volumes/0",
            json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}}),
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
        ),
    ]);
}

#[test]
fn workloads() {
    check(&[
        (
            "Deployment",
            "/spec/replicas",
            json!(-1),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        ("Deployment", "/spec/selector", Value::Null, "spec.selector: Required value"),
        (
            "Deployment",
            "/spec/selector",
            json!({}),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            "Deployment",
            "/spec/selector/matchLabels/app",
            json!("b"),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
        ),
        (
            "Deployment",
            "/spec/selector/matchExpressions",
            json!([{"key": "a", "operator": "Near"}]),
            "spec.selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
        ),
        (
            "Deployment",
            "/spec/template/spec/containers/0/image",
            json!(""),
            "spec.template.spec.containers[0].image: Required value",
        ),
        (
            "Deployment",
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "Deployment",
            "/spec/template/metadata/labels/b",
            json!("b c"),
            "spec.template.labels: Invalid value: \"b c\"",
        ),
        (
            "Deployment",
            "/spec/strategy",
            json!({"type": "Slow"}),
            "spec.strategy: Unsupported value: {\"type\":\"Slow\"}: supported values: \"Recreate\", \"RollingUpdate\"",
        ),
        (
            "Deployment",
            "/spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "Deployment",
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            "Deployment",
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": "x"}}),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%'",
        ),
        (
            "Deployment",
            "/spec/strategy",
            json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ),
        (
            "Deployment",
            "/spec/progressDeadlineSeconds",
            json!(0),
            "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
        ),
        ("ReplicaSet", "/spec/selector", Value::Null, "spec.selector: Required value"),
        ("ReplicaSet", "/spec/template", json!({}), "spec.template.spec.containers: Required value"),
        (
            "Job",
            "/spec/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
    ]);
}
