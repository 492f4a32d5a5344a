//! Roles and bindings: in force when written, kept as upstream has them, and no way to grant more than one holds.

use serde_json::{Value, json};
use wherry_server::User;

use crate::harness::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const LOCAL: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

async fn grant(api: &Api, user: &str, rules: Value) {
    api.post(&format!("{LOCAL}/roles"), &role(user, rules)).await.expect(201);
    api.post(&format!("{LOCAL}/rolebindings"), &binding(user, "Role", user, user)).await.expect(201);
}

fn user(name: &str) -> User {
    User::new(name, Vec::<String>::new())
}

#[tokio::test]
async fn a_role_is_in_force_when_it_is_written() {
    let api = Api::new().await;
    let ann = api.as_user(user("ann"));
    let binding = binding("b", "Role", "reader", "ann");
    for _ in 0..3 {
        ann.get(PODS).await.expect(403);
        api.post(&format!("{LOCAL}/rolebindings"), &binding).await.expect(201);
        let refused = ann.get(PODS).await.expect(403);
        assert_eq!(
            refused["message"],
            "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\": RBAC: role.rbac.authorization.k8s.io \"reader\" not found"
        );
        let reader = role("reader", json!([rule(&["list"], "", &["pods"])]));
        api.post(&format!("{LOCAL}/roles"), &reader).await.expect(201);
        ann.get(PODS).await.expect(200);
        let refused = ann.get("/api/v1/pods").await.expect(403);
        assert_eq!(
            refused["message"],
            "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        );
        api.delete(&format!("{LOCAL}/rolebindings/b"), None).await.expect(200);
        ann.get(PODS).await.expect(403);
        api.delete(&format!("{LOCAL}/roles/reader"), None).await.expect(200);
    }
    let refused = ann.get("/metrics").await.expect(403);
    assert_eq!(refused["message"], "forbidden: User \"ann\" cannot get path \"/metrics\"");
    // What everybody may.
    ann.get("/apis").await.expect(200);
    assert_eq!(ann.get("/readyz").await.text, "ok");
}

#[tokio::test]
async fn making_takes_the_verb_create_however_it_is_done() {
    let api = Api::new().await;
    let all = |verbs: &[&str]| json!([rule(verbs, "rbac.authorization.k8s.io", &["roles"])]);
    grant(&api, "ann", all(&["update", "patch"])).await;
    let ann = api.as_user(user("ann"));
    let path = format!("{LOCAL}/roles/new");
    let object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "new"}, "rules": [],
    });
    let put = async || ann.put(&path, &object).await;
    let apply = async || {
        let kind = [("content-type", "application/apply-patch+yaml")];
        ann.send("PATCH", &format!("{path}?fieldManager=test"), &kind, object.to_string()).await
    };
    let why = "roles.rbac.authorization.k8s.io \"new\" is forbidden: User \"ann\" cannot create resource \"roles\" in API group \"rbac.authorization.k8s.io\" in the namespace \"default\"";
    assert_eq!(put().await.expect(403)["message"], why);
    assert_eq!(apply().await.expect(403)["message"], why);
    api.merge(&format!("{LOCAL}/roles/ann"), &json!({"rules": all(&["update", "patch", "create"])})).await.expect(200);
    put().await.expect(201);
    api.delete(&path, None).await.expect(200);
    apply().await.expect(201);
}

