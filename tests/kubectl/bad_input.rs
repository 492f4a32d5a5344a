//! Bad input: the exact Status over HTTPS, the words that kubectl makes of it, and nothing stored.
//!
//! The many cases of decoding and validation are tested beside their code and in control/server/tests; here one of each kind
//! goes through TLS, authentication and a whole cluster.

use anyhow::{Context, Result, ensure};
use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};
use wherry_test::Cluster;

use crate::scene::Scene;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A request and what must come of it: code, reason, a part of the message, the causes' fields.
type Case<'a> = (Method, String, &'a str, String, u16, &'a str, &'a str, &'a [&'a str]);

/// Raw requests.
pub(crate) async fn over_the_wire(cluster: &Cluster) -> Result<()> {
    let admin = cluster.client().await?;
    let present = config_map("present", &json!({"k": "v"}));
    let (code, _, made) = send(&admin, Method::POST, MAPS, JSON, &[], present.clone()).await?;
    ensure!(code == 201, "{made}");
    let before = stored(&admin).await?;
    for (method, path, media, body, code, reason, part, fields) in cases(&made) {
        let what = format!("{method} {path} {media} {}", body.chars().take(120).collect::<String>());
        let (actual, _, status) = send(&admin, method, &path, media, &[], body).await?;
        let shown: String = status.to_string().chars().take(600).collect();
        ensure!(
            actual == code && status["code"] == code && status["kind"] == "Status" && status["apiVersion"] == "v1",
            "{what}: {actual} {shown}"
        );
        ensure!(status["status"] == "Failure" && status["reason"] == reason, "{what}: {status}");
        ensure!(status["message"].as_str().is_some_and(|message| message.contains(part)), "{what}: {status}");
        let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        for field in fields {
            ensure!(causes.iter().any(|cause| cause["field"] == *field), "{what}: no cause {field} in {status}");
        }
    }
    ensure!(stored(&admin).await? == before, "something was stored");

    unknown_and_duplicate_fields(&admin).await?;
    identity(cluster, &admin).await
}

