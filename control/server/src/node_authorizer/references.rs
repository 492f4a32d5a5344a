//! What Pods and volumes refer to, as kubelet would need it to run them.

use serde_json::Value;
use wherry_api::meta;
use wherry_api::mirror::MIRROR;

/// What is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Reference {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Fields of environment variables and volumes that name an object: the field, what it is, and where in it the name is (in
/// itself if empty).
const FIELDS: [(&str, Kind, &str); 10] = [
    ("secretKeyRef", Kind::Secret, "name"),
    ("secretRef", Kind::Secret, "name"),
    ("nodePublishSecretRef", Kind::Secret, "name"),
    ("secretName", Kind::Secret, ""),
    // Of a projected volume; of a Secret volume the name is `secretName`.
    ("secret", Kind::Secret, "name"),
    ("configMapKeyRef", Kind::ConfigMap, "name"),
    ("configMapRef", Kind::ConfigMap, "name"),
    ("configMap", Kind::ConfigMap, "name"),
    ("persistentVolumeClaim", Kind::Claim, "claimName"),
    ("serviceAccountName", Kind::ServiceAccount, ""),
];

/// What a Pod refers to, each once. A mirror Pod refers to nothing: its node made it, and would give itself access.
pub(super) fn of_pod(pod: &Value) -> Vec<Reference> {
    let mut found = Vec::new();
    if meta::annotation(pod, MIRROR).is_some() {
        return found;
    }
    let namespace = meta::namespace(pod);
    let mut add = |kind, name: &str| {
        let reference = Reference::new(kind, namespace, name);
        if !name.is_empty() && !found.contains(&reference) {
            found.push(reference);
        }
    };
    let spec = &pod["spec"];
    if let Some(account) = spec["serviceAccountName"].as_str() {
        add(Kind::ServiceAccount, account);
    }
    for secret in items(&spec["imagePullSecrets"]) {
        add(Kind::Secret, secret["name"].as_str().unwrap_or_default());
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(&spec[key]) {
            visit(&container["env"], &mut add);
            visit(&container["envFrom"], &mut add);
        }
    }
    for volume in items(&spec["volumes"]) {
        visit(volume, &mut add);
        if volume["ephemeral"].is_object() {
            let claim = format!("{}-{}", meta::name(pod), volume["name"].as_str().unwrap_or_default());
            add(Kind::Claim, &claim);
        }
    }
    found
}

/// The claim that a volume is bound to.
pub(super) fn claim_of_volume(volume: &Value) -> Option<Reference> {
    let claim = &volume["spec"]["claimRef"];
    Some(Reference::new(Kind::Claim, claim["namespace"].as_str()?, claim["name"].as_str()?))
}

/// The node on whose disk a volume of the class local-path lies.
pub(super) fn keeper_of_volume(volume: &Value) -> Option<String> {
    let made_by = wherry_api::meta::annotation(volume, "pv.kubernetes.io/provisioned-by");
    let term = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    let node = term["values"][0].as_str().filter(|_| term["key"] == "kubernetes.io/hostname")?;
    (made_by == Some("wherry.dev/local-path")).then(|| node.to_owned())
}

/// The secrets that a node needs to mount a volume; those of the controller are none of its business.
pub(super) fn secrets_of_volume(volume: &Value) -> Vec<Reference> {
    let spec = &volume["spec"];
    let own = spec["claimRef"]["namespace"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    for source in spec.as_object().into_iter().flat_map(|spec| spec.values()).filter_map(Value::as_object) {
        let named = |value: &Value, name: &str, namespace: &str| {
            let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            Some(Reference::new(Kind::Secret, &text(namespace).unwrap_or_else(|| own.to_owned()), &text(name)?))
        };
        let azure = Value::Object(source.clone());
        found.extend(named(&azure, "secretName", "secretNamespace"));
        for (key, value) in source {
            if matches!(
                key.as_str(),
                "secretRef" | "nodePublishSecretRef" | "nodeStageSecretRef" | "nodeExpandSecretRef"
            ) {
                found.extend(named(value, "name", "namespace"));
            }
        }
    }
    found
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Finds the [`FIELDS`] in a tree.
fn visit(tree: &Value, add: &mut impl FnMut(Kind, &str)) {
    match tree {
        Value::Array(list) => list.iter().for_each(|item| visit(item, add)),
        Value::Object(map) => {
            for (key, value) in map {
                if let Some((_, kind, name)) = FIELDS.iter().find(|(field, ..)| field == key) {
                    let name = if name.is_empty() { value } else { &value[name] };
                    add(*kind, name.as_str().unwrap_or_default());
                }
                visit(value, add);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_a_pod_names_is_found() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "serviceAccountName": "a", "imagePullSecrets": [{"name": "pull"}],
                "nodeSelector": {"secretName": "no"},
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "m1"}}]}],
                "containers": [{"name": "c", "env": [
                    {"name": "x", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                    {"name": "y", "valueFrom": {"configMapKeyRef": {"name": "m2", "key": "k"}}},
                    {"name": "z", "valueFrom": {"configMapKeyRef": {"name": "m2", "key": "l"}}},
                ]}],
                "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "s3"}}]}],
                "volumes": [
                    {"name": "v1", "secret": {"secretName": "s4"}},
                    {"name": "v2", "configMap": {"name": "m3"}},
                    {"name": "v3", "projected": {"sources": [{"secret": {"name": "s5"}}, {"configMap": {"name": "m4"}}]}},
                    {"name": "v4", "persistentVolumeClaim": {"claimName": "c1"}},
                    {"name": "v5", "ephemeral": {"volumeClaimTemplate": {}}},
                    {"name": "v6", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s6"}}},
                ],
            },
        });
        let mut found: Vec<String> =
            of_pod(&pod).iter().map(|r| format!("{:?} {}/{}", r.kind, r.namespace, r.name)).collect();
        found.sort();
        let expected = [
            "Claim n/c1",
            "Claim n/p-v5",
            "ConfigMap n/m1",
            "ConfigMap n/m2",
            "ConfigMap n/m3",
            "ConfigMap n/m4",
            "Secret n/pull",
            "Secret n/s1",
            "Secret n/s2",
            "Secret n/s3",
            "Secret n/s4",
            "Secret n/s5",
            "Secret n/s6",
            "ServiceAccount n/a",
        ];
        assert_eq!(found, expected);
        let mut mirror = pod;
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        assert_eq!(of_pod(&mirror), []);
    }

    #[test]
    fn volumes_name_their_claim_and_secrets() {
        let volume = json!({"spec": {
            "claimRef": {"namespace": "n", "name": "c"},
            "csi": {
                "nodeStageSecretRef": {"name": "a", "namespace": "x"}, "nodePublishSecretRef": {"name": "b"},
                "controllerPublishSecretRef": {"name": "no", "namespace": "x"},
            },
        }});
        assert_eq!(claim_of_volume(&volume), Some(Reference::new(Kind::Claim, "n", "c")));
        let mut names: Vec<_> = secrets_of_volume(&volume).into_iter().map(|s| (s.namespace, s.name)).collect();
        names.sort();
        assert_eq!(names, [("n".to_owned(), "b".to_owned()), ("x".to_owned(), "a".to_owned())]);
        assert_eq!(claim_of_volume(&json!({"spec": {}})), None);
    }
}
