//! Every Pod runs as a service account of its namespace, `default` unless it names another, and is given that account's token
//! (upstream's `ServiceAccount` plugin).
//!
//! The token comes as a projected volume `kube-api-access-xxxxx` with the cluster's root certificate and the namespace beside
//! it, mounted where in-cluster clients look. Pod and account can both opt out; the Pod's word counts more. An account with
//! the annotation `kubernetes.io/enforce-mountable-secrets` limits its Pods to the Secrets it names.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use wherry_api::meta;
use wherry_api::mirror::MIRROR;
use wherry_api::status::Status;
use wherry_store::Range;

use super::{Attributes, Operation, Plugin};
use crate::objects;
use crate::verbs::create::generate;

const ACCOUNTS: &str = "serviceaccounts";
const DEFAULT: &str = "default";
/// How long a Pod waits for the account that every namespace gets soon after it was made; upstream's ten tries take as long.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Where in-cluster clients look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
/// An hour, and a little by which the API server knows that nobody chose it.
const TOKEN_SECONDS: i64 = 3607;
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub(super) struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        // What a mirror Pod shows runs on its node anyway: it is not changed.
        if !attributes.creates("", "pods") || is_mirror(object) {
            return Ok(());
        }
        let spec = meta::map_mut(object, "spec");
        let name = account_name(spec).unwrap_or(DEFAULT).to_owned();
        let account = find(attributes, &name).await?;
        // The old name of the field mirrors the new one.
        spec.insert("serviceAccount".to_owned(), name.clone().into());
        spec.insert("serviceAccountName".to_owned(), name.into());
        if automounts(spec, &account) {
            mount(spec);
        }
        copy_pull_secrets(spec, &account);
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let creates = attributes.creates("", "pods");
        let debugs = attributes.resource.group.is_empty()
            && attributes.resource.plural == "pods"
            && attributes.operation == Operation::Update
            && attributes.subresource == "ephemeralcontainers";
        if !creates && !debugs {
            return Ok(());
        }
        if creates && is_mirror(object) {
            return check_mirror(&object["spec"]).map_err(|why| attributes.forbidden(why));
        }
        let name = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        let account = find(attributes, name).await?;
        if !enforces(&account) {
            return Ok(());
        }
        let lists: &[(&str, &str)] = match creates {
            true => &[("initContainers", "init container"), ("containers", "container")],
            false => &[("ephemeralContainers", "ephemeral container")],
        };
        let spec = object["spec"].as_object().cloned().unwrap_or_default();
        check_secrets(&spec, &account, lists, creates).map_err(|why| attributes.forbidden(why))
    }
}

fn is_mirror(pod: &Value) -> bool {
    meta::annotation(pod, MIRROR).is_some()
}

/// The account that the Pod names, by the field's new name or its old one.
fn account_name(spec: &Map<String, Value>) -> Option<&str> {
    let named = |key: &str| spec.get(key).and_then(Value::as_str).filter(|name| !name.is_empty());
    named("serviceAccountName").or_else(|| named("serviceAccount"))
}

/// The account; `default` is waited for, since its controller makes it a moment after the namespace.
async fn find(attributes: &Attributes<'_>, name: &str) -> Result<Value, Status> {
    let (engine, namespace) = (attributes.engine, attributes.namespace);
    let revision = engine.store.revision();
    let mut found = engine.lookup(ACCOUNTS, namespace, name);
    if found.is_none() && name == DEFAULT {
        let range = Range::all(ACCOUNTS).namespace(namespace).name(name);
        let mut changes = engine.store.watch(range, revision).map_err(|e| objects::store_status(&e))?;
        let made = async {
            while let Some(Ok(change)) = changes.next().await {
                if !change.deleted {
                    return Some(change.entry.clone());
                }
            }
            None
        };
        found = tokio::time::timeout(PATIENCE, made).await.ok().flatten();
    }
    let missing = || {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        attributes.forbidden(why)
    };
    let entry = found.ok_or_else(missing)?;
    objects::stored_tree(&entry)
}