fn cases(made: &Value) -> Vec<Case<'static>> {
    let (get, post, put, patch, delete) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let path = |collection: &str, rest: &str| format!("{collection}{rest}");
    let map = |name: &str| config_map(name, &json!({}));
    let old = {
        let mut old = made.clone();
        old["metadata"]["resourceVersion"] = "1".into();
        old.to_string()
    };
    let other_uid = json!({"preconditions": {"uid": "other"}}).to_string();
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x", "labels": {"a b": "c"}}, "spec": {
        "restartPolicy": "Sometimes",
        "containers": [{"name": "UPPER", "image": "i", "ports": [{"containerPort": 99999}]},
                       {"name": "c", "volumeMounts": [{"name": "none", "mountPath": "/m"}]}]}});
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"}, "spec": {
        "replicas": -1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c"}]}}}});
    let wrong_type = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"}, "spec": {"replicas": "three"}});
    vec![
        (
            get.clone(),
            "/nowhere".into(),
            JSON,
            String::new(),
            404,
            "NotFound",
            "could not find the requested resource",
            &[],
        ),
        (
            get.clone(),
            "/apis/example.com/v1/things".into(),
            JSON,
            String::new(),
            404,
            "NotFound",
            "could not find",
            &[],
        ),
        (get.clone(), path(PODS, "/none"), JSON, String::new(), 404, "NotFound", "pods \"none\" not found", &[]),
        (
            get,
            path(PODS, "?labelSelector=a%20in"),
            JSON,
            String::new(),
            400,
            "BadRequest",
            "unable to parse requirement",
            &[],
        ),
        (put.clone(), MAPS.into(), JSON, map("x"), 405, "MethodNotAllowed", "does not allow this method", &[]),
        (post.clone(), MAPS.into(), YAML, "a: [b".into(), 400, "BadRequest", "", &[]),
        (post.clone(), MAPS.into(), YAML, "kind: ConfigMap\n\tapiVersion: v1\n".into(), 400, "BadRequest", "", &[]),
        (post.clone(), MAPS.into(), JSON, "{\"kind\":".into(), 400, "BadRequest", "", &[]),
        (post.clone(), MAPS.into(), JSON, pod.to_string(), 400, "BadRequest", "Pod", &[]),
        (post.clone(), MAPS.into(), JSON, map("x").replace("\"v1\"", "\"v9\""), 400, "BadRequest", "v9", &[]),
        (post.clone(), DEPLOYMENTS.into(), JSON, wrong_type.to_string(), 400, "BadRequest", "spec.replicas", &[]),
        (
            post.clone(),
            MAPS.into(),
            JSON,
            map("x").replace("\"x\"", "\"x\",\"namespace\":\"other\""),
            400,
            "BadRequest",
            "does not match the namespace",
            &[],
        ),
        (
            post.clone(),
            "/api/v1/namespaces/none/configmaps".into(),
            JSON,
            map("x"),
            404,
            "NotFound",
            "namespaces \"none\" not found",
            &[],
        ),
        (
            post.clone(),
            MAPS.into(),
            JSON,
            map("present"),
            409,
            "AlreadyExists",
            "configmaps \"present\" already exists",
            &[],
        ),
        (
            post.clone(),
            MAPS.into(),
            JSON,
            config_map("x", &json!({"k": "v".repeat(3 << 20)})),
            413,
            "RequestEntityTooLarge",
            "limit is 3145728",
            &[],
        ),
        (
            post.clone(),
            MAPS.into(),
            JSON,
            config_map("x", &json!({"k": "v".repeat((1 << 20) + 1)})),
            422,
            "Invalid",
            "Too long",
            &[],
        ),
        (
            post.clone(),
            MAPS.into(),
            "text/plain",
            map("x"),
            415,
            "UnsupportedMediaType",
            "accepted media types include",
            &[],
        ),
        (
            post.clone(),
            MAPS.into(),
            JSON,
            map("Not_Valid"),
            422,
            "Invalid",
            "ConfigMap \"Not_Valid\" is invalid: metadata.name: Invalid value",
            &["metadata.name"],
        ),
        (
            post.clone(),
            PODS.into(),
            JSON,
            pod.to_string(),
            422,
            "Invalid",
            "Pod \"x\" is invalid: [",
            &[
                "metadata.labels",
                "spec.restartPolicy",
                "spec.containers[0].name",
                "spec.containers[0].ports[0].containerPort",
                "spec.containers[1].image",
                "spec.containers[1].volumeMounts[0].name",
            ],
        ),
        (
            post,
            DEPLOYMENTS.into(),
            JSON,
            deployment.to_string(),
            422,
            "Invalid",
            "Deployment.apps \"x\" is invalid",
            &["spec.replicas", "spec.template.metadata.labels", "spec.template.spec.containers[0].image"],
        ),
        (
            put.clone(),
            path(MAPS, "/present"),
            JSON,
            map("other"),
            400,
            "BadRequest",
            "does not match the name on the URL",
            &[],
        ),
        (put.clone(), path(MAPS, "/present"), JSON, old, 409, "Conflict", "the object has been modified", &[]),
        (
            put,
            path(PODS, "/none"),
            JSON,
            pod.to_string().replace("\"x\"", "\"none\""),
            404,
            "NotFound",
            "pods \"none\" not found",
            &[],
        ),
        (patch.clone(), path(MAPS, "/present"), "text/plain", "{}".into(), 415, "UnsupportedMediaType", "", &[]),
        (patch.clone(), path(MAPS, "/present"), MERGE, "[1".into(), 400, "BadRequest", "", &[]),
        (
            patch.clone(),
            path(MAPS, "/present"),
            MERGE,
            r#"{"data":{"not/valid":"x"}}"#.into(),
            422,
            "Invalid",
            "data[not/valid]",
            &["data[not/valid]"],
        ),
        (patch, path(MAPS, "/none"), MERGE, "{}".into(), 404, "NotFound", "configmaps \"none\" not found", &[]),
        (
            delete.clone(),
            path(MAPS, "/present"),
            JSON,
            other_uid,
            409,
            "Conflict",
            "the UID in the precondition (other) does not match the UID in record",
            &[],
        ),
        (
            delete,
            "/api/v1/namespaces/default".into(),
            JSON,
            String::new(),
            403,
            "Forbidden",
            "this namespace may not be deleted",
            &[],
        ),
    ]
}

