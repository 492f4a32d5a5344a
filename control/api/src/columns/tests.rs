//! Rows as kubectl shows them.

use super::*;
use serde_json::json;

fn now() -> Timestamp {
    Timestamp::new(1_000_000, 0).unwrap_or_default()
}

/// The time `seconds` before now.
fn ago(seconds: i64) -> String {
    Timestamp::new(1_000_000 - seconds, 0).unwrap_or_default().to_string()
}

/// Cells as text, joined.
fn row(group: &str, kind: &str, object: &Value) -> String {
    let strategy = crate::strategy::strategy(group, kind);
    let cells = strategy.row(object, now());
    assert_eq!(cells.len(), strategy.columns.len());
    cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect::<Vec<_>>().join("|")
}

#[test]
fn a_pods_status_is_one_word() {
    let running = json!({"ready": true, "state": {"running": {}}});
    let table = [
        (json!({"phase": "Pending"}), "0/2", "Pending"),
        (json!({"phase": "Running", "containerStatuses": [running, running]}), "2/2", "Running"),
        (
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
            "0/2",
            "ContainerCreating",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "1/2",
            "CrashLoopBackOff",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "0/2",
            "Completed",
        ),
        (
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, running]}),
            "1/2",
            "Running",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, running]}),
            "1/2",
            "NotReady",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            "0/2",
            "ExitCode:3",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
            "0/2",
            "Signal:9",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted"),
        (json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}), "0/2", "Init:0/1"),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}),
            "0/2",
            "Init:ErrImagePull",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "0/2",
            "Init:Error",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
            "0/2",
            "Init:ExitCode:2",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
        ),
    ];
    for (status, ready, word) in table {
        let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": ago(60)}, "spec": {"containers": [{}, {}], "initContainers": [{"name": "i"}]}, "status": status});
        assert_eq!(row("", "Pod", &pod), format!("p|{ready}|{word}|0|60s|<none>|<none>|<none>|<none>"), "{pod}");
        pod["metadata"]["deletionTimestamp"] = ago(1).into();
        if !matches!(text(&pod["status"], "phase"), "Failed" | "Succeeded") {
            assert!(row("", "Pod", &pod).contains("|Terminating|"));
        }
    }
}

#[test]
fn restarts_say_how_long_ago() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{}], "nodeName": "n", "readinessGates": [{"conditionType": "x"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "x", "status": "True"}],
            "containerStatuses": [{"ready": true, "restartCount": 3, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": ago(300)}}}]}});
    assert_eq!(row("", "Pod", &pod), "p|1/1|Running|3 (5m ago)|<unknown>|10.0.0.1|n|<none>|1/1");
}

#[test]
fn sidecars_count_as_containers() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
        "status": {"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 2, "state": {"running": {}}}],
            "containerStatuses": [{"ready": true, "state": {"running": {}}}]}});
    assert!(row("", "Pod", &pod).starts_with("p|2/2|Running|2|"));
}

