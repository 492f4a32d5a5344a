//! What writes keep, drop and compute.

use super::*;
use serde_json::json;

fn create(group: &str, kind: &str, mut object: Value) -> Value {
    let strategy = strategy(group, kind);
    strategy.default(&mut object);
    strategy.prepare_create(&mut object);
    object
}

fn update(
    group: &str,
    kind: &str,
    old: &Value,
    sub: Sub,
    change: impl FnOnce(&mut Value),
) -> Value {
    let mut new = old.clone();
    change(&mut new);
    let strategy = strategy(group, kind);
    strategy.default(&mut new);
    strategy.prepare_update(&mut new, old, sub);
    new
}

#[test]
fn a_new_pod_is_pending_whatever_it_says() {
    let pod = create(
        "",
        "Pod",
        json!({"metadata": {"name": "a", "deletionTimestamp": "x"}, "status": {"phase": "Running"},
        "spec": {"containers": [{"name": "a", "image": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}}),
    );
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "Guaranteed"})
    );
    assert_eq!(pod["metadata"], json!({"name": "a", "generation": 1}));
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    for (containers, want) in [
        (json!([{}]), "BestEffort"),
        (
            json!([{"resources": {"requests": {"cpu": "0"}}}]),
            "BestEffort",
        ),
        (
            json!([{"resources": {"requests": {"cpu": "1"}}}]),
            "Burstable",
        ),
        (
            json!([{"resources": {"requests": {"cpu": "1", "memory": "1"}, "limits": {"cpu": "1", "memory": "1"}}}]),
            "Guaranteed",
        ),
        (
            json!([{"resources": {"requests": {"cpu": "1", "memory": "1"}, "limits": {"cpu": "1", "memory": "1"}}}, {}]),
            "Burstable",
        ),
        (
            json!([{"resources": {"requests": {"cpu": "1", "memory": "1"}, "limits": {"cpu": "2", "memory": "1"}}}]),
            "Burstable",
        ),
    ] {
        assert_eq!(
            pod::qos_class(&json!({"containers": containers})),
            want,
            "{containers}"
        );
    }
}

#[test]
fn each_endpoint_changes_its_half() {
    let old = create(
        "apps",
        "Deployment",
        json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"replicas": 1}}),
    );
    assert_eq!(old["metadata"]["generation"], 1);
    let change = |new: &mut Value| {
        new["spec"]["replicas"] = 5.into();
        new["status"] = json!({"replicas": 3});
        new["metadata"]["labels"] = json!({"a": "b"});
        new["metadata"]["generation"] = 77.into();
    };
    let main = update("apps", "Deployment", &old, Sub::Main, change);
    assert_eq!(
        (
            &main["spec"]["replicas"],
            &main["status"],
            &main["metadata"]["generation"]
        ),
        (&json!(5), &Value::Null, &json!(2))
    );
    assert_eq!(main["metadata"]["labels"], json!({"a": "b"}));
    let status = update("apps", "Deployment", &old, Sub::Status, change);
    assert_eq!(
        (
            &status["spec"],
            &status["status"],
            &status["metadata"]["generation"]
        ),
        (&old["spec"], &json!({"replicas": 3}), &json!(1))
    );
    assert_eq!(status["metadata"]["labels"], Value::Null);
}

#[test]
fn generation_counts_what_is_desired() {
    let old = create("apps", "Deployment", json!({"metadata": {"name": "a"}}));
    for (change, want) in [
        (json!({"metadata": {"labels": {"a": "b"}}}), 1),
        (json!({"metadata": {"annotations": {"a": "b"}}}), 2),
        (json!({"spec": {"paused": true}}), 2),
        (json!({"spec": {"paused": null}}), 1),
    ] {
        let new = update("apps", "Deployment", &old, Sub::Main, |new| {
            json_patch::merge(new, &change)
        });
        assert_eq!(new["metadata"]["generation"], want, "{change}");
    }
    let old = create("", "ConfigMap", json!({"metadata": {"name": "a"}}));
    assert_eq!(
        update("", "ConfigMap", &old, Sub::Main, |new| new["data"] =
            json!({"a": "b"}))["metadata"]["generation"],
        Value::Null
    );
}

#[test]
fn system_metadata_cannot_be_changed() {
    let old = json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "deletionTimestamp": "d", "deletionGracePeriodSeconds": 3}});
    let new = update("", "ConfigMap", &old, Sub::Main, |new| {
        new["metadata"] = json!({"name": "a", "creationTimestamp": null})
    });
    assert_eq!(new["metadata"], old["metadata"]);
    let new = update("", "ConfigMap", &old, Sub::Main, |new| {
        new["metadata"]["uid"] = "v".into()
    });
    let errors = strategy("", "ConfigMap").validate_update(&new, &old, Sub::Main);
    assert_eq!(
        errors[0].to_string(),
        "metadata.uid: Invalid value: \"v\": field is immutable"
    );
}