/// Strict refuses them, Warn drops them with a warning header each, Ignore drops them.
async fn unknown_and_duplicate_fields(admin: &kube::Client) -> Result<()> {
    let odd = |name: &str| {
        format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}"}},"nope":1,"data":{{"a":"1","a":"2"}}}}"#
        )
    };
    let (code, _, status) =
        send(admin, Method::POST, &format!("{MAPS}?fieldValidation=Strict"), JSON, &[], odd("strict")).await?;
    let message = status["message"].as_str().unwrap_or_default();
    ensure!(code == 400 && status["reason"] == "BadRequest", "{status}");
    ensure!(
        message.contains("strict decoding error")
            && message.contains("unknown field \"nope\"")
            && message.contains("duplicate field \"data.a\""),
        "{status}"
    );
    let (code, _, _) = send(admin, Method::GET, &format!("{MAPS}/strict"), JSON, &[], String::new()).await?;
    ensure!(code == 404);
    let (code, warnings, made) =
        send(admin, Method::POST, &format!("{MAPS}?fieldValidation=Warn"), JSON, &[], odd("warn")).await?;
    ensure!(code == 201 && made["data"] == json!({"a": "2"}) && made.get("nope").is_none(), "{made}");
    ensure!(
        warnings == [r#"299 - "unknown field \"nope\"""#, r#"299 - "duplicate field \"data.a\"""#]
            || warnings.len() == 2,
        "{warnings:?}"
    );
    ensure!(
        warnings.iter().any(|w| w.contains("unknown field")) && warnings.iter().any(|w| w.contains("duplicate field")),
        "{warnings:?}"
    );
    let (code, warnings, _) =
        send(admin, Method::POST, &format!("{MAPS}?fieldValidation=Ignore"), JSON, &[], odd("ignore")).await?;
    ensure!(code == 201 && warnings.is_empty(), "{warnings:?}");
    let (code, _, status) =
        send(admin, Method::POST, &format!("{MAPS}?fieldValidation=Maybe"), JSON, &[], odd("maybe")).await?;
    ensure!(code == 422 && status["message"].as_str().is_some_and(|m| m.contains("fieldValidation")), "{status}");
    Ok(())
}

/// Without credentials and with wrong ones 401, with those of somebody who may not 403.
async fn identity(cluster: &Cluster, admin: &kube::Client) -> Result<()> {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    config.auth_info = kube::config::AuthInfo::default();
    let nobody = kube::Client::try_from(config)?;
    for (headers, path) in [
        (&[][..], PODS),
        (&[("authorization", "Bearer wrong")][..], PODS),
        (&[("authorization", "Bearer wrong")][..], "/version"),
    ] {
        let (code, _, status) = send(&nobody, Method::GET, path, JSON, headers, String::new()).await?;
        ensure!(code == 401 && status["reason"] == "Unauthorized" && status["message"] == "Unauthorized", "{status}");
    }
    let (code, _, version) = send(&nobody, Method::GET, "/version", JSON, &[], String::new()).await?;
    ensure!(code == 200 && version["minor"] == "36", "{version}");
    let as_bob = [("impersonate-user", "bob")];
    let (code, _, status) = send(admin, Method::POST, MAPS, JSON, &as_bob, config_map("of-bob", &json!({}))).await?;
    ensure!(code == 403 && status["reason"] == "Forbidden" && status["details"]["kind"] == "configmaps", "{status}");
    let message = r#"configmaps is forbidden: User "bob" cannot create resource "configmaps" in API group "" in the namespace "default""#;
    ensure!(status["message"] == message, "{status}");
    let (code, _, _) = send(admin, Method::GET, &format!("{MAPS}/of-bob"), JSON, &[], String::new()).await?;
    ensure!(code == 404);
    Ok(())
}

fn config_map(name: &str, data: &Value) -> String {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data}).to_string()
}

/// The names and versions of everything that the cases could have made or changed.
async fn stored(client: &kube::Client) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for path in [MAPS, PODS, DEPLOYMENTS] {
        let (_, _, list) = send(client, Method::GET, path, JSON, &[], String::new()).await?;
        let items = list["items"].as_array().with_context(|| format!("{path}: {list}"))?;
        all.extend(
            items
                .iter()
                .map(|item| format!("{path}/{} {}", item["metadata"]["name"], item["metadata"]["resourceVersion"])),
        );
    }
    // Whenever the namespace's controller makes it.
    all.retain(|name| !name.contains("kube-root-ca.crt"));
    Ok(all)
}

