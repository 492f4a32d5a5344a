//! What a new Job is given: labels and a selector by its uid (upstream: `pkg/registry/batch/job/strategy.go`).

use serde_json::{Map, Value, json};

use crate::defaults::{Object, child_or_new};

const BY_UID: &str = "batch.kubernetes.io/controller-uid";

/// Unless the selector is said to be chosen by hand, the Pods are told by the Job's uid.
pub(super) fn new_job(job: &mut Object) {
    let text =
        |job: &Object, key: &str| job.get("metadata").and_then(|m| m[key].as_str()).unwrap_or_default().to_owned();
    // Labels that are those of the template are the same labels: they get what it gets.
    let shared = job.get("metadata").map(|metadata| &metadata["labels"])
        == job.get("spec").map(|spec| &spec["template"]["metadata"]["labels"]);
    let (uid, name) = (text(job, "uid"), text(job, "name"));
    let Some(spec) = child_or_new(job, "spec") else { return };
    if spec.get("manualSelector") != Some(&Value::Bool(true)) {
        let Some(template) = child_or_new(spec, "template") else { return };
        let Some(metadata) = child_or_new(template, "metadata") else { return };
        let Some(labels) = child_or_new(metadata, "labels") else { return };
        for (key, value) in
            [(BY_UID, &uid), ("controller-uid", &uid), ("batch.kubernetes.io/job-name", &name), ("job-name", &name)]
        {
            // Another value is left, for validation to find.
            labels.entry(key).or_insert_with(|| value.as_str().into());
        }
        let selector = spec.entry("selector").or_insert(Value::Null);
        if !selector.is_object() {
            *selector = json!({});
        }
        let matching = selector["matchLabels"].take();
        let mut matching = match matching {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        matching.insert(BY_UID.to_owned(), uid.into());
        selector["matchLabels"] = matching.into();
    }
    let labels = spec.get("template").map(|template| template["metadata"]["labels"].clone()).unwrap_or_default();
    if let (Some(metadata), Value::Object(_)) = (child_or_new(job, "metadata"), &labels) {
        let own = metadata.get("labels").and_then(Value::as_object).is_some_and(|own| !own.is_empty());
        if !own || shared {
            metadata.insert("labels".to_owned(), labels);
        }
    }
}