fn automounts(spec: &Map<String, Value>, account: &Value) -> bool {
    let switch = |value: Option<&Value>| value.and_then(Value::as_bool);
    switch(spec.get("automountServiceAccountToken"))
        .or_else(|| switch(account.get("automountServiceAccountToken")))
        .unwrap_or(true)
}

/// Mounts the token into every container that has nothing of its own there.
fn mount(spec: &mut Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let present = volumes.iter().filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME));
    let given = present.map(str::to_owned);
    let name = given.clone().unwrap_or_else(|| generate(VOLUME));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != MOUNT_PATH) {
                mounts.push(json!({"mountPath": MOUNT_PATH, "name": name, "readOnly": true}));
                needed = true;
            }
        }
    }
    if needed && given.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(json!({"name": name, "projected": token_volume()}));
        }
    }
}

fn token_volume() -> Value {
    json!({
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
            {"downwardAPI": {"items": [
                {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"},
            ]}},
        ],
    })
}

/// A Pod without pull secrets has its account's.
fn copy_pull_secrets(spec: &mut Map<String, Value>, account: &Value) {
    let own = spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|own| !own.is_empty());
    let names: Vec<Value> = names(&account["imagePullSecrets"]).map(|name| json!({"name": name})).collect();
    if !own && !names.is_empty() {
        spec.insert("imagePullSecrets".to_owned(), names.into());
    }
}

fn names(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str())
}

/// Go's reading of a truth value.
fn enforces(account: &Value) -> bool {
    meta::annotation(account, ENFORCE).is_some_and(|v| ["1", "t", "T", "true", "TRUE", "True"].contains(&v))
}

