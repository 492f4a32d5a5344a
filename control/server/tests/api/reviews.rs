//! Reviews of access: what is answered to whom, and which questions are refused.

use serde_json::{Value, json};
use wherry_server::User;

use crate::harness::*;

const ROOT: &str = "/apis/authorization.k8s.io/v1";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

/// Somebody who may get and list Pods in `default`, under the API's own names.
async fn reader(api: &Api) -> Api {
    let rule = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]});
    api.post(&format!("{RBAC}/roles"), &json!({"metadata": {"name": "r"}, "rules": [rule]})).await.expect(201);
    let binding = json!({
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"},
            {"kind": "ServiceAccount", "name": "runner", "namespace": "default"},
        ],
    });
    api.post(&format!("{RBAC}/rolebindings"), &binding).await.expect(201);
    api.as_user(User::new("ann", Vec::<String>::new()))
}

fn get_pod(namespace: &str, name: &str) -> Value {
    json!({"verb": "get", "resource": "pods", "namespace": namespace, "name": name})
}

async fn ask(api: &Api, kind: &str, spec: Value) -> Value {
    api.post(&format!("{ROOT}/{kind}"), &json!({"spec": spec})).await.expect(201)["status"].clone()
}

#[tokio::test]
async fn access_is_reviewed_for_oneself_and_others() {
    let api = Api::new().await;
    let ann = reader(&api).await;
    let own = ask(&ann, "selfsubjectaccessreviews", json!({"resourceAttributes": get_pod("default", "p")})).await;
    let reason = "RBAC: allowed by RoleBinding \"b/default\" of Role \"r\" to User \"ann\"";
    assert_eq!(own, json!({"allowed": true, "reason": reason}));
    for (attributes, allowed) in [
        (json!({"resourceAttributes": get_pod("default", "q")}), false),
        (json!({"resourceAttributes": get_pod("kube-system", "p")}), false),
        (json!({"nonResourceAttributes": {"verb": "get", "path": "/version"}}), true),
        (json!({"nonResourceAttributes": {"verb": "post", "path": "/version"}}), false),
    ] {
        let status = ask(&ann, "selfsubjectaccessreviews", attributes.clone()).await;
        assert_eq!(status["allowed"], allowed, "{attributes}");
    }
    // About others only for those who may ask.
    let account =
        json!({"user": "system:serviceaccount:default:runner", "resourceAttributes": get_pod("default", "p")});
    let question = json!({"spec": account});
    ann.post(&format!("{ROOT}/subjectaccessreviews"), &question).await.expect(403);
    let status = ask(&api, "subjectaccessreviews", account.clone()).await;
    assert_eq!(
        status["reason"],
        "RBAC: allowed by RoleBinding \"b/default\" of Role \"r\" to ServiceAccount \"runner/default\""
    );
    let local = format!("{ROOT}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(api.post(&local, &question).await.expect(201)["status"]["allowed"], true);
    // Groups are what the question says, no more.
    let group = json!({"user": "x", "groups": ["system:masters"], "resourceAttributes": get_pod("", "")});
    assert_eq!(ask(&api, "subjectaccessreviews", group).await["allowed"], true);
    let public = json!({"nonResourceAttributes": {"verb": "get", "path": "/apis"}, "user": "x"});
    assert_eq!(ask(&api, "subjectaccessreviews", public).await["allowed"], false);
}

#[tokio::test]
async fn selectors_narrow_a_question() {
    let api = Api::new().await;
    let list = |selector: Value| {
        let attributes = json!({"verb": "list", "resource": "pods", "fieldSelector": selector});
        json!({"user": "system:node:a", "groups": ["system:nodes"], "resourceAttributes": attributes})
    };
    let own = json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["a"]}]});
    let other = json!({"rawSelector": "spec.nodeName=b"});
    let odd = json!({"requirements": [{"key": "spec.nodeName", "operator": "Near", "values": ["a"]}]});
    let refused = "can only list/watch pods with spec.nodeName field selector";
    let error = "spec.resourceAttributes.fieldSelector ignored due to parse error";
    for (selector, status) in [
        (own, json!({"allowed": true})),
        (other, json!({"allowed": false, "reason": refused})),
        (odd, json!({"allowed": false, "reason": refused, "evaluationError": error})),
    ] {
        assert_eq!(ask(&api, "subjectaccessreviews", list(selector.clone())).await, status, "{selector}");
    }
}

#[tokio::test]
async fn odd_questions_are_refused() {
    let api = Api::new().await;
    let paths = json!({"verb": "get", "path": "/"});
    let table = [
        (
            "selfsubjectaccessreviews",
            json!({"spec": {}}),
            "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (
            "subjectaccessreviews",
            json!({"spec": {"resourceAttributes": {}}}),
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ),
        (
            "selfsubjectaccessreviews",
            json!({"spec": {"resourceAttributes": {"fieldSelector": {}}}}),
            "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
        ),
        (
            "selfsubjectaccessreviews",
            json!({"spec": {"resourceAttributes": {"labelSelector": {"requirements": [{"key": "a", "operator": "In"}]}}}}),
            "spec.resourceAttributes.labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            "namespaces/default/localsubjectaccessreviews",
            json!({"spec": {"user": "x", "resourceAttributes": {"namespace": "y"}}}),
            "spec.resourceAttributes.namespace: Invalid value: \"y\": must match metadata.namespace",
        ),
    ];
    for (kind, question, text) in table {
        let refused = api.post(&format!("{ROOT}/{kind}"), &question).await.expect(422);
        assert!(refused["message"].as_str().unwrap().ends_with(text), "{refused}");
    }
    for (kind, question, field) in [
        (
            "selfsubjectaccessreviews",
            json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": paths}}),
            "spec.nonResourceAttributes",
        ),
        (
            "selfsubjectaccessreviews",
            json!({"metadata": {"name": "x"}, "spec": {"nonResourceAttributes": paths}}),
            "metadata",
        ),
        (
            "namespaces/default/localsubjectaccessreviews",
            json!({"spec": {"user": "x", "nonResourceAttributes": paths}}),
            "spec.nonResourceAttributes",
        ),
    ] {
        let refused = api.post(&format!("{ROOT}/{kind}"), &question).await.expect(422);
        assert_eq!(refused["details"]["causes"][0]["field"], field, "{refused}");
    }
}

#[tokio::test]
async fn rules_are_listed() {
    let api = Api::new().await;
    let ann = reader(&api).await;
    let spec = json!({"namespace": "default"});
    let status = ask(&ann, "selfsubjectrulesreviews", spec.clone()).await;
    let rules = status["resourceRules"].as_array().unwrap();
    assert!(rules.contains(
        &json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]})
    ));
    assert_eq!(status["incomplete"], false);
    assert!(status["nonResourceRules"].as_array().unwrap().iter().any(|rule| rule["nonResourceURLs"][0] == "/healthz"));
    let elsewhere = ask(&ann, "selfsubjectrulesreviews", json!({"namespace": "kube-system"})).await;
    assert_eq!(elsewhere["resourceRules"].as_array().unwrap().len(), rules.len() - 1);
    let node = ask(&api.as_user(User::node("a")), "selfsubjectrulesreviews", spec).await;
    assert_eq!(node["incomplete"], true);
    assert_eq!(node["evaluationError"], "node authorizer does not support user rule resolution");
    api.post(&format!("{ROOT}/selfsubjectrulesreviews"), &json!({"spec": {}})).await.expect(400);
}