#[tokio::test]
async fn default_roles_come_back() {
    let api = Api::new().await;
    let basic = format!("{RBAC}/clusterroles/system:basic-user");
    let before = api.get(&basic).await.expect(200);
    assert_eq!(before["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    api.merge(&basic, &json!({"rules": [rule(&["get"], "", &["pods"])]})).await.expect(200);
    let scheduler = format!("{RBAC}/clusterroles/system:kube-scheduler");
    let protected =
        json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": null});
    api.merge(&scheduler, &protected).await.expect(200);
    let discovery = format!("{RBAC}/clusterrolebindings/system:discovery");
    api.merge(&discovery, &json!({"subjects": null})).await.expect(200);
    api.delete(&format!("{RBAC}/clusterroles/view"), None).await.expect(200);

    api.server.bootstrap().await.unwrap();
    let after = api.get(&basic).await.expect(200);
    let rules = after["rules"].as_array().unwrap();
    assert_eq!(rules[0], rule(&["get"], "", &["pods"]), "what was added stays");
    assert!(rules.contains(&rule(&["create"], "authorization.k8s.io", &["selfsubjectaccessreviews"])));
    assert!(api.get(&scheduler).await.expect(200)["rules"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(api.get(&discovery).await.expect(200)["subjects"][0]["name"], "system:authenticated");
    api.get(&format!("{RBAC}/clusterroles/view")).await.expect(200);
    // All is there: a further start writes nothing.
    let before = api.get(&format!("{RBAC}/clusterroles")).await.expect(200);
    api.server.bootstrap().await.unwrap();
    assert_eq!(api.get(&format!("{RBAC}/clusterroles")).await.expect(200), before);
}

/// The cluster's own components hold their default roles and no more.
#[tokio::test]
async fn components_do_their_own_work_only() {
    let api = Api::new().await;
    let services = "/api/v1/namespaces/default/services";
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    // Who, method, path, whether it is let through.
    let table = [
        (User::component("kube-scheduler"), "GET", "/api/v1/pods", true),
        (User::component("kube-scheduler"), "POST", "/api/v1/namespaces/default/pods/p/binding", true),
        (User::component("kube-scheduler"), "POST", PODS, false),
        (User::component("kube-scheduler"), "GET", "/api/v1/secrets", false),
        (User::component("kube-controller-manager"), "GET", "/api/v1/secrets", true),
        (User::component("kube-controller-manager"), "POST", PODS, false),
        (User::controller("replicaset-controller"), "POST", PODS, true),
        (User::controller("replicaset-controller"), "POST", sets, false),
        (User::controller("deployment-controller"), "POST", sets, true),
        (User::controller("deployment-controller"), "POST", PODS, false),
        (User::controller("endpointslice-controller"), "GET", services, true),
        (User::controller("endpointslice-controller"), "POST", services, false),
        (User::controller("namespace-controller"), "DELETE", services, true),
        (User::controller("namespace-controller"), "POST", services, false),
        (User::service_account("default", "replicaset-controller"), "POST", PODS, false),
    ];
    for (user, method, path, through) in table {
        let name = user.name.clone();
        let json = [("content-type", "application/json")];
        let answer = api.as_user(user).send(method, &format!("{path}?dryRun=All"), &json, "{}").await;
        assert_eq!(answer.code != 403, through, "{name} {method} {path}: {}", answer.text);
    }
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let api = Api::new().await;
    let writer = rule(&["*"], "rbac.authorization.k8s.io", &["roles", "rolebindings"]);
    let narrow =
        rule(&["create", "get", "list", "update", "patch"], "rbac.authorization.k8s.io", &["roles", "rolebindings"]);
    grant(&api, "ann", json!([narrow, rule(&["get", "list"], "", &["pods"])])).await;
    let ann = api.as_user(user("ann"));
    let roles = format!("{LOCAL}/roles");

    ann.post(&roles, &role("same", json!([rule(&["get"], "", &["pods"])]))).await.expect(201);
    let more = json!([rule(&["get", "delete", "watch"], "", &["pods"]), rule(&["get"], "", &["secrets"])]);
    let refused = ann.post(&roles, &role("more", more.clone())).await.expect(403);
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    ann.merge(&format!("{roles}/same"), &json!({"rules": more})).await.expect(403);
    // Whoever only takes finalizers and owners away grants nothing.
    api.post(&roles, &json!({"metadata": {"name": "big", "finalizers": ["a/b"]}, "rules": more})).await.expect(201);
    ann.merge(&format!("{roles}/big"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    ann.merge(&format!("{roles}/big"), &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(403);

    // Bindings: of a role that is held, of one that is more, of one that is not there.
    let bindings = format!("{LOCAL}/rolebindings");
    ann.post(&bindings, &binding("same", "Role", "same", "bob")).await.expect(201);
    let refused = ann.post(&bindings, &binding("big", "Role", "big", "bob")).await.expect(403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .starts_with("rolebindings.rbac.authorization.k8s.io \"big\" is forbidden: user \"ann\"")
    );
    ann.post(&bindings, &binding("view", "ClusterRole", "system:aggregate-to-view", "bob")).await.expect(403);
    let missing = ann.post(&bindings, &binding("none", "Role", "none", "bob")).await.expect(404);
    assert_eq!(missing["message"], "role.rbac.authorization.k8s.io \"none\" not found");

    // The verb `bind` on one role, and `escalate` (as part of all verbs).
    let bind = json!({
        "verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "resourceNames": ["big"],
    });
    let holder = json!({"rules": [narrow, bind, rule(&["get"], "", &["pods"])]});
    api.merge(&format!("{roles}/ann"), &holder).await.expect(200);
    ann.post(&bindings, &binding("big", "Role", "big", "bob")).await.expect(201);
    ann.post(&roles, &role("more", more.clone())).await.expect(403);
    api.merge(&format!("{roles}/ann"), &json!({"rules": [writer]})).await.expect(200);
    ann.post(&roles, &role("more", more)).await.expect(201);

    // What gathers can gather anything.
    let gathers = |name: &str| json!({"metadata": {"name": name}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let maker = role("maker", json!([rule(&["create"], "rbac.authorization.k8s.io", &["clusterroles"])]));
    api.post(&format!("{RBAC}/clusterroles"), &maker).await.expect(201);
    let bound = binding("maker", "ClusterRole", "maker", "ann");
    api.post(&format!("{RBAC}/clusterrolebindings"), &bound).await.expect(201);
    let refused = ann.post(&format!("{RBAC}/clusterroles"), &gathers("g")).await.expect(403);
    assert!(
        refused["message"].as_str().unwrap().ends_with("must have cluster-admin privileges to use the aggregationRule")
    );
    api.post(&format!("{RBAC}/clusterroles"), &gathers("g")).await.expect(201);
}