/// One request: the code, the warnings, the body.
async fn send(
    client: &kube::Client,
    method: Method,
    path: &str,
    media: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<(u16, Vec<String>, Value)> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", media);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(Body::from(body.into_bytes()))?).await?;
    let code = response.status().as_u16();
    let warnings = response
        .headers()
        .get_all("warning")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    let bytes = response.into_body().collect_bytes().await?;
    Ok((code, warnings, serde_json::from_slice(&bytes).with_context(|| String::from_utf8_lossy(&bytes).into_owned())?))
}

/// What kubectl says.
pub(crate) fn as_kubectl_tells_it(s: &Scene) -> Result<()> {
    // What begins with a brace is JSON to an older kubectl.
    let refuses = |line: &str, input: &str, parts: &[&str]| s.refuses_input(line, &format!("# YAML\n{input}"), parts);
    refuses("apply -f -", "a: [b", &["error converting YAML to JSON: yaml: line 2"])?;
    for (api_version, kind) in [("v1", "Bogus"), ("example.com/v1", "Thing")] {
        let input = format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: x}}}}");
        let said = format!("no matches for kind \"{kind}\" in version \"{api_version}\"");
        refuses("apply --validate=false -f -", &input, &[&said, "ensure CRDs are installed first"])?;
        // With validation kubectl first looks for a custom resource of the name, which this server does not know yet.
        refuses("apply -f -", &input, &["error"])?;
    }
    refuses("apply -f -", "{apiVersion: v1, metadata: {name: x}}", &["kind"])?;
    let unknown = "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: c, image: i, imagee: z}], nope: 1}}";
    refuses(
        "apply -f -",
        unknown,
        &[
            "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imagee\", unknown field \"spec.nope\"",
        ],
    )?;
    let unknown = format!("# YAML\n{unknown}");
    let warned = s.kubectl.feed("create --dry-run=server --validate=warn -f -", &unknown)?;
    ensure!(warned.success && warned.stderr.contains("Warning: unknown field \"spec.nope\""), "{warned:?}");
    let ignored = s.kubectl.feed("create --dry-run=server --validate=ignore -f -", &unknown)?;
    ensure!(ignored.success && ignored.stderr.is_empty(), "{ignored:?}");
    refuses(
        "apply -f -",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: UPPER, image: i}]}}}}",
        &[
            "The Deployment \"d\" is invalid: \n",
            "* spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "* spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
            "* spec.template.spec.containers[0].name: Invalid value: \"UPPER\": a lowercase RFC 1123 label must consist of",
        ],
    )?;
    refuses(
        "apply -f -",
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i, resources: {limits: {cpu: lots}}}]}}",
        &["(BadRequest)", "quantities must match the regular expression"],
    )?;
    refuses(
        "apply -f -",
        "{apiVersion: v1, kind: Secret, metadata: {name: p}, data: {a: 'not base64!'}}",
        &["(BadRequest)", "illegal base64 data at input byte 3"],
    )?;
    refuses(
        "apply -f -",
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {clusterIP: 8.8.8.8, ports: [{port: 80}]}}",
        &[
            "The Service \"s\" is invalid: spec.clusterIPs[0]: Invalid value: \"8.8.8.8\": failed to allocate IP 8.8.8.8",
            "The range of valid IPs is 10.96.0.0/16",
        ],
    )?;
    refuses(
        "create -f -",
        "{apiVersion: v1, kind: Namespace, metadata: {name: default}}",
        &["(AlreadyExists)", "namespaces \"default\" already exists"],
    )?;
    refuses(
        "create -f - -n none",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: p}}",
        &["namespaces \"none\" not found"],
    )?;
    refuses(
        "create -f -",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: p, namespace: default}}",
        &["the namespace from the provided object \"default\" does not match the namespace"],
    )?;
    s.refuses("get pods --field-selector=a=b", &["(BadRequest)", "field label not supported: a"])?;
    s.refuses(
        "delete namespace default",
        &["(Forbidden)", "namespaces \"default\" is forbidden: this namespace may not be deleted"],
    )?;
    s.refuses(
        "get nodes --as bob",
        &["nodes is forbidden: User \"bob\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"],
    )?;
    s.refuses("create deployment d --image=", &["spec.template.spec.containers"])
        .or_else(|_| s.refuses("create deployment d --image=", &["image"]))?;
    s.says("get all,secrets", &["No resources found"])?;
    Ok(())
}