#[test]
fn every_kind_has_its_row() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]}});
    let selector = json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["z", "y"]}]});
    let table = [
        (
            "apps",
            "Deployment",
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
            "n|1/3|2|1|10s|a,b|x:1,y:1|app=a,t in (y,z)",
        ),
        (
            "apps",
            "ReplicaSet",
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"replicas": 2, "readyReplicas": 1}}),
            "n|3|2|1|10s|a,b|x:1,y:1|app=a,t in (y,z)",
        ),
        ("apps", "StatefulSet", json!({"spec": {"replicas": 3, "template": template}}), "n|0/3|10s|a,b|x:1,y:1"),
        (
            "apps",
            "DaemonSet",
            json!({"spec": {"template": template}, "status": {"desiredNumberScheduled": 2}}),
            "n|2|0|0|0|0|<none>|10s|a,b|x:1,y:1|<none>",
        ),
        (
            "batch",
            "Job",
            json!({"spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": ago(30)}}),
            "n|Running|1/3|30s|10s|||<none>",
        ),
        (
            "batch",
            "Job",
            json!({"status": {"conditions": [{"type": "Complete", "status": "True"}], "startTime": ago(30), "completionTime": ago(10)}}),
            "n|Complete|0/1|20s|10s|||<none>",
        ),
        (
            "batch",
            "CronJob",
            json!({"spec": {"schedule": "* * * * *", "suspend": false}}),
            "n|* * * * *|<none>|False|0|<none>|10s|||<none>",
        ),
        ("", "ReplicationController", json!({"spec": {"replicas": 1, "selector": {"a": "b"}}}), "n|1|0|0|10s|||a=b"),
        (
            "",
            "Service",
            json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "selector": {"b": "2", "a": "1"}, "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            "n|NodePort|10.96.0.7|<none>|80:30000/TCP,53/UDP|10s|a=1,b=2",
        ),
        ("", "Service", json!({"spec": {"type": "LoadBalancer"}}), "n|LoadBalancer|<none>|<pending>|<none>|10s|<none>"),
        (
            "",
            "Service",
            json!({"spec": {"type": "ExternalName", "externalName": "x.y"}}),
            "n|ExternalName|<none>|x.y|<none>|10s|<none>",
        ),
        (
            "",
            "Endpoints",
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
            "n|1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...|10s",
        ),
        ("", "Endpoints", json!({}), "n|<none>|10s"),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}]}),
            "n|IPv4|80|1.1.1.1|10s",
        ),
        ("discovery.k8s.io", "EndpointSlice", json!({"addressType": "IPv4"}), "n|IPv4|<unset>|<unset>|10s"),
        ("", "Namespace", json!({"status": {"phase": "Active"}}), "n|Active|10s"),
        ("", "ConfigMap", json!({"data": {"a": "1"}, "binaryData": {"b": ""}}), "n|2|10s"),
        ("", "Secret", json!({"type": "Opaque", "data": {"a": ""}}), "n|Opaque|1|10s"),
        ("", "ServiceAccount", json!({}), "n|10s"),
        (
            "",
            "PersistentVolumeClaim",
            json!({"spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
            "n|Bound|v|1Gi|RWO|s|<unset>|10s|Filesystem",
        ),
        ("networking.k8s.io", "Ingress", json!({"spec": {"rules": [{"host": "a.b"}]}}), "n|<none>|a.b||80|10s"),
        ("networking.k8s.io", "NetworkPolicy", json!({"spec": {"podSelector": {}}}), "n|<none>|10s"),
        ("policy", "PodDisruptionBudget", json!({"spec": {"minAvailable": "50%"}}), "n|50%|N/A|0|10s"),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}}),
            "n|Deployment/d|cpu: <unknown>/80%|1|5|0|10s",
        ),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 0, "maxReplicas": 5, "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"averageValue": "10"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"averageUtilization": 50}}},
                ]},
                "status": {"currentReplicas": 2, "currentMetrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "current": {"averageValue": "2500m"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "current": {"averageUtilization": 7, "averageValue": "7m"}}},
                ]},
            }),
            "n|Deployment/d|2500m/10, cpu: 7%/50%|0|5|2|10s",
        ),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [
                    {"type": "Object", "object": {"metric": {"name": "rps"}, "target": {"type": "Value", "value": "100"}}},
                    {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
                    {"type": "Object", "object": {"metric": {"name": "rps"}, "target": {"type": "Value", "value": "1"}}},
                ]},
                "status": {"currentReplicas": 2, "currentMetrics": [
                    {"type": "Object", "object": {"metric": {"name": "rps"}, "current": {"value": "42"}}},
                    // Not known: it keeps its place.
                    {"type": ""},
                ]},
            }),
            "n|Deployment/d|42/100, <unknown>/30 (avg) + 1 more...|1|5|2|10s",
        ),
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "x"}]}),
            "n|Role/r|10s|u||x/s",
        ),
        ("coordination.k8s.io", "Lease", json!({"spec": {"holderIdentity": "h"}}), "n|h|10s"),
        (
            "storage.k8s.io",
            "StorageClass",
            json!({"metadata": {"name": "n", "creationTimestamp": ago(10), "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"}),
            "n (default)|p|Delete|Immediate|false|10s",
        ),
        (
            "apps",
            "ControllerRevision",
            json!({"revision": 2, "metadata": {"name": "n", "creationTimestamp": ago(10), "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true}]}}),
            "n|daemonset.apps/d|2|10s",
        ),
        ("example.com", "Widget", json!({}), "n|10s"),
    ];
    for (group, kind, mut object, want) in table {
        if object["metadata"].is_null() {
            object["metadata"] = json!({"name": "n", "creationTimestamp": ago(10)});
        }
        assert_eq!(row(group, kind, &object), want, "{kind}");
    }
}

#[test]
fn a_node_shows_its_roles_and_health() {
    let node = json!({"metadata": {"name": "n", "creationTimestamp": ago(10), "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}],
            "nodeInfo": {"kubeletVersion": "v1.36.3", "kernelVersion": "6.18", "architecture": "amd64"}, "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}});
    assert_eq!(
        row("", "Node", &node),
        "n|NotReady,SchedulingDisabled|control-plane,worker|10s|v1.36.3|1.2.3.4|<none>|<unknown>|6.18 (amd64)|<unknown>"
    );
}

#[test]
fn an_event_is_read_in_either_form() {
    let old = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " m ", "count": 3, "firstTimestamp": ago(60), "lastTimestamp": ago(30),
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "f"}, "source": {"component": "kubelet", "host": "n"}});
    assert_eq!(row("", "Event", &old), "30s|Normal|Pulled|pod/p|f|kubelet, n|m|60s|3|e");
    let new = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "note": "m", "eventTime": ago(60), "reportingController": "c",
        "regarding": {"kind": "Pod", "name": "p"}});
    assert_eq!(row("events.k8s.io", "Event", &new), "60s|Normal|Pulled|pod/p||c|m|60s|1|e");
}

#[test]
fn an_api_service_is_local_or_somebodys() {
    let row = |object: Value| row("apiregistration.k8s.io", "APIService", &object);
    let metadata = json!({"name": "v1.x", "creationTimestamp": ago(60)});
    let service = json!({"namespace": "n", "name": "s"});
    let condition = |status: &str| json!({"conditions": [{"type": "Available", "status": status, "reason": "Why"}]});
    assert_eq!(row(json!({"metadata": metadata, "spec": {}, "status": condition("True")})), "v1.x|Local|True|60s");
    let told = row(json!({"metadata": metadata, "spec": {"service": service}, "status": condition("False")}));
    assert_eq!(told, "v1.x|n/s|False (Why)|60s");
    assert_eq!(row(json!({"metadata": metadata, "spec": {"service": service}})), "v1.x|n/s|Unknown|60s");
}
