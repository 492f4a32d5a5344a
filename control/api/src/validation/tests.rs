//! One table: a change to a good manifest, and the error that it brings.

use crate::strategy::{Sub, strategy};
use serde_json::{Value, json};

mod containers;
mod pods;
mod recorded;
mod services;

/// A good object of each kind.
fn good(kind: &str) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
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
    strategy.validate(&object).iter().map(ToString::to_string).collect()
}

#[test]
fn good_objects_are_good() {
    for kind in ["Pod", "Deployment", "ReplicaSet", "Job", "Service", "Secret", "ConfigMap", "Namespace", "Node"] {
        assert_eq!(errors(kind, good(kind)), Vec::<String>::new(), "{kind}");
    }
}

/// Each row: kind, pointer, value, what the error begins with.
fn check(rows: &[(&str, &str, Value, &str)]) {
    for (kind, pointer, value, want) in rows {
        let mut object = good(kind);
        set(&mut object, pointer, value.clone());
        let found = errors(kind, object);
        assert!(found.iter().any(|e| e.starts_with(want)), "{kind} {pointer}={value}: {found:#?}");
    }
}

#[test]
fn metadata() {
    check(&[
        ("Pod", "/metadata/name", json!(""), "metadata.name: Required value: name or generateName is required"),
        (
            "Pod",
            "/metadata/name",
            json!("Bad"),
            "metadata.name: Invalid value: \"Bad\": a lowercase RFC 1123 subdomain must consist of",
        ),
        ("Namespace", "/metadata/name", json!("a.b"), "metadata.name: Invalid value: \"a.b\": must not contain dots"),
        (
            "Service",
            "/metadata/name",
            json!("A"),
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of",
        ),
        ("ConfigMap", "/metadata/namespace", json!("A"), "metadata.namespace: Invalid value: \"A\""),
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
    strategy.validate_update(&new, &old, Sub::Main).iter().map(ToString::to_string).collect()
}

#[test]
fn what_may_change_and_what_may_not() {
    let fine: &[(&str, &str, Value)] = &[
        ("Pod", "/spec/containers/0/image", json!("i:2")),
        ("Pod", "/spec/initContainers/0/image", json!("i:2")),
        ("Pod", "/spec/activeDeadlineSeconds", json!(5)),
        ("Pod", "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}])),
        ("Pod", "/metadata/labels", json!({"a": "b"})),
        ("Deployment", "/spec/replicas", json!(5)),
        ("Deployment", "/spec/template/metadata/labels/more", json!("x")),
        ("Service", "/spec/ports/0/targetPort", json!(8080)),
        ("ConfigMap", "/data/a", json!("c")),
    ];
    for (kind, pointer, value) in fine {
        assert_eq!(update(kind, pointer, value.clone()), Vec::<String>::new(), "{kind} {pointer}");
    }
    let wrong: &[(&str, &str, Value, &str)] = &[
        (
            "Pod",
            "/spec/nodeName",
            json!("n"),
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
        ),
        ("Pod", "/spec/containers/0/env", json!([]), "spec: Forbidden: pod updates may not change fields other than"),
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
        ("Pod", "/metadata/name", json!("q"), "metadata.name: Invalid value: \"q\": field is immutable"),
        ("Pod", "/metadata/uid", json!("v"), "metadata.uid: Invalid value: \"v\": field is immutable"),
        (
            "Deployment",
            "/spec/selector/matchLabels",
            json!({"app": "a", "more": "x"}),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"more\":\"x\"}}: field is immutable",
        ),
        ("ReplicaSet", "/spec/selector/matchLabels", json!({"app": "b"}), "spec.selector: Invalid value"),
        (
            "Service",
            "/spec/clusterIP",
            json!("10.96.0.10"),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set",
        ),
        ("Secret", "/type", json!("x/y"), "type: Invalid value: \"x/y\": field is immutable"),
        ("Job", "/spec/template/spec/containers/0/image", json!("j"), "spec.template: Invalid value"),
    ];
    for (kind, pointer, value, want) in wrong {
        let found = update(kind, pointer, value.clone());
        assert!(found.iter().any(|e| e.starts_with(want)), "{kind} {pointer}={value}: {found:#?}");
    }
}

#[test]
fn what_is_fixed_stays() {
    let table = [
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            "/roleRef/name",
            "roleRef: Invalid value: {\"name\":\"new\"}: cannot change roleRef",
        ),
        ("storage.k8s.io", "StorageClass", "/provisioner", "provisioner: Invalid value: \"new\": field is immutable"),
        ("node.k8s.io", "RuntimeClass", "/handler", "handler: Invalid value: \"new\": field is immutable"),
        ("scheduling.k8s.io", "PriorityClass", "/value", "value: Forbidden: may not be changed in an update."),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            "/addressType",
            "addressType: Invalid value: \"new\": field is immutable",
        ),
    ];
    for (group, kind, pointer, want) in table {
        let mut old = json!({"metadata": {"name": "a"}});
        set(&mut old, pointer, "old".into());
        let mut new = old.clone();
        set(&mut new, pointer, "new".into());
        let errors = strategy(group, kind).validate_update(&new, &old, Sub::Main);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(errors.iter().any(|error| error == want), "{kind}: {errors:?}");
    }
}

#[test]
fn a_status_adds_up() {
    let status = |status: Value| {
        let new = json!({"metadata": {"name": "a"}, "status": status});
        strategy("apps", "ReplicaSet")
            .validate_update(&new, &new, Sub::Status)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert!(status(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1})).is_empty());
    assert_eq!(
        status(json!({"replicas": 1, "readyReplicas": 2})),
        ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
    );
    assert_eq!(
        status(json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2})),
        ["status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"]
    );
    let negative = status(json!({"replicas": -1}));
    assert_eq!(negative[0], "status.replicas: Invalid value: -1: must be greater than or equal to 0");
}

#[test]
fn immutable_data_stays() {
    let old = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "b"}});
    for (change, want) in [
        (json!({"immutable": false}), "immutable: Forbidden: field is immutable when `immutable` is set"),
        (json!({"data": {"a": "c"}}), "data: Forbidden: field is immutable when `immutable` is set"),
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
