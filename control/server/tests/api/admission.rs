//! The admission plugins.

use serde_json::{Value, json};

use crate::harness::*;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn limit_range(limits: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits": limits}})
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let api = Api::new().await;
    let limits = json!([
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}},
    ]);
    api.post("/api/v1/namespaces/default/limitranges", &limit_range(limits)).await.expect(201);
    let filled = api.post(PODS, &pod("a")).await.expect(201);
    let resources = &filled["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}));
    assert_eq!(filled["status"]["qosClass"], "Burstable");
    let mut big = pod("b");
    big["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let refused = api.post(PODS, &big).await.expect(403);
    // Both are wrong; the limit is looked at first.
    assert_eq!(refused["message"], "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
    let mut big = claim("big");
    big["spec"]["resources"]["requests"]["storage"] = json!("3Gi");
    let refused = api.post(CLAIMS, &big).await.expect(403);
    assert_eq!(
        refused["message"],
        "persistentvolumeclaims \"big\" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
    );
    api.post(CLAIMS, &claim("small")).await.expect(201);
}

#[tokio::test]
async fn a_pods_priority_is_its_classs() {
    let api = Api::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str, default: bool| json!({"metadata": {"name": name}, "value": 100, "globalDefault": default, "preemptionPolicy": "Never"});
    api.post(classes, &class("quiet", false)).await.expect(201);
    let mut named = pod("a");
    named["spec"]["priorityClassName"] = json!("quiet");
    let made = api.post(PODS, &named).await.expect(201);
    assert_eq!((&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]), (&json!(100), &json!("Never")));
    let plain = api.post(PODS, &pod("b")).await.expect(201);
    assert_eq!(
        (&plain["spec"]["priority"], &plain["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    for (name, spec, why) in [
        ("c", json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
        (
            "d",
            json!({"priorityClassName": "quiet", "preemptionPolicy": "PreemptLowerPriority"}),
            "the string value of PreemptionPolicy",
        ),
        ("e", json!({"priority": 7}), "the integer value of priority (7) must not be provided in pod spec"),
    ] {
        let mut pod = pod(name);
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let refused = api.post(PODS, &pod).await.expect(403);
        assert!(refused["message"].as_str().unwrap().contains(why), "{}", refused["message"]);
    }
    api.post(classes, &class("usual", true)).await.expect(201);
    let refused = api.post(classes, &class("other", true)).await.expect(403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .ends_with("PriorityClass usual is already marked as default. Only one default can exist")
    );
    assert_eq!(api.post(PODS, &pod("f")).await.expect(201)["spec"]["priorityClassName"], "usual");
}

#[tokio::test]
async fn a_runtime_class_adds_overhead_and_place() {
    let api = Api::new().await;
    let class = json!({
        "metadata": {"name": "heavy"}, "handler": "heavy", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"kind": "heavy"}, "tolerations": [{"key": "heavy", "operator": "Exists"}]},
    });
    api.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.expect(201);
    let mut heavy = pod("a");
    heavy["spec"]["runtimeClassName"] = json!("heavy");
    let made = api.post(PODS, &heavy).await.expect(201);
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"kind": "heavy"}));
    assert!(made["spec"]["tolerations"].as_array().unwrap().iter().any(|t| t["key"] == "heavy"));
    heavy["metadata"]["name"] = json!("b");
    heavy["spec"]["runtimeClassName"] = json!("nothing");
    let refused = api.post(PODS, &heavy).await.expect(403);
    assert_eq!(refused["message"], "pods \"b\" is forbidden: pod rejected: RuntimeClass \"nothing\" not found");
    let mut odd = pod("c");
    odd["spec"]["overhead"] = json!({"cpu": "1"});
    assert_eq!(api.post(PODS, &odd).await.code, 403);
}

#[tokio::test]
async fn claims_and_ingresses_get_the_newest_default_class() {
    let api = Api::new().await;
    // The class that every cluster has from the start.
    let before = api.post(CLAIMS, &claim("before")).await.expect(201);
    assert_eq!(before["spec"]["storageClassName"], "local-path");
    api.delete(&format!("{CLASSES}/local-path"), None).await.expect(200);
    let without = api.post(CLAIMS, &claim("without")).await.expect(201);
    assert!(without["spec"].get("storageClassName").is_none());
    let mark = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "fast", "annotations": mark}, "provisioner": "example.com/disk"});
    api.post(CLASSES, &class).await.expect(201);
    let made = api.post(CLAIMS, &claim("a")).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "fast");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let mut none = claim("none");
    none["spec"]["storageClassName"] = json!("");
    assert_eq!(api.post(CLAIMS, &none).await.expect(201)["spec"]["storageClassName"], "");
    // Only a bound claim of a class that allows it grows.
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let refused = api.merge(&format!("{CLAIMS}/a"), &grow).await.expect(422);
    let why = refused["details"]["causes"][0]["message"].as_str().unwrap();
    assert!(why.starts_with("Forbidden: spec is immutable after creation except resources.requests"), "{why}");
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    api.merge(&format!("{CLAIMS}/a/status"), &bound).await.expect(200);
    let refused = api.merge(&format!("{CLAIMS}/a"), &grow).await.expect(403);
    assert_eq!(
        refused["message"],
        "persistentvolumeclaims \"a\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    );

    let mark = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "edge", "annotations": mark}, "spec": {"controller": "example.com/edge"}});
    api.post("/apis/networking.k8s.io/v1/ingressclasses", &class).await.expect(201);
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let made = api.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", &ingress).await.expect(201);
    assert_eq!(made["spec"]["ingressClassName"], "edge");
}

#[tokio::test]
async fn a_new_node_takes_nothing_yet() {
    let api = Api::new().await;
    let made = api.post("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await.expect(201);
    assert_eq!(made["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    // The taint is the node controller's to remove.
    let ready = api.merge("/api/v1/nodes/n", &json!({"spec": {"taints": null}})).await.expect(200);
    assert!(ready["spec"].get("taints").is_none());
}

#[tokio::test]
async fn pods_obey_the_standards_of_their_namespace() {
    let api = Api::new().await;
    let spaces = "/api/v1/namespaces";
    let labelled = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let refused = api.post(spaces, &labelled("odd", json!({"pod-security.kubernetes.io/enforce": "strict"}))).await;
    assert_eq!(
        refused.expect(422)["details"]["causes"][0]["message"],
        "Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
    api.post(spaces, &labelled("team", json!({}))).await.expect(201);
    let pods = format!("{spaces}/team/pods");
    let mut host = pod("host");
    host["spec"]["hostNetwork"] = json!(true);
    api.post(&pods, &host).await.expect(201);

    // A namespace that becomes stricter names the Pods that would not do.
    let stricter = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let answer = api.merge(&format!("{spaces}/team"), &stricter).await;
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(
        warnings,
        [
            "299 - \"existing pods in namespace \\\"team\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"host: host namespaces\"",
        ]
    );
    host["metadata"]["name"] = json!("again");
    let refused = api.post(&pods, &host).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"again\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    api.post(&pods, &pod("plain")).await.expect(201);

    // What makes Pods is warned and made.
    let mut web = deployment("web");
    web["spec"]["template"]["spec"]["hostPID"] = json!(true);
    let answer = api.post("/apis/apps/v1/namespaces/team/deployments", &web).await;
    assert_eq!(answer.code, 201);
    assert_eq!(
        answer.headers["warning"],
        "299 - \"would violate PodSecurity \\\"baseline:latest\\\": host namespaces (hostPID=true)\""
    );
}
