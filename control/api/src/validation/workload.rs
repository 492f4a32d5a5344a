//! Kinds of apps/v1 and ReplicationController: what holds a Pod template and keeps Pods running
//! (upstream: `pkg/apis/apps/validation`).

use serde_json::{Value, json};

use super::{At, Errors, NOT_NEGATIVE, is_set, items, meta, names, not_negative, persistent, pod, scheduling, text};
use crate::selector::LabelSelector;
use crate::strategy::Sub;

/// Deployment.
pub(crate) fn deployment(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    replicated(spec, &at, "deployment", "ReplicaSet", errors);
    strategy(&spec["strategy"], &at.field("strategy"), errors);
    not_negative(&spec["revisionHistoryLimit"], &at.field("revisionHistoryLimit"), errors);
    let deadline = &spec["progressDeadlineSeconds"];
    let deadline_at = at.field("progressDeadlineSeconds");
    not_negative(deadline, &deadline_at, errors);
    if deadline.as_i64().is_some_and(|d| d <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
        errors.invalid(&deadline_at, deadline.clone(), "must be greater than minReadySeconds");
    }
}

/// ReplicaSet.
pub(crate) fn replica_set(object: &Value, errors: &mut Errors) {
    replicated(&object["spec"], &At::root("spec"), "deployment", "ReplicaSet", errors);
}

