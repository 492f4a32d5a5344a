//! One table: a change to a good manifest, and the error that it brings.

use crate::strategy::{Sub, strategy};
use serde_json::{Value, json};

/// A good object of each kind.
fn good(kind: &str) -> Value {
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    match kind {
        "Pod" => json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [{"name": "init", "image": "i:1"}],
            "containers": [{"name": "c", "image": "i:1", "ports": [{"name": "http", "containerPort": 80}],
                "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "livenessProbe": {"httpGet": {"port": "http"}},
                "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}]}}),
        "Deployment" | "ReplicaSet" => {
            json!({"metadata": {"name": "x", "namespace": "d"}, "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template}})
        }
        "Job" => {
            json!({"metadata": {"name": "x", "namespace": "d"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}})
        }
        "Service" => {
            json!({"metadata": {"name": "s", "namespace": "d"}, "spec": {"ports": [{"name": "http", "port": 80}], "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}})
        }
        "Secret" => json!({"metadata": {"name": "s", "namespace": "d"}, "data": {"a": "Yg=="}}),
        "ConfigMap" => json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a": "b"}}),
        "Namespace" => json!({"metadata": {"name": "n"}}),
        "Node" => json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}}),
        other => panic!("{other}"),
    }
}

fn group(kind: &str) -> &'static str {
    match kind {
        "Deployment" | "ReplicaSet" => "apps",
        "Job" => "batch",
        _ => "",
    }
}

/// Sets the value at a pointer, making objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let mut at = object;
    for step in parent.split('/').skip(1) {
        at = match at {
            Value::Array(items) => &mut items[step.parse::<usize>().expect("an index")],
            other => {
                if other.is_null() {
                    *other = json!({});
                }
                &mut other[step]
            }
        };
    }
    match at {
        Value::Array(items) => items.insert(key.parse().expect("an index"), value),
        other => other[key.replace("~1", "/")] = value,
    }
}

fn errors(kind: &str, mut object: Value) -> Vec<String> {
    let strategy = strategy(group(kind), kind);
    strategy.default(&mut object);
    strategy.prepare_create(&mut object);
    strategy
        .validate(&object)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn good_objects_are_good() {
    for kind in [
        "Pod",
        "Deployment",
        "ReplicaSet",
        "Job",
        "Service",
        "Secret",
        "ConfigMap",
        "Namespace",
        "Node",
    ] {
        assert_eq!(errors(kind, good(kind)), Vec::<String>::new(), "{kind}");
    }
}

/// Each row: kind, pointer, value, what the error begins with.
fn check(rows: &[(&str, &str, Value, &str)]) {
    for (kind, pointer, value, want) in rows {
        let mut object = good(kind);
        set(&mut object, pointer, value.clone());
        let found = errors(kind, object);
        assert!(
            found.iter().any(|e| e.starts_with(want)),
            "{kind} {pointer}={value}: {found:#?}"
        );
    }
}

#[test]
fn metadata() {
    check(&[
        (
            "Pod",
            "/metadata/name",
            json!(""),
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            "Pod",
            "/metadata/name",
            json!("Bad"),
            "metadata.name: Invalid value: \"Bad\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            "Namespace",
            "/metadata/name",
            json!("a.b"),
            "metadata.name: Invalid value: \"a.b\": must not contain dots",
        ),
        (
            "Service",
            "/metadata/name",
            json!("A"),
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of",
        ),
        (
            "ConfigMap",
            "/metadata/namespace",
            json!("A"),
            "metadata.namespace: Invalid value: \"A\"",
        ),
        (
            "ConfigMap",
            "/metadata/labels",
            json!({"a/b/c": ""}),
            "metadata.labels: Invalid value: \"a/b/c\": a valid label key must consist",
        ),
        (
            "ConfigMap",
            "/metadata/labels",
            json!({"a": "b c"}),
            "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or",
        ),
        (
            "ConfigMap",
            "/metadata/annotations",
            json!({"a": "x".repeat(300_000)}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (
            "ConfigMap",
            "/metadata/finalizers",
            json!(["a b"]),
            "metadata.finalizers: Invalid value: \"a b\": name part must consist of",
        ),
        (
            "ConfigMap",
            "/metadata/ownerReferences",
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]),
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
        ),
        (
            "ConfigMap",
            "/metadata/ownerReferences",
            json!([{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "1", "controller": true}, {"apiVersion": "v1", "kind": "B", "name": "b", "uid": "2", "controller": true}]),
            "metadata.ownerReferences: Invalid value: [{",
        ),
    ]);
}

#[test]
fn containers() {
    check(&[
        (
            "Pod",
            "/spec/containers",
            json!([]),
            "spec.containers: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/image",
            json!(""),
            "spec.containers[0].image: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/image",
            json!(" x"),
            "spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace",
        ),
        (
            "Pod",
            "/spec/containers/0/name",
            json!("A"),
            "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label",
        ),
        (
            "Pod",
            "/spec/containers/1",
            json!({"name": "c", "image": "i"}),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            "Pod",
            "/spec/initContainers/0/name",
            json!("c"),
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            "Pod",
            "/spec/initContainers/0/readinessProbe",
            json!({"exec": {"command": ["a"]}}),
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            "Pod",
            "/spec/containers/0/imagePullPolicy",
            json!("Often"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            "Pod",
            "/spec/containers/0/terminationMessagePolicy",
            json!("x"),
            "spec.containers[0].terminationMessagePolicy: Unsupported value",
        ),
        (
            "Pod",
            "/spec/containers/0/ports/0/containerPort",
            json!(0),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/ports/0/containerPort",
            json!(70000),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "Pod",
            "/spec/containers/0/ports/0/protocol",
            json!("tcp"),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "Pod",
            "/spec/containers/0/ports/0/name",
            json!("a--b"),
            "spec.containers[0].ports[0].name: Invalid value: \"a--b\": must not contain consecutive hyphens",
        ),
        (
            "Pod",
            "/spec/containers/0/ports/1",
            json!({"name": "http", "containerPort": 81}),
            "spec.containers[0].ports[1].name: Duplicate value: \"http\"",
        ),
        (
            "Pod",
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\"",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0/name",
            json!(""),
            "spec.containers[0].env[0].name: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0/name",
            json!("a=b"),
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0/valueFrom",
            json!({}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0/valueFrom",
            json!({"configMapKeyRef": {"name": "a", "key": "k"}}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0",
            json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}),
            "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0",
            json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0",
            json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
        ),
        (
            "Pod",
            "/spec/containers/0/env/0",
            json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}),
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value",
        ),
        (
            "Pod",
            "/spec/containers/0/envFrom",
            json!([{"configMapRef": {}}]),
            "spec.containers[0].envFrom[0].configMapRef.name: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/envFrom",
            json!([{}]),
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            "Pod",
            "/spec/containers/0/volumeMounts/0/name",
            json!("w"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
        ),
        (
            "Pod",
            "/spec/containers/0/volumeMounts/0/mountPath",
            json!(""),
            "spec.containers[0].volumeMounts[0].mountPath: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/volumeMounts/1",
            json!({"name": "v", "mountPath": "/v"}),
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique",
        ),
        (
            "Pod",
            "/spec/containers/0/volumeMounts/0/subPath",
            json!("/x"),
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path",
        ),
        (
            "Pod",
            "/spec/containers/0/securityContext",
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
            "spec.containers[0].securityContext: Invalid value: {",
        ),
        (
            "Pod",
            "/spec/containers/0/securityContext",
            json!({"runAsUser": -1}),
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            "Pod",
            "/spec/containers/0/lifecycle",
            json!({"preStop": {}}),
            "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type",
        ),
        (
            "Pod",
            "/spec/containers/0/lifecycle",
            json!({"preStop": {"sleep": {"seconds": 60}}}),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
    ]);
}

#[test]
fn probes_and_resources() {
    check(&[
        (
            "Pod",
            "/spec/containers/0/livenessProbe",
            json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "Pod",
            "/spec/containers/0/livenessProbe",
            json!({"exec": {}}),
            "spec.containers[0].livenessProbe.exec.command: Required value",
        ),
        (
            "Pod",
            "/spec/containers/0/livenessProbe/httpGet/port",
            json!(0),
            "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535",
        ),
        (
            "Pod",
            "/spec/containers/0/livenessProbe/httpGet/scheme",
            json!("FTP"),
            "spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
        ),
        (
            "Pod",
            "/spec/containers/0/livenessProbe/tcpSocket",
            json!({"port": 1}),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "Pod",
            "/spec/containers/0/livenessProbe/successThreshold",
            json!(2),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "Pod",
            "/spec/containers/0/livenessProbe/periodSeconds",
            json!(-1),
            "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "Pod",
            "/spec/containers/0/resources/requests/cpu",
            json!("2"),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "Pod",
            "/spec/containers/0/resources/requests/cpu",
            json!("-1"),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "Pod",
            "/spec/containers/0/resources/requests/gpu",
            json!("1"),
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
        ),
        (
            "Pod",
            "/spec/containers/0/resources/requests/x.y~1gpu",
            json!("1"),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            "Pod",
            "/spec/containers/0/resources/limits/x.y~1gpu",
            json!("500m"),
            "spec.containers[0].resources.limits[x.y/gpu]: Invalid value: \"500m\": must be an integer",
        ),
    ]);
}

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
        (
            "Pod",
            "/spec/nodeSelector",
            json!({"a b": "c"}),
            "spec.nodeSelector: Invalid value: \"a b\"",
        ),
        (
            "Pod",
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            "Pod",
            "/spec/hostname",
            json!("A"),
            "spec.hostname: Invalid value: \"A\"",
        ),
        (
            "Pod",
            "/spec/serviceAccountName",
            json!("A"),
            "spec.serviceAccountName: Invalid value: \"A\"",
        ),
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
        (
            "Pod",
            "/spec/volumes/0/name",
            json!(""),
            "spec.volumes[0].name: Required value",
        ),
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
        (
            "Deployment",
            "/spec/selector",
            Value::Null,
            "spec.selector: Required value",
        ),
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
        (
            "ReplicaSet",
            "/spec/selector",
            Value::Null,
            "spec.selector: Required value",
        ),
        (
            "ReplicaSet",
            "/spec/template",
            json!({}),
            "spec.template.spec.containers: Required value",
        ),
        (
            "Job",
            "/spec/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
    ]);
}

#[test]
fn services() {
    check(&[
        (
            "Service",
            "/spec/ports",
            json!([]),
            "spec.ports: Required value",
        ),
        (
            "Service",
            "/spec/ports/0/port",
            json!(0),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "Service",
            "/spec/ports/1",
            json!({"port": 81}),
            "spec.ports[1].name: Required value",
        ),
        (
            "Service",
            "/spec/ports/1",
            json!({"name": "http", "port": 81}),
            "spec.ports[1].name: Duplicate value: \"http\"",
        ),
        (
            "Service",
            "/spec/ports/1",
            json!({"name": "other", "port": 80}),
            "spec.ports[1]: Duplicate value: {",
        ),
        (
            "Service",
            "/spec/ports/0/protocol",
            json!("x"),
            "spec.ports[0].protocol: Unsupported value: \"x\"",
        ),
        (
            "Service",
            "/spec/ports/0/targetPort",
            json!("UPPER"),
            "spec.ports[0].targetPort: Invalid value: \"UPPER\"",
        ),
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
        (
            "Service",
            "/spec/type",
            json!("ExternalName"),
            "spec.externalName: Required value",
        ),
        (
            "Service",
            "/spec/selector",
            json!({"a": "b c"}),
            "spec.selector: Invalid value: \"b c\"",
        ),
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
        (
            "Service",
            "/spec/internalTrafficPolicy",
            json!("x"),
            "spec.internalTrafficPolicy: Unsupported value: \"x\"",
        ),
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
        (
            "Secret",
            "/data",
            json!({"..": ""}),
            "data[..]: Invalid value: \"..\": must not be '..'",
        ),
        (
            "Secret",
            "/data",
            json!({"a": "x".repeat(1_500_000)}),
            "data: Too long: may not be more than 1048576 bytes",
        ),
        (
            "Secret",
            "/type",
            json!("kubernetes.io/tls"),
            "data[tls.crt]: Required value",
        ),
        (
            "Secret",
            "/type",
            json!("kubernetes.io/basic-auth"),
            "data[username]: Required value",
        ),
        (
            "Secret",
            "/type",
            json!("kubernetes.io/ssh-auth"),
            "data[ssh-privatekey]: Required value",
        ),
        (
            "Secret",
            "/type",
            json!("kubernetes.io/dockerconfigjson"),
            "data[.dockerconfigjson]: Required value",
        ),
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
            "spec.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
        ),
        (
            "Node",
            "/spec",
            json!({"taints": [{"key": "a"}]}),
            "metadata.taints[0].effect: Required value",
        ),
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

/// Errors of an update by a change at a pointer.
fn update(kind: &str, pointer: &str, value: Value) -> Vec<String> {
    let strategy = strategy(group(kind), kind);
    let mut old = good(kind);
    strategy.default(&mut old);
    strategy.prepare_create(&mut old);
    old["metadata"]["uid"] = "u".into();
    old["metadata"]["resourceVersion"] = "1".into();
    let mut new = old.clone();
    set(&mut new, pointer, value);
    strategy.default(&mut new);
    strategy.prepare_update(&mut new, &old, Sub::Main);
    strategy
        .validate_update(&new, &old, Sub::Main)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_may_change_and_what_may_not() {
    let fine: &[(&str, &str, Value)] = &[
        ("Pod", "/spec/containers/0/image", json!("i:2")),
        ("Pod", "/spec/initContainers/0/image", json!("i:2")),
        ("Pod", "/spec/activeDeadlineSeconds", json!(5)),
        (
            "Pod",
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Exists"}]),
        ),
        ("Pod", "/metadata/labels", json!({"a": "b"})),
        ("Deployment", "/spec/replicas", json!(5)),
        (
            "Deployment",
            "/spec/template/metadata/labels/more",
            json!("x"),
        ),
        ("Service", "/spec/ports/0/targetPort", json!(8080)),
        ("ConfigMap", "/data/a", json!("c")),
    ];
    for (kind, pointer, value) in fine {
        assert_eq!(
            update(kind, pointer, value.clone()),
            Vec::<String>::new(),
            "{kind} {pointer}"
        );
    }
    let wrong: &[(&str, &str, Value, &str)] = &[
        (
            "Pod",
            "/spec/nodeName",
            json!("n"),
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
        ),
        (
            "Pod",
            "/spec/containers/0/env",
            json!([]),
            "spec: Forbidden: pod updates may not change fields other than",
        ),
        (
            "Pod",
            "/spec/containers/1",
            json!({"name": "x", "image": "i"}),
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
        (
            "Pod",
            "/spec/terminationGracePeriodSeconds",
            json!(1),
            "spec: Forbidden: pod updates may not change fields other than",
        ),
        (
            "Pod",
            "/metadata/name",
            json!("q"),
            "metadata.name: Invalid value: \"q\": field is immutable",
        ),
        (
            "Pod",
            "/metadata/uid",
            json!("v"),
            "metadata.uid: Invalid value: \"v\": field is immutable",
        ),
        (
            "Deployment",
            "/spec/selector/matchLabels",
            json!({"app": "a", "more": "x"}),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"more\":\"x\"}}: field is immutable",
        ),
        (
            "ReplicaSet",
            "/spec/selector/matchLabels",
            json!({"app": "b"}),
            "spec.selector: Invalid value",
        ),
        (
            "Service",
            "/spec/clusterIP",
            json!("10.96.0.10"),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set",
        ),
        (
            "Secret",
            "/type",
            json!("x/y"),
            "type: Invalid value: \"x/y\": field is immutable",
        ),
        (
            "Job",
            "/spec/template/spec/containers/0/image",
            json!("j"),
            "spec.template: Invalid value",
        ),
    ];
    for (kind, pointer, value, want) in wrong {
        let found = update(kind, pointer, value.clone());
        assert!(
            found.iter().any(|e| e.starts_with(want)),
            "{kind} {pointer}={value}: {found:#?}"
        );
    }
}

#[test]
fn immutable_data_stays() {
    let old = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "b"}});
    for (change, want) in [
        (
            json!({"immutable": false}),
            "immutable: Forbidden: field is immutable when `immutable` is set",
        ),
        (
            json!({"data": {"a": "c"}}),
            "data: Forbidden: field is immutable when `immutable` is set",
        ),
    ] {
        let mut new = old.clone();
        json_patch::merge(&mut new, &change);
        let errors = strategy("", "ConfigMap").validate_update(&new, &old, Sub::Main);
        assert_eq!(errors[0].to_string(), want);
    }
}

#[test]
fn no_new_finalizers_on_what_is_being_deleted() {
    let old = json!({"metadata": {"name": "a", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["x/y", "x/z"]);
    let errors = strategy("", "ConfigMap").validate_update(&new, &old, Sub::Main);
    assert_eq!(
        errors[0].to_string(),
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/z\"}"
    );
}