/// Refuses Secrets that the account does not name. `whole`: not only in the containers of `lists`.
fn check_secrets(
    spec: &Map<String, Value>,
    account: &Value,
    lists: &[(&str, &str)],
    whole: bool,
) -> Result<(), String> {
    let items = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (of, mountable): (_, Vec<&str>) = (meta::name(account), names(&account["secrets"]).collect());
    let unnamed = |secret: &Value| secret.as_str().filter(|name| !mountable.contains(name)).map(str::to_owned);
    let refusal = |what: String| {
        Err(format!("{what} is not allowed because service account {of} does not reference that secret"))
    };
    for volume in items(spec.get("volumes").filter(|_| whole)) {
        if let Some(name) = unnamed(&volume["secret"]["secretName"]) {
            return refusal(format!("volume with secret.secretName=\"{name}\""));
        }
    }
    for (list, title) in lists {
        for container in items(spec.get(*list)) {
            let who = format!("{title} {}", container["name"].as_str().unwrap_or_default());
            for env in items(container.get("env")) {
                if let Some(name) = unnamed(&env["valueFrom"]["secretKeyRef"]["name"]) {
                    let variable = env["name"].as_str().unwrap_or_default();
                    return refusal(format!("{who} with envVar {variable} referencing secret.secretName=\"{name}\""));
                }
            }
            for source in items(container.get("envFrom")) {
                if let Some(name) = unnamed(&source["secretRef"]["name"]) {
                    return refusal(format!("{who} with envFrom referencing secret.secretName=\"{name}\""));
                }
            }
        }
    }
    let allowed: Vec<&str> = names(&account["imagePullSecrets"]).collect();
    for (n, secret) in items(spec.get("imagePullSecrets").filter(|_| whole)).iter().enumerate() {
        let name = secret["name"].as_str().unwrap_or_default();
        if !allowed.contains(&name) {
            return Err(format!(
                "imagePullSecrets[{n}].name=\"{name}\" is not allowed because service account {of} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// A mirror Pod has no account, no Secrets and no tokens.
fn check_mirror(spec: &Value) -> Result<(), &'static str> {
    if spec.as_object().is_some_and(|spec| account_name(spec).is_some()) {
        return Err("a mirror pod may not reference service accounts");
    }
    if mentions(
        spec,
        &["imagePullSecrets", "secretKeyRef", "secretRef", "nodePublishSecretRef", "secret", "secretName"],
    ) {
        return Err("a mirror pod may not reference secrets");
    }
    if mentions(&spec["volumes"], &["serviceAccountToken"]) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Whether one of `keys` stands anywhere in `tree` with something behind it.
fn mentions(tree: &Value, keys: &[&str]) -> bool {
    match tree {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            keys.contains(&key.as_str()) && !empty || mentions(value, keys)
        }),
        Value::Array(list) => list.iter().any(|value| mentions(value, keys)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn spec(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_pods_word_counts_more_than_the_accounts() {
        let key = "automountServiceAccountToken";
        for (pod, account, expected) in [
            (json!({}), json!({}), true),
            (json!({}), json!({key: false}), false),
            (json!({key: true}), json!({key: false}), true),
            (json!({key: false}), json!({key: true}), false),
        ] {
            assert_eq!(automounts(&spec(pod.clone()), &account), expected, "{pod} {account}");
        }
    }

    #[test]
    fn every_container_gets_the_token_that_has_nothing_there() {
        let own = json!([{"mountPath": MOUNT_PATH, "name": "own"}]);
        let mut mounted = spec(json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": own}],
        }));
        mount(&mut mounted);
        let volume = mounted["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with(VOLUME) && volume.len() == VOLUME.len() + 5, "{volume}");
        let expected = json!([{"mountPath": MOUNT_PATH, "name": volume, "readOnly": true}]);
        assert_eq!(mounted["initContainers"][0]["volumeMounts"], expected);
        assert_eq!(mounted["containers"][0]["volumeMounts"], expected);
        assert_eq!(mounted["containers"][1]["volumeMounts"], own);
        // Once more changes nothing; where nobody needs it there is no volume.
        let before = mounted.clone();
        mount(&mut mounted);
        assert_eq!(mounted, before);
        let mut none = spec(json!({"containers": [{"name": "b", "volumeMounts": own}]}));
        mount(&mut none);
        assert_eq!(none.get("volumes"), None);
    }

    #[test]
    fn secrets_are_limited_to_those_the_account_names() {
        let account = json!({
            "metadata": {"name": "sa"}, "secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "p"}],
        });
        let lists = [("initContainers", "init container"), ("containers", "container")];
        let env = |name: &str| json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
        let why = "is not allowed because service account sa does not reference that";
        for (pod, expected) in [
            (json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}), None),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "x"}}]}),
                Some(format!("volume with secret.secretName=\"x\" {why} secret")),
            ),
            (json!({"containers": [{"name": "c", "env": env("s")}]}), None),
            (
                json!({"initContainers": [{"name": "c", "env": env("x")}]}),
                Some(format!("init container c with envVar E referencing secret.secretName=\"x\" {why} secret")),
            ),
            (
                json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
                Some(format!("container c with envFrom referencing secret.secretName=\"x\" {why} secret")),
            ),
            (json!({"imagePullSecrets": [{"name": "p"}]}), None),
            (
                json!({"imagePullSecrets": [{"name": "s"}]}),
                Some(format!("imagePullSecrets[0].name=\"s\" {why} imagePullSecret")),
            ),
        ] {
            assert_eq!(check_secrets(&spec(pod.clone()), &account, &lists, true).err(), expected, "{pod}");
        }
    }

    #[test]
    fn a_mirror_pod_needs_nothing_of_an_account() {
        for (pod, good) in [
            (json!({"containers": [{"name": "c"}], "imagePullSecrets": []}), true),
            (json!({"serviceAccountName": "default"}), false),
            (json!({"volumes": [{"name": "v", "secret": {"secretName": "x"}}]}), false),
            (json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}]}), false),
            (json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}), false),
        ] {
            assert_eq!(check_mirror(&pod).is_ok(), good, "{pod}");
        }
    }
}
