#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;

fn read(path: &str) -> Value {
    serde_json::from_slice(&document(&Registry::builtin(), path).unwrap()).unwrap()
}

/// All `$ref`s in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.insert(reference.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_index_names_every_document() {
    let index: Value = serde_json::from_slice(&index(&Registry::builtin())).unwrap();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
    for (path, entry) in paths {
        assert!(entry["serverRelativeURL"].as_str().unwrap().starts_with(&format!("/openapi/v3/{path}?hash=")));
        let document = read(path);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{path}: {name} is missing");
        }
        let mut ids = BTreeSet::new();
        for operations in document["paths"].as_object().unwrap().values() {
            for (method, operation) in operations.as_object().unwrap() {
                if method != "parameters" {
                    let id = operation["operationId"].as_str().unwrap();
                    assert!(ids.insert(id.to_owned()), "{path}: {id} is there twice");
                }
            }
        }
    }
    for path in ["", "api", "api/v2", "apis/apps", "apis//v1", "apis/apps/v1/x"] {
        assert!(document(&Registry::builtin(), path).is_none(), "{path}");
    }
}

#[test]
fn every_kind_is_described() {
    for group in Registry::builtin().groups() {
        for version in &group.versions {
            let document = read(&document_path(&group.name, &version.version));
            for resource in &version.resources {
                let name = component_name(resource.schema.facts(), resource.schema.root());
                let schema = &document["components"]["schemas"][&name];
                assert!(schema["description"].is_string(), "{name} is not described");
                for field in ["spec", "data", "rules", "apiVersion"] {
                    let property = &schema["properties"][field];
                    assert!(
                        property.is_null() || property["description"].is_string(),
                        "{name}.{field} is not described"
                    );
                }
            }
        }
    }
}

#[test]
fn what_kubectl_reads() {
    let core = read("api/v1");
    let pod_spec = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    let containers = &pod_spec["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    let pod = &core["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    let port = &core["components"]["schemas"]["io.k8s.api.core.v1.ContainerPort"];
    assert_eq!(port["properties"]["protocol"]["default"], "TCP");
    assert_eq!(port["required"], json!(["containerPort"]));

    let apps = read("apis/apps/v1");
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
}

#[test]
fn answers_have_the_forms_that_are_served() {
    let core = read("api/v1");
    let forms = |path: &str, method: &str| -> Vec<String> {
        let content = core["paths"][path][method]["responses"]["200"]["content"].as_object().unwrap();
        content.keys().cloned().collect()
    };
    let whole = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
    let pods = "/api/v1/namespaces/{namespace}/pods";
    assert_eq!(forms(&format!("{pods}/{{name}}"), "put"), whole);
    assert_eq!(forms("/api/v1/componentstatuses", "get"), whole);
    for path in [pods, "/api/v1/pods"] {
        let found = forms(path, "get");
        let streams = found.iter().filter(|form| form.ends_with(";stream=watch")).count();
        assert_eq!((found.len(), streams), (5, 2), "{path}");
    }
}

#[test]
fn operations_are_named_as_upstream_names_them() {
    let core = read("api/v1");
    for (path, method, id) in [
        ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces"),
        ("/api/v1/nodes", "get", "listCoreV1Node"),
        ("/api/v1/namespaces/{namespace}/pods", "delete", "deleteCoreV1CollectionNamespacedPod"),
        ("/api/v1/namespaces/{name}", "get", "readCoreV1Namespace"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/log", "get", "readCoreV1NamespacedPodLog"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/exec", "post", "connectCoreV1PostNamespacedPodExec"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/eviction", "post", "createCoreV1NamespacedPodEviction"),
    ] {
        assert_eq!(core["paths"][path][method]["operationId"], id);
    }
    let rbac = read("apis/rbac.authorization.k8s.io/v1");
    let path = &rbac["paths"]["/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"];
    assert_eq!(path["put"]["operationId"], "replaceRbacAuthorizationV1ClusterRole");
}

#[test]
fn the_older_form() {
    let document: Value = serde_json::from_slice(&v2(&Registry::builtin())).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        assert!(document["definitions"][name].is_object(), "{name} is missing");
    }
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["type"] == "string"));
    assert!(parameters.iter().any(|p| p["in"] == "body" && p["schema"]["$ref"].is_string()));
    let options = &document["definitions"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    assert!(options["x-kubernetes-group-version-kind"].as_array().unwrap().len() > 10);
    let template = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["template"];
    assert_eq!(template["$ref"], "#/definitions/io.k8s.api.core.v1.PodTemplateSpec");
}

#[test]
fn fields_of_few_words_name_them() {
    let document = read("api/v1");
    let schemas = &document["components"]["schemas"];
    let of = |ty: &str, field: &str| schemas[&format!("io.k8s.api.core.v1.{ty}")]["properties"][field].clone();
    assert_eq!(of("ContainerPort", "protocol")["enum"], json!(["SCTP", "TCP", "UDP"]));
    assert_eq!(of("PersistentVolumeClaimSpec", "accessModes")["items"]["enum"][0], "ReadOnlyMany");
    assert_eq!(of("Container", "name")["enum"], Value::Null);
}