/// StatefulSet.
pub(crate) fn stateful_set(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    match text(spec, "podManagementPolicy") {
        "" => errors.required(&at.field("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&at.field("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    let (update, update_at) = (&spec["updateStrategy"], at.field("updateStrategy"));
    let rolling_at = update_at.field("rollingUpdate");
    match text(update, "type") {
        "" => errors.required(&update_at, ""),
        "OnDelete" if is_set(update, "rollingUpdate") => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&rolling_at, update["rollingUpdate"].clone(), why);
        }
        "OnDelete" => {}
        "RollingUpdate" => partition(&update["rollingUpdate"], &rolling_at, errors),
        _ => errors.invalid(&update_at, update.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let (retention, retention_at) =
        (&spec["persistentVolumeClaimRetentionPolicy"], at.field("persistentVolumeClaimRetentionPolicy"));
    if !retention.is_null() {
        for key in ["whenDeleted", "whenScaled"] {
            errors.one_of(&retention_at.field(key), text(retention, key), &["Retain", "Delete"]);
        }
    }
    let claims = items(spec, "volumeClaimTemplates");
    for (i, claim) in claims.iter().enumerate() {
        let at = at.field("volumeClaimTemplates");
        let at = at.index(i);
        persistent::claim_spec(&claim["spec"], &at.field("spec"), errors);
    }
    not_negative(&spec["ordinals"]["start"], &at.field("ordinals").field("start"), errors);
    if !text(spec, "serviceName").is_empty() {
        errors.rule(&at.field("serviceName"), text(spec, "serviceName"), names::label);
    }
    // Upstream looks at these twice, and calls them so.
    let metadata = &spec["template"]["metadata"];
    meta::labels(&metadata["labels"], &at.field("template.labels"), errors);
    meta::annotations(&metadata["annotations"], &at.field("template.annotations"), errors);
    // The controller adds a volume for each claim, and names the Pods itself.
    let mut spec = spec.clone();
    if let Some(pod) = spec.pointer_mut("/template/spec").and_then(Value::as_object_mut) {
        pod.remove("hostname");
        pod.remove("subdomain");
        if !claims.is_empty() {
            let own = pod.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
            let name = |item: &Value| text(item, "name").to_owned();
            let made = claims.iter().map(|claim| {
                let name = text(&claim["metadata"], "name");
                json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
            });
            let mut volumes: Vec<Value> = made.collect();
            let names: Vec<String> = volumes.iter().map(name).collect();
            volumes.extend(own.into_iter().filter(|volume| !names.contains(&name(volume))));
            pod.insert("volumes".to_owned(), volumes.into());
        }
    }
    replicated(&spec, &at, "statefulset", "StatefulSet", errors);
}

fn partition(update: &Value, at: &At, errors: &mut Errors) {
    not_negative(&update["partition"], &at.field("partition"), errors);
    let (unavailable, unavailable_at) = (&update["maxUnavailable"], at.field("maxUnavailable"));
    if !unavailable.is_null() {
        int_or_percent(unavailable, &unavailable_at, errors);
        if amount(unavailable) == Some(0) {
            errors.invalid(&unavailable_at, unavailable.clone(), "cannot be 0");
        }
    }
}

/// DaemonSet.
pub(crate) fn daemon_set(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    replicated(spec, &at, "daemonset", "DaemonSet", errors);
    not_negative(&spec["revisionHistoryLimit"], &at.field("revisionHistoryLimit"), errors);
    let (strategy, at) = (&spec["updateStrategy"], at.field("updateStrategy"));
    let (update, at_update) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" if update.is_null() => errors.required(&at_update, ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (&update["maxUnavailable"], &update["maxSurge"]);
            let (unavailable_at, surge_at) = (at_update.field("maxUnavailable"), at_update.field("maxSurge"));
            int_or_percent(unavailable, &unavailable_at, errors);
            int_or_percent(surge, &surge_at, errors);
            for (share, at) in [(unavailable, &unavailable_at), (surge, &surge_at)] {
                if share.is_string() && amount(share).is_some_and(|percent| percent > 100) {
                    errors.invalid(at, share.clone(), "must not be greater than 100%");
                }
            }
            match (amount(unavailable).unwrap_or(0) != 0, amount(surge).unwrap_or(0) != 0) {
                (true, true) => {
                    errors.invalid(&surge_at, surge.clone(), "may not be set when maxUnavailable is non-zero");
                }
                (false, false) => errors.required(&unavailable_at, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => errors.not_supported(&at, strategy.clone(), &["RollingUpdate", "OnDelete"]),
    }
}

/// ReplicationController: its selector is a plain map.
pub(crate) fn replication_controller(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    counts(spec, &at, errors);
    let selector = &spec["selector"];
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        errors.required(&at.field("selector"), "");
    }
    let template_at = at.field("template");
    if !is_set(spec, "template") {
        return errors.required(&template_at, "");
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if super::entries(selector).any(|(key, value)| labels[key.as_str()] != *value) {
        errors.invalid(
            &template_at.field("metadata.labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
    pod::template(&spec["template"], &template_at, errors);
    always(&spec["template"], &template_at, "ReplicationController", errors);
}

fn counts(spec: &Value, at: &At, errors: &mut Errors) {
    for key in ["replicas", "minReadySeconds"] {
        not_negative(&spec[key], &at.field(key), errors);
    }
}

/// What Deployment, ReplicaSet, StatefulSet and DaemonSet have in common; `kind` and `restarts` are how messages name it.
fn replicated(spec: &Value, at: &At, kind: &str, restarts: &str, errors: &mut Errors) {
    counts(spec, at, errors);
    let selector = &spec["selector"];
    let selector_at = at.field("selector");
    // DaemonSets came first; theirs was optional once.
    let daemons = kind == "daemonset";
    if selector.is_null() {
        if !daemons {
            errors.required(&selector_at, "");
        }
    } else {
        scheduling::label_selector(selector, &selector_at, errors);
        let labels = selector["matchLabels"].as_object().map_or(0, serde_json::Map::len);
        if labels + items(selector, "matchExpressions").len() == 0 {
            errors.invalid(&selector_at, selector.clone(), format!("empty selector is invalid for {kind}"));
        }
    }
    let template = &spec["template"];
    let template_at = at.field("template");
    match LabelSelector::from_object(Some(selector).filter(|s| !s.is_null())) {
        Err(_) if daemons => {
            pod::template(template, &template_at, errors);
            always(template, &template_at, restarts, errors);
        }
        Err(_) => {
            let why = if kind == "statefulset" { "" } else { "invalid label selector" };
            errors.invalid(&selector_at, selector.clone(), why);
        }
        Ok(parsed) => {
            let labels = &template["metadata"]["labels"];
            // A selector that is missing selects nothing.
            let selects = parsed.is_everything() || parsed.matches(&crate::meta::string_map(Some(labels)));
            if selector.is_null() || !selects {
                errors.invalid(
                    &template_at.field("metadata.labels"),
                    labels.clone(),
                    "`selector` does not match template `labels`",
                );
            }
            pod::template(template, &template_at, errors);
            always(template, &template_at, restarts, errors);
        }
    }
}

/// Pods of a controller that keeps them running restart always, without a deadline.
fn always(template: &Value, at: &At, kind: &str, errors: &mut Errors) {
    let (spec, at) = (&template["spec"], at.field("spec"));
    let policy = text(spec, "restartPolicy");
    if policy != "Always" {
        errors.not_supported(&at.field("restartPolicy"), policy, &["Always"]);
    }
    if is_set(spec, "activeDeadlineSeconds") {
        errors
            .forbidden(&at.field("activeDeadlineSeconds"), format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

fn strategy(strategy: &Value, at: &At, errors: &mut Errors) {
    let (update, update_at) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(strategy, "type") {
        "Recreate" => {
            if !update.is_null() {
                errors.forbidden(&update_at, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" if update.is_null() => errors.required(&update_at, "this should be defaulted and never be nil"),
        "RollingUpdate" => rolling_update(update, &update_at, errors),
        _ => errors.not_supported(at, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(update: &Value, at: &At, errors: &mut Errors) {
    let (unavailable, surge) = (&update["maxUnavailable"], &update["maxSurge"]);
    int_or_percent(unavailable, &at.field("maxUnavailable"), errors);
    int_or_percent(surge, &at.field("maxSurge"), errors);
    if amount(unavailable) == Some(0) && amount(surge) == Some(0) {
        errors.invalid(&at.field("maxUnavailable"), unavailable.clone(), "may not be 0 when `maxSurge` is 0");
    }
    if unavailable.is_string() && amount(unavailable).is_some_and(|percent| percent > 100) {
        errors.invalid(&at.field("maxUnavailable"), unavailable.clone(), "must not be greater than 100%");
    }
}

/// A number, or the number before the percent sign.
fn amount(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.strip_suffix('%')?.parse().ok())
}

/// A number that is not negative, or a share in per cent.
pub(crate) fn int_or_percent(value: &Value, at: &At, errors: &mut Errors) {
    match value {
        Value::String(share) => errors.rule(at, share, names::percent),
        Value::Number(n) if n.as_i64().is_some_and(|n| n < 0) => errors.invalid(at, value.clone(), NOT_NEGATIVE),
        _ => {}
    }
}

/// The counts of a status: those that are not negative, those not above `replicas`, and what is said of Pods that are available
/// but not ready.
struct Counts {
    all: &'static [&'static str],
    parts: &'static [&'static str],
    unready: &'static str,
}

fn counts_fit(new: &Value, old: &Value, sub: Sub, counts: &Counts, errors: &mut Errors) {
    if sub != Sub::Status {
        return;
    }
    let (status, at) = (&new["status"], At::root("status"));
    let of = |key: &str| status[key].as_i64().unwrap_or(0);
    for key in counts.all {
        not_negative(&status[*key], &at.field(key), errors);
    }
    for key in counts.parts.iter().filter(|key| of(key) > of("replicas")) {
        errors.invalid(&at.field(key), of(key), "cannot be greater than status.replicas");
    }
    if counts.parts.contains(&"availableReplicas") && of("availableReplicas") > of("readyReplicas") {
        errors.invalid(&at.field("availableReplicas"), of("availableReplicas"), counts.unready);
    }
    let key = "collisionCount";
    if counts.all.contains(&key) && old["status"][key].as_i64().is_some_and(|old| of(key) < old) {
        errors.invalid(&at.field(key), of(key), "cannot be decremented");
    }
}

/// The status of a Deployment.
pub(crate) fn deployment_status(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    const COUNTS: Counts = Counts {
        all: &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        parts: &["updatedReplicas", "readyReplicas", "availableReplicas"],
        unready: "cannot be greater than readyReplicas",
    };
    counts_fit(new, old, sub, &COUNTS, errors);
}

/// The status of a ReplicaSet or ReplicationController.
pub(crate) fn replicas_status(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    const COUNTS: Counts = Counts {
        all: &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ],
        parts: &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        unready: "cannot be greater than readyReplicas",
    };
    counts_fit(new, old, sub, &COUNTS, errors);
}

/// The status of a DaemonSet.
pub(crate) fn daemon_set_status(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    const COUNTS: Counts = Counts {
        all: &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
        parts: &[],
        unready: "",
    };
    counts_fit(new, old, sub, &COUNTS, errors);
}

/// StatefulSet: most of its spec stays as it is.
pub(crate) fn stateful_set_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    const COUNTS: Counts = Counts {
        all: &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        parts: &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        unready: "cannot be greater than status.readyReplicas",
    };
    counts_fit(new, old, sub, &COUNTS, errors);
    if sub != Sub::Main {
        return;
    }
    const MUTABLE: [&str; 7] = [
        "replicas",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
        "ordinals",
    ];
    let keys = super::entries(&new["spec"]).chain(super::entries(&old["spec"])).map(|(key, _)| key.as_str());
    let changed = |key: &str| !crate::strategy::same(&new["spec"][key], &old["spec"][key]);
    if keys.filter(|key| !MUTABLE.contains(key)).any(changed) {
        errors.forbidden(
            &At::root("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}