#[test]
fn a_namespace_is_active_and_held_by_its_finalizer() {
    let ns = create(
        "",
        "Namespace",
        json!({"metadata": {"name": "x"}, "status": {"phase": "Terminating"}}),
    );
    assert_eq!(ns["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(ns["status"]["phase"], "Active");
    let main = update("", "Namespace", &ns, Sub::Main, |new| {
        new["spec"]["finalizers"] = json!([])
    });
    assert_eq!(main["spec"]["finalizers"], json!(["kubernetes"]));
    let finalize = update("", "Namespace", &ns, Sub::Other, |new| {
        new["spec"]["finalizers"] = json!([])
    });
    assert_eq!(finalize["spec"]["finalizers"], json!([]));
}

#[test]
fn a_node_brings_its_status_along() {
    let node = create(
        "",
        "Node",
        json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}}),
    );
    assert_eq!(node["status"]["allocatable"]["cpu"], "2");
}

#[test]
fn a_service_keeps_its_addresses_and_drops_what_its_new_type_has_not() {
    let old = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
        "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}]}});
    let kept = update("", "Service", &old, Sub::Main, |new| {
        new["spec"] = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]});
    });
    assert_eq!(
        (
            &kept["spec"]["clusterIP"],
            &kept["spec"]["ports"][0]["nodePort"]
        ),
        (&json!("10.96.0.9"), &json!(30080))
    );
    let plain = update("", "Service", &old, Sub::Main, |new| {
        new["spec"]["type"] = "ClusterIP".into()
    });
    assert_eq!(
        (
            &plain["spec"]["externalTrafficPolicy"],
            &plain["spec"]["ports"][0]["nodePort"]
        ),
        (&Value::Null, &Value::Null)
    );
    let external = update("", "Service", &old, Sub::Main, |new| {
        new["spec"]["type"] = "ExternalName".into()
    });
    assert_eq!(
        (
            &external["spec"]["clusterIP"],
            &external["spec"]["clusterIPs"]
        ),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn pods_are_given_their_grace() {
    let pod = |phase: &str, node: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
    for (object, asked, want) in [
        (pod("Running", "n"), None, 30),
        (pod("Running", "n"), Some(5), 5),
        (pod("Running", "n"), Some(0), 0),
        (pod("Running", "n"), Some(-1), 1),
        (pod("Pending", ""), None, 0),
        (pod("Succeeded", "n"), Some(5), 0),
    ] {
        assert_eq!(strategy("", "Pod").grace(&object, asked), want);
    }
    assert_eq!(strategy("", "ConfigMap").grace(&json!({}), Some(30)), 0);
}

#[test]
fn fields_can_be_selected() {
    let pod = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": "1.2.3.4"}]}});
    let fields = strategy("", "Pod").selectable(&pod);
    let get = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.as_str())
    };
    for (name, want) in [
        ("metadata.name", "a"),
        ("metadata.namespace", "b"),
        ("spec.nodeName", "n"),
        ("spec.hostNetwork", "false"),
        ("status.podIP", "1.2.3.4"),
        ("status.phase", ""),
    ] {
        assert_eq!(get(name), Some(want), "{name}");
    }
    assert!(!strategy("", "Pod").is_selectable("spec.foo"));
    let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod"}});
    assert!(
        strategy("", "Event")
            .selectable(&event)
            .contains(&("involvedObject.kind", "Pod".into()))
    );
}

#[test]
fn unknown_kinds_get_the_generic_strategy() {
    let object = create(
        "example.com",
        "Widget",
        json!({"metadata": {"name": "w"}, "spec": {"a": 1}, "status": {"b": 1}}),
    );
    assert_eq!(
        object,
        json!({"metadata": {"name": "w", "generation": 1}, "spec": {"a": 1}})
    );
}

#[test]
fn no_hook_panics_on_odd_shapes() {
    let odd = [
        json!(null),
        json!([]),
        json!({"metadata": 1, "spec": [], "status": "x"}),
        json!({"spec": {"containers": {}, "template": 1, "ports": [1, null]}, "metadata": {"labels": []}}),
    ];
    for (group, kind, strategy) in table::TABLE {
        for object in &odd {
            let mut new = object.clone();
            strategy.default(&mut new);
            strategy.prepare_create(&mut new);
            strategy.validate(&new);
            strategy.warnings(&new);
            strategy.selectable(&new);
            let row = strategy.row(&new, Timestamp::UNIX_EPOCH);
            assert_eq!(
                row.len(),
                strategy.columns.len(),
                "{group}/{kind} has a cell a column"
            );
            for sub in [Sub::Main, Sub::Status, Sub::Scale, Sub::Other] {
                let mut changed = object.clone();
                strategy.prepare_update(&mut changed, &new, sub);
                strategy.validate_update(&changed, &new, sub);
            }
        }
    }
}
