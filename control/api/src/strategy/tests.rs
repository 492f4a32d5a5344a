//! What writes keep, drop and compute.

use super::{Sub, pod, strategy, table};
use jiff::Timestamp;
use proptest::prelude::{Strategy as Strategist, *};
use serde_json::{Value, json};

fn create(group: &str, kind: &str, mut object: Value) -> Value {
    let strategy = strategy(group, kind);
    strategy.default(&mut object);
    strategy.prepare_create(&mut object);
    object
}

fn update(group: &str, kind: &str, old: &Value, sub: Sub, change: impl FnOnce(&mut Value)) -> Value {
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
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    assert_eq!(pod["metadata"], json!({"name": "a", "generation": 1}));
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    for (containers, want) in [
        (json!([{}]), "BestEffort"),
        (json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
        (json!([{"resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
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
        assert_eq!(pod::qos_class(&json!({"containers": containers})), want, "{containers}");
    }
}

#[test]
fn each_endpoint_changes_its_half() {
    let old = create("apps", "Deployment", json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"replicas": 1}}));
    assert_eq!(old["metadata"]["generation"], 1);
    let change = |new: &mut Value| {
        new["spec"]["replicas"] = 5.into();
        new["status"] = json!({"replicas": 3});
        new["metadata"]["labels"] = json!({"a": "b"});
        new["metadata"]["generation"] = 77.into();
    };
    let main = update("apps", "Deployment", &old, Sub::Main, change);
    assert_eq!(
        (&main["spec"]["replicas"], &main["status"], &main["metadata"]["generation"]),
        (&json!(5), &Value::Null, &json!(2))
    );
    assert_eq!(main["metadata"]["labels"], json!({"a": "b"}));
    let status = update("apps", "Deployment", &old, Sub::Status, change);
    assert_eq!(
        (&status["spec"], &status["status"], &status["metadata"]["generation"]),
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
        let new = update("apps", "Deployment", &old, Sub::Main, |new| json_patch::merge(new, &change));
        assert_eq!(new["metadata"]["generation"], want, "{change}");
    }
    let old = create("", "ConfigMap", json!({"metadata": {"name": "a"}}));
    assert_eq!(
        update("", "ConfigMap", &old, Sub::Main, |new| new["data"] = json!({"a": "b"}))["metadata"]["generation"],
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
    let new = update("", "ConfigMap", &old, Sub::Main, |new| new["metadata"]["uid"] = "v".into());
    let errors = strategy("", "ConfigMap").validate_update(&new, &old, Sub::Main);
    assert_eq!(errors[0].to_string(), "metadata.uid: Invalid value: \"v\": field is immutable");
}

#[test]
fn a_namespace_is_active_and_held_by_its_finalizer() {
    let ns = create("", "Namespace", json!({"metadata": {"name": "x"}, "status": {"phase": "Terminating"}}));
    assert_eq!(ns["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(ns["status"]["phase"], "Active");
    let main = update("", "Namespace", &ns, Sub::Main, |new| new["spec"]["finalizers"] = json!([]));
    assert_eq!(main["spec"]["finalizers"], json!(["kubernetes"]));
    let finalize = update("", "Namespace", &ns, Sub::Other, |new| new["spec"]["finalizers"] = json!([]));
    assert_eq!(finalize["spec"]["finalizers"], json!([]));
}

#[test]
fn a_node_brings_its_status_along() {
    let node = create("", "Node", json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}}));
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
        (&kept["spec"]["clusterIP"], &kept["spec"]["ports"][0]["nodePort"]),
        (&json!("10.96.0.9"), &json!(30080))
    );
    let plain = update("", "Service", &old, Sub::Main, |new| new["spec"]["type"] = "ClusterIP".into());
    assert_eq!(
        (&plain["spec"]["externalTrafficPolicy"], &plain["spec"]["ports"][0]["nodePort"]),
        (&Value::Null, &Value::Null)
    );
    let external = update("", "Service", &old, Sub::Main, |new| new["spec"]["type"] = "ExternalName".into());
    assert_eq!((&external["spec"]["clusterIP"], &external["spec"]["clusterIPs"]), (&Value::Null, &Value::Null));
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
    let get = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
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
    assert!(strategy("", "Event").selectable(&event).contains(&("involvedObject.kind", "Pod".into())));
}

#[test]
fn unknown_kinds_get_the_generic_strategy() {
    let object =
        create("example.com", "Widget", json!({"metadata": {"name": "w"}, "spec": {"a": 1}, "status": {"b": 1}}));
    assert_eq!(object, json!({"metadata": {"name": "w", "generation": 1}, "spec": {"a": 1}}));
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
            assert_eq!(row.len(), strategy.columns.len(), "{group}/{kind} has a cell a column");
            for sub in [Sub::Main, Sub::Status, Sub::Scale, Sub::Other] {
                let mut changed = object.clone();
                strategy.prepare_update(&mut changed, &new, sub);
                strategy.validate_update(&changed, &new, sub);
            }
        }
    }
}

