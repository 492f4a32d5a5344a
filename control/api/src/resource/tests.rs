#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use serde_json::json;

#[test]
fn every_row_is_sound() {
    let registry = Registry::builtin();
    assert_eq!(registry.groups()[0].name, "");
    assert_eq!(registry.group("autoscaling").unwrap().versions[0].version, "v2");
    for resource in registry.resources() {
        assert_eq!(resource.schema.api_version(), resource.api_version());
        let found = registry.find(&resource.group, &resource.version, &resource.plural).unwrap();
        assert_eq!(found.kind, resource.kind);
        assert!(registry.by_kind(&resource.group, &resource.version, &resource.kind).is_some());
        assert!(registry.stored(&resource.storage.resource).is_some(), "{} has no stored version", resource.plural);
        assert_eq!(resource.storage.to_storage.is_some(), resource.storage.from_storage.is_some());
    }
    assert!(registry.find("", "v1", "deployments").is_none());
    assert!(registry.find("apps", "v2", "deployments").is_none());
}

#[test]
fn hashes_are_upstreams() {
    let registry = Registry::builtin();
    for (group, version, plural, hash) in [
        ("", "v1", "pods", "xPOwRZ+Yhw8="),
        ("apps", "v1", "controllerrevisions", "85nkx63pcBU="),
        ("events.k8s.io", "v1", "events", "r2yiGXH7wu8="),
    ] {
        assert_eq!(registry.find(group, version, plural).unwrap().storage_version_hash(), hash);
    }
}

#[test]
fn unknown_fields_cannot_be_selected_by() {
    let pods = Registry::builtin().find("", "v1", "pods").unwrap();
    for (selector, good) in
        [("metadata.name=a", true), ("spec.nodeName=a,status.phase!=Failed", true), ("spec.image=x", false)]
    {
        assert_eq!(pods.check_fields(&FieldSelector::parse(selector).unwrap()).is_ok(), good, "{selector}");
    }
    let pod = json!({"metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"}}, "spec": {"nodeName": "n"}});
    let attributes = pods.attributes(&pod);
    assert_eq!((attributes.field("spec.nodeName"), attributes.field("metadata.namespace")), ("n", "b"));
}
