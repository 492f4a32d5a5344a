//! A namespaced user reaches nothing outside its roles: every row of the resource table and every part of it, verb by verb,
//! inside its namespace, in another one and at the cluster scope, over HTTP.
//!
//! The requests come from the registry, so that a new row is covered on its own. What each user may do is told by rules that the
//! test reads in a way of its own; a refusal must be the authorizer's, word for word.

use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use wherry_api::resource::{Registry, Resource};
use wherry_server::User;

use crate::harness::*;

const INSIDE: &str = "inside";
const OTHER: &str = "other";
const NAME: &str = "x";
const GROUP: &str = "rbac.authorization.k8s.io";

/// A request, and what the authorizer should make of it.
#[derive(Debug)]
struct Ask {
    verb: &'static str,
    method: &'static str,
    path: String,
    group: String,
    plural: String,
    /// With its part: `pods/log`.
    resource: String,
    /// Empty at the cluster scope.
    namespace: &'static str,
    name: &'static str,
}

/// Verb, method, whether it names an object, what its query begins with.
const VERBS: [(&str, &str, bool, &str); 8] = [
    ("get", "GET", true, ""),
    ("list", "GET", false, ""),
    ("watch", "GET", false, "watch=true&"),
    ("create", "POST", false, ""),
    ("update", "PUT", true, ""),
    ("patch", "PATCH", true, ""),
    ("delete", "DELETE", true, ""),
    ("deletecollection", "DELETE", false, ""),
];
const PARTS: [(&str, &str); 5] =
    [("get", "GET"), ("create", "POST"), ("update", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")];

fn asks(row: &Resource) -> Vec<Ask> {
    let root = if row.group.is_empty() {
        format!("/api/{}", row.version)
    } else {
        format!("/apis/{}/{}", row.group, row.version)
    };
    let namespaces = row.group.is_empty() && row.plural == "namespaces";
    let mut asks = Vec::new();
    let mut add = |verb, method, query: &str, namespace: &'static str, name: &'static str, part: &str| {
        let mut path = root.clone();
        if row.namespaced && !namespace.is_empty() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", row.plural);
        let mut resource = row.plural.clone();
        if !name.is_empty() {
            path += &format!("/{name}");
        }
        if !part.is_empty() {
            path += &format!("/{part}");
            resource += &format!("/{part}");
        }
        path += &format!("?{query}dryRun=All");
        let (group, plural) = (row.group.clone(), row.plural.clone());
        asks.push(Ask { verb, method, path, group, plural, resource, namespace, name });
    };
    // A Namespace is in itself, as far as roles are concerned.
    let named: &[(&'static str, &'static str)] = match (row.namespaced, namespaces) {
        (true, _) => &[(INSIDE, NAME), (OTHER, NAME)],
        (false, true) => &[(INSIDE, INSIDE), (OTHER, OTHER)],
        (false, false) => &[("", NAME)],
    };
    let collections: &[&'static str] = if row.namespaced { &[INSIDE, OTHER, ""] } else { &[""] };
    for (verb, method, names, query) in VERBS {
        if names {
            named.iter().for_each(|(namespace, name)| add(verb, method, query, namespace, name, ""));
        } else {
            collections.iter().for_each(|namespace| add(verb, method, query, namespace, "", ""));
        }
    }
    for part in &row.subresources {
        for (verb, method) in PARTS {
            named.iter().for_each(|(namespace, name)| add(verb, method, "", namespace, name, &part.name));
        }
    }
    asks
}

/// What a user holds: rules, and the namespace in which they hold (everywhere if none).
struct Case {
    user: User,
    grants: Vec<(Option<&'static str>, Value)>,
    /// Whether there is anything inside that it may do.
    something: bool,
}

impl Case {
    fn may(&self, ask: &Ask) -> bool {
        let lists = |rule: &Value, key: &str, wanted: &str| {
            rule[key].as_array().is_some_and(|list| list.iter().any(|item| item == "*" || item == wanted))
        };
        self.grants.iter().filter(|(namespace, _)| namespace.is_none_or(|n| n == ask.namespace)).any(|(_, rules)| {
            rules.as_array().unwrap().iter().any(|rule| {
                lists(rule, "verbs", ask.verb)
                    && lists(rule, "apiGroups", &ask.group)
                    && lists(rule, "resources", &ask.resource)
            })
        })
    }

    fn refusal(&self, ask: &Ask) -> String {
        let object = if ask.group.is_empty() { ask.plural.clone() } else { format!("{}.{}", ask.plural, ask.group) };
        let name = if ask.name.is_empty() { String::new() } else { format!(" {:?}", ask.name) };
        let place = match ask.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!(
            "{object}{name} is forbidden: User {:?} cannot {} resource {:?} in API group {:?} {place}",
            self.user.name, ask.verb, ask.resource, ask.group
        )
    }

    /// Sends every request; gives how many were let through, inside and elsewhere.
    async fn run(&self, api: &Api, asks: &[Ask]) -> (usize, usize) {
        let client = api.server.client(self.user.clone());
        let (mut inside, mut elsewhere) = (0, 0);
        for ask in asks {
            let content = if ask.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let body = if ask.method == "GET" { Vec::new() } else { b"{}".to_vec() };
            let request = Request::builder()
                .method(ask.method.parse::<Method>().unwrap())
                .uri(&ask.path)
                .header("content-type", content)
                .body(Body::from(body))
                .unwrap();
            let response = client.send(request).await.unwrap();
            // Watches that are let through go on: only a refusal is read.
            let message = if response.status() == 403 {
                let body = response.into_body().collect().await.unwrap().to_bytes();
                serde_json::from_slice::<Value>(&body).unwrap()["message"].as_str().unwrap().to_owned()
            } else {
                String::new()
            };
            let refusal = self.refusal(ask);
            if self.may(ask) {
                assert_ne!(message, refusal, "{ask:?}");
                let count = if ask.namespace == INSIDE { &mut inside } else { &mut elsewhere };
                *count += 1;
            } else {
                assert_eq!(message, refusal, "{ask:?}");
            }
        }
        (inside, elsewhere)
    }
}

async fn bind(api: &Api, user: &str, kind: &str, role: &str) {
    let binding = json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    });
    api.post(&format!("/apis/{GROUP}/v1/namespaces/{INSIDE}/rolebindings"), &binding).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespaced_user_reaches_nothing_outside_its_roles() {
    let api = Api::new().await;
    for name in [INSIDE, OTHER] {
        api.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.expect(201);
    }
    let narrow = json!([
        {"verbs": ["get", "list", "create"], "apiGroups": [""], "resources": ["pods", "pods/log", "configmaps"]},
        {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments/scale"]},
        {"verbs": ["patch"], "apiGroups": ["*"], "resources": ["leases"]},
        {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "namespaces", "persistentvolumes"]},
    ]);
    let wide = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    for (name, rules) in [("narrow", &narrow), ("wide", &wide)] {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        api.post(&format!("/apis/{GROUP}/v1/namespaces/{INSIDE}/roles"), &role).await.expect(201);
        bind(&api, name, "Role", name).await;
    }
    // The rules that the role `view` gathers; the controller that does so is not part of the server.
    bind(&api, "viewer", "ClusterRole", "system:aggregate-to-view").await;
    let rules_of =
        async |role: &str| api.get(&format!("/apis/{GROUP}/v1/clusterroles/{role}")).await.expect(200)["rules"].clone();
    let (view, basic) = (rules_of("system:aggregate-to-view").await, rules_of("system:basic-user").await);
    let user = |name: &str| User::new(name, Vec::<String>::new());
    let case = |name: &str, rules: Vec<Value>| Case {
        user: user(name),
        something: !rules.is_empty(),
        grants: rules.into_iter().map(|rules| (Some(INSIDE), rules)).chain([(None, basic.clone())]).collect(),
    };
    let cases = [
        case("narrow", vec![narrow]),
        case("wide", vec![wide]),
        case("viewer", vec![view]),
        case("nobody", vec![]),
        Case { user: User::anonymous(), grants: vec![], something: false },
    ];
    let registry = Registry::builtin();
    let all: Vec<Ask> = registry.resources().flat_map(|row| asks(row)).collect();
    // What everybody may do at the cluster scope: ask about themselves.
    let own_reviews = 3;
    let outcomes = futures::future::join_all(cases.iter().map(|case| case.run(&api, &all))).await;
    for (case, (inside, elsewhere)) in cases.iter().zip(outcomes) {
        let anonymous = case.grants.is_empty();
        assert_eq!(inside > 0, case.something, "{}: {inside}", case.user.name);
        assert_eq!(elsewhere, if anonymous { 0 } else { own_reviews }, "{}", case.user.name);
    }
}
