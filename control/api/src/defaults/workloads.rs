//! Defaults of the kinds that hold a Pod template.

use super::*;
use Lit::*;

/// Deployment.
pub(crate) fn deployment(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(spec, &[("replicas", Int(1)), ("revisionHistoryLimit", Int(10)), ("progressDeadlineSeconds", Int(600))]);
    update_strategy(spec, "strategy", &[("maxUnavailable", Str("25%")), ("maxSurge", Str("25%"))]);
    template(spec);
}

/// ReplicaSet.
pub(crate) fn replica_set(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(spec, &[("replicas", Int(1))]);
    template(spec);
}

/// DaemonSet.
pub(crate) fn daemon_set(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(spec, &[("revisionHistoryLimit", Int(10))]);
    update_strategy(spec, "updateStrategy", &[("maxUnavailable", Int(1)), ("maxSurge", Int(0))]);
    template(spec);
}

/// StatefulSet.
pub(crate) fn stateful_set(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(
        spec,
        &[("podManagementPolicy", Str("OrderedReady")), ("replicas", Int(1)), ("revisionHistoryLimit", Int(10))],
    );
    update_strategy(spec, "updateStrategy", &[("partition", Int(0))]);
    if let Some(retention) = child_or_new(spec, "persistentVolumeClaimRetentionPolicy") {
        fill(retention, &[("whenDeleted", Str("Retain")), ("whenScaled", Str("Retain"))]);
    }
    template(spec);
    each(spec, "volumeClaimTemplates", |claim| {
        fill(claim, &[("apiVersion", Str("v1")), ("kind", Str("PersistentVolumeClaim"))]);
        claim_object(claim);
    });
}

/// ReplicationController: the selector and labels come from the template.
pub(crate) fn replication_controller(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(spec, &[("replicas", Int(1))]);
    // Its template is a pointer in Go: what is missing stays so, and is complained of.
    if child(spec, "template").is_some() {
        template(spec);
    }
    let labels = template_labels(spec);
    if !labels.is_empty() && is_empty(spec, "selector") {
        spec.insert("selector".into(), Value::Object(labels.clone()));
    }
    inherit_labels(object, labels);
}

/// Job.
pub(crate) fn job(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    job_spec(spec);
    let labels = template_labels(spec);
    inherit_labels(object, labels);
}

/// CronJob.
pub(crate) fn cron_job(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    fill(
        spec,
        &[
            ("concurrencyPolicy", Str("Allow")),
            ("suspend", Bool(false)),
            ("successfulJobsHistoryLimit", Int(3)),
            ("failedJobsHistoryLimit", Int(1)),
        ],
    );
    if let Some(job) = child_or_new(spec, "jobTemplate")
        && let Some(spec) = child_or_new(job, "spec")
    {
        // A Job's own defaults are given when the Job is made; here only those of its Pods.
        template(spec);
    }
}

/// PodTemplate.
pub(crate) fn pod_template(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        template(object);
    }
}

fn job_spec(spec: &mut Object) {
    let unset = |spec: &Object, key: &str| spec.get(key).is_none_or(Value::is_null);
    if unset(spec, "completions") && unset(spec, "parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    let backoff = if unset(spec, "backoffLimitPerIndex") { 6 } else { i64::from(i32::MAX) };
    let replacement = if unset(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    fill(
        spec,
        &[
            ("parallelism", Int(1)),
            ("backoffLimit", Int(backoff)),
            ("completionMode", Str("NonIndexed")),
            ("suspend", Bool(false)),
            ("podReplacementPolicy", Str(replacement)),
            ("manualSelector", Bool(false)),
        ],
    );
    if let Some(policy) = child(spec, "podFailurePolicy") {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| fill(pattern, &[("status", Str("True"))]))
        });
    }
    template(spec);
}

/// A strategy's type, and the fields of `rollingUpdate` if it is one.
fn update_strategy(spec: &mut Object, key: &str, rolling: &[(&str, Lit)]) {
    let Some(strategy) = child_or_new(spec, key) else {
        return;
    };
    fill(strategy, &[("type", Str("RollingUpdate"))]);
    if text(strategy, "type") == "RollingUpdate"
        && let Some(update) = child_or_new(strategy, "rollingUpdate")
    {
        fill(update, rolling);
    }
}

fn template_labels(spec: &Object) -> Object {
    let labels = spec.get("template").and_then(|t| t.get("metadata")).and_then(|m| m.get("labels"));
    labels.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn inherit_labels(object: &mut Value, labels: Object) {
    if labels.is_empty() {
        return;
    }
    if let Some(metadata) = object.as_object_mut().and_then(|o| child_or_new(o, "metadata"))
        && is_empty(metadata, "labels")
    {
        metadata.insert("labels".into(), Value::Object(labels));
    }
}
