//! Tables of objects before and after.

use super::*;
use serde_json::json;

fn defaulted(default: fn(&mut Value), mut object: Value) -> Value {
    default(&mut object);
    let mut again = object.clone();
    default(&mut again);
    assert_eq!(object, again, "defaulting is idempotent");
    object
}

#[test]
fn a_small_pod_becomes_a_complete_one() {
    let pod = defaulted(
        pod,
        json!({"spec": {
            "containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": 0.25}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}],
        }}),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["schedulerName"], "default-scheduler");
    assert_eq!(spec["enableServiceLinks"], true);
    assert_eq!(spec["securityContext"], json!({}));
    assert_eq!(
        spec["volumes"],
        json!([{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}])
    );
    assert_eq!(
        spec["containers"][0],
        json!({"name": "a", "image": "nginx", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "250m", "memory": "1Gi"}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}]})
    );
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, want) in [
        ("a", true),
        ("a:latest", true),
        ("a:1", false),
        ("localhost:5000/a", true),
        ("localhost:5000/a:1", false),
        ("a@sha256:00", false),
        ("a:latest@sha256:00", true),
        ("A", false),
        ("", false),
    ] {
        let pod = defaulted(pod, json!({"spec": {"containers": [{"image": image}]}}));
        let want = if want { "Always" } else { "IfNotPresent" };
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], want, "{image}");
    }
}

#[test]
fn templates_get_no_requests_and_no_service_links() {
    let rs = defaulted(
        replica_set,
        json!({"spec": {"template": {"spec": {"hostNetwork": true, "serviceAccount": "sa",
        "containers": [{"image": "a:1", "ports": [{"containerPort": 1}], "resources": {"limits": {"cpu": "1"}}}]}}}}),
    );
    let spec = &rs["spec"]["template"]["spec"];
    assert_eq!(rs["spec"]["replicas"], 1);
    assert_eq!(spec["enableServiceLinks"], Value::Null);
    assert_eq!(spec["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
    assert_eq!(spec["containers"][0]["ports"][0]["hostPort"], Value::Null);
    assert_eq!(spec["serviceAccountName"], "sa");
}

#[test]
fn host_network_pods_publish_their_ports() {
    let pod = defaulted(
        pod,
        json!({"spec": {"hostNetwork": true, "containers": [{"image": "a:1", "ports": [{"containerPort": 8080}]}]}}),
    );
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 8080);
}

#[test]
fn pod_level_requests_come_from_containers_or_limits() {
    let pod = defaulted(
        pod,
        json!({"spec": {"resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
        "containers": [{"image": "a:1", "resources": {"requests": {"cpu": "100m"}}}, {"image": "a:1", "resources": {"requests": {"cpu": "150m"}}}]}}),
    );
    assert_eq!(pod["spec"]["resources"]["requests"], json!({"cpu": "250m", "memory": "1Gi"}));
}

#[test]
fn every_kind_gets_its_own() {
    type Row = (fn(&mut Value), Value, &'static str, Value);
    let table: Vec<Row> = vec![
        (
            deployment,
            json!({}),
            "/spec/strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}),
        ),
        (
            deployment,
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
            "/spec/strategy",
            json!({"type": "Recreate"}),
        ),
        (
            deployment,
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0}}}}),
            "/spec/strategy/rollingUpdate",
            json!({"maxSurge": 0, "maxUnavailable": "25%"}),
        ),
        (deployment, json!({"spec": {"replicas": 0}}), "/spec/replicas", json!(0)),
        (deployment, json!({}), "/spec/progressDeadlineSeconds", json!(600)),
        (
            stateful_set,
            json!({}),
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
        ),
        (daemon_set, json!({}), "/spec/updateStrategy/rollingUpdate", json!({"maxUnavailable": 1, "maxSurge": 0})),
        (job, json!({}), "/spec/completions", json!(1)),
        (job, json!({"spec": {"parallelism": 3}}), "/spec/completions", Value::Null),
        (
            job,
            json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
            "/metadata/labels",
            json!({"a": "b"}),
        ),
        (cron_job, json!({}), "/spec/successfulJobsHistoryLimit", json!(3)),
        (
            replication_controller,
            json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
            "/spec/selector",
            json!({"a": "b"}),
        ),
        (
            service,
            json!({"spec": {"ports": [{"port": 80}]}}),
            "/spec/ports",
            json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]),
        ),
        (service, json!({}), "/spec/internalTrafficPolicy", json!("Cluster")),
        (service, json!({"spec": {"type": "NodePort"}}), "/spec/externalTrafficPolicy", json!("Cluster")),
        (service, json!({"spec": {"type": "ExternalName"}}), "/spec/internalTrafficPolicy", Value::Null),
        (
            service,
            json!({"spec": {"sessionAffinity": "ClientIP"}}),
            "/spec/sessionAffinityConfig/clientIP/timeoutSeconds",
            json!(10800),
        ),
        (
            namespace,
            json!({"metadata": {"name": "x"}}),
            "/metadata/labels",
            json!({"kubernetes.io/metadata.name": "x"}),
        ),
        (namespace, json!({"metadata": {"name": "x"}}), "/status/phase", json!("Active")),
        (node, json!({"status": {"capacity": {"cpu": "2000m"}}}), "/status/allocatable", json!({"cpu": "2"})),
        (
            secret,
            json!({"stringData": {"a": "b"}, "data": {"a": "eA==", "c": "eQ=="}}),
            "/data",
            json!({"a": "Yg==", "c": "eQ=="}),
        ),
        (secret, json!({}), "/type", json!("Opaque")),
        (
            endpoint_slice,
            json!({"ports": [{"port": 1}]}),
            "/ports",
            json!([{"port": 1, "name": "", "protocol": "TCP"}]),
        ),
        (persistent_volume_claim, json!({}), "/spec/volumeMode", json!("Filesystem")),
        (
            persistent_volume,
            json!({"spec": {"capacity": {"storage": "1024Mi"}}}),
            "/spec/capacity/storage",
            json!("1Gi"),
        ),
        (network_policy, json!({"spec": {"egress": [{}]}}), "/spec/policyTypes", json!(["Ingress", "Egress"])),
        (
            role_binding,
            json!({"subjects": [{"kind": "User"}, {"kind": "ServiceAccount"}]}),
            "/subjects",
            json!([{"kind": "User", "apiGroup": RBAC_GROUP}, {"kind": "ServiceAccount"}]),
        ),
        (
            limit_range,
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
            "/spec/limits/0/defaultRequest",
            json!({"cpu": "1"}),
        ),
        (horizontal_pod_autoscaler, json!({}), "/spec/metrics/0/resource/target/averageUtilization", json!(80)),
    ];
    for (default, object, pointer, want) in table {
        let got = defaulted(default, object.clone());
        assert_eq!(got.pointer(pointer).cloned().unwrap_or_default(), want, "{object} at {pointer}");
    }
}

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