#[test]
fn binding_is_no_change_of_what_is_desired() {
    let old = create("", "Pod", json!({"metadata": {"name": "a"}, "spec": {"containers": []}}));
    let bound = update("", "Pod", &old, Sub::Other, |new| new["spec"]["nodeName"] = "n".into());
    assert_eq!(bound["metadata"]["generation"], 1);
    let debugged =
        update("", "Pod", &bound, Sub::Other, |new| new["spec"]["ephemeralContainers"] = json!([{"name": "e"}]));
    assert_eq!(debugged["metadata"]["generation"], 2);
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let env =
        json!({"containers": [{"env": [{"name": "A"}, {"name": "A"}], "resources": {"requests": {"memory": "100m"}}}]});
    let pod = json!({"metadata": {"name": "a.b"}, "spec": env});
    let said = strategy("", "Pod").warnings(&pod);
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].ends_with("a DNS label is recommended: [must not contain dots]"));
    assert_eq!(
        said[2],
        "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"
    );
    assert_eq!(
        said[1],
        "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer"
    );
    let deployment = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": env}}});
    assert!(
        strategy("apps", "Deployment").warnings(&deployment)[1].starts_with("spec.template.spec.containers[0].env[1]")
    );
}

/// Any JSON, weighted towards what manifests hold.
fn any_value() -> impl Strategist<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(0)),
        any::<f64>().prop_map(Value::from),
        "[-a-zA-Z0-9./:%@ ]{0,20}".prop_map(Value::from),
        prop::sample::select(vec!["", "Always", "NodePort", "None", "1Gi", "-1", "25%", "ClientIP", "\u{e4}"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Replaces the node that a walk of choices ends at.
fn replace(at: &mut Value, walk: &[u8], value: Value) {
    let size = match at {
        Value::Object(map) => map.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    let Some((step, rest)) = walk.split_first().filter(|_| size > 0) else {
        *at = value;
        return;
    };
    let index = usize::from(*step) % size;
    match at {
        Value::Object(map) => replace(map.values_mut().nth(index).expect("within"), rest, value),
        Value::Array(items) => replace(&mut items[index], rest, value),
        _ => {}
    }
}

#[test]
fn an_ip_address_is_named_by_its_address() {
    let strategy = strategy("networking.k8s.io", "IPAddress");
    let reference = json!({"group": "", "resource": "services", "namespace": "d", "name": "s"});
    for (name, problem) in [
        ("10.1.2.3", None),
        ("fe80::1", None),
        ("fe80:0::1", Some("must be in canonical form (\"fe80::1\")")),
        ("a.b", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
    ] {
        let object = json!({"metadata": {"name": name}, "spec": {"parentRef": reference}});
        let found: Vec<_> = strategy.validate(&object).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), usize::from(problem.is_some()), "{name}: {found:?}");
        assert!(problem.is_none_or(|problem| found[0].ends_with(problem)), "{name}: {found:?}");
    }
}

proptest! {
    #[test]
    fn no_hook_panics_on_a_damaged_object(walk in prop::collection::vec(any::<u8>(), 1..7), value in any_value(), row in 0..table::TABLE.len()) {
        let object = json!({"apiVersion": "v1", "metadata": {"name": "a", "generateName": "a-", "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["x/y"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u", "controller": true}], "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"replicas": 1, "type": "NodePort", "clusterIP": "1.2.3.4", "clusterIPs": ["1.2.3.4"], "sessionAffinity": "ClientIP", "taints": [{"key": "a"}],
                "ports": [{"port": 1, "targetPort": "a", "nodePort": 1}], "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
                "strategy": {"rollingUpdate": {"maxSurge": "1%"}}, "nodeName": "n", "finalizers": ["kubernetes"],
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a"}]}},
                "volumes": [{"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}],
                "initContainers": [{"name": "i", "restartPolicy": "Always"}],
                "containers": [{"name": "a", "image": "b:c@d", "ports": [{"containerPort": 1}], "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 1}}, "volumeMounts": [{"name": "v", "mountPath": "/"}]}],
                "tolerations": [{"key": "a"}], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{}]}]}}}},
            "status": {"phase": "Running", "capacity": {"cpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "a", "restartCount": 1, "state": {"terminated": {"exitCode": 1}}, "lastState": {"terminated": {"finishedAt": "2020-01-01T00:00:00Z"}}}]},
            "data": {"a": "b"}, "stringData": {"a": "b"}, "subsets": [{"addresses": [{"ip": "a"}], "ports": [{"port": 1}]}], "involvedObject": {"kind": "Pod", "name": "a"}});
        let mut damaged = object.clone();
        replace(&mut damaged, &walk, value);
        let strategy = &table::TABLE[row].2;
        for sub in [Sub::Main, Sub::Status, Sub::Other] {
            let mut new = damaged.clone();
            strategy.default(&mut new);
            strategy.prepare_update(&mut new, &object, sub);
            strategy.validate_update(&new, &object, sub);
            let mut new = object.clone();
            strategy.prepare_update(&mut new, &damaged, sub);
            strategy.validate_update(&new, &damaged, sub);
        }
        strategy.default(&mut damaged);
        let mut again = damaged.clone();
        strategy.default(&mut again);
        prop_assert_eq!(&again, &damaged, "defaulting is idempotent");
        strategy.prepare_create(&mut damaged);
        strategy.validate(&damaged);
        strategy.warnings(&damaged);
        strategy.selectable(&damaged);
        prop_assert_eq!(strategy.row(&damaged, Timestamp::UNIX_EPOCH).len(), strategy.columns.len());
    }
}
