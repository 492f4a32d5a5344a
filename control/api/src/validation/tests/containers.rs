//! Containers.

use super::check;
use serde_json::json;

#[test]
fn containers() {
    check(&[
        ("Pod", "/spec/containers", json!([]), "spec.containers: Required value"),
        ("Pod", "/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
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
        ("Pod", "/spec/initContainers/0/name", json!("c"), "spec.initContainers[0].name: Duplicate value: \"c\""),
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
        ("Pod", "/spec/containers/0/env/0/name", json!(""), "spec.containers[0].env[0].name: Required value"),
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
