//! Job and CronJob (upstream: `pkg/apis/batch/validation`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::rbac::required;
use super::{At, Errors, is_set, items, job_status, names, not_negative, pod, scheduling, text};
use crate::cron::{Schedule, is_zone};
use crate::selector::LabelSelector;
use crate::strategy::{Sub, same};

/// Above so many completions the limits of an indexed Job are lower.
const MANY_COMPLETIONS: i64 = 100_000;
const FEW_PARALLEL: i64 = 10_000;
/// The most Pods, and failed indexes, of an indexed Job.
const MOST: i64 = 100_000;

/// Job.
pub(crate) fn job(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    generated(object, errors);
    job_spec(spec, &at, errors);
    let selector_at = at.field("selector");
    if is_set(spec, "selector") {
        scheduling::label_selector(&spec["selector"], &selector_at, errors);
    } else {
        errors.required(&selector_at, "");
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let selector = LabelSelector::from_object(Some(&spec["selector"]).filter(|selector| !selector.is_null()));
    let matches = |selector: &LabelSelector| selector.matches(&crate::meta::string_map(Some(labels)));
    if selector.is_ok_and(|selector| spec["selector"].is_null() || !matches(&selector)) {
        let why = "`selector` does not match template `labels`";
        errors.invalid(&at.field("template").field("metadata.labels"), labels.clone(), why);
    }
    // The index is the end of the Pods' host names.
    let (name, completions) = (text(&object["metadata"], "name"), spec["completions"].as_i64().unwrap_or(0));
    if is_indexed(spec) && completions > 0 {
        let longest = format!("{name}-{}", completions - 1);
        if !names::label(&longest).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {longest}");
            errors.invalid(&At::root("metadata.name"), name, why);
        }
    }
}

/// A selector that is not chosen by hand selects by the labels that each Job gives its Pods.
fn generated(job: &Value, errors: &mut Errors) {
    let (metadata, spec) = (&job["metadata"], &job["spec"]);
    if spec["manualSelector"] == true || !is_set(spec, "selector") {
        return;
    }
    let (uid, name) = (text(metadata, "uid"), text(metadata, "name"));
    let labels = &spec["template"]["metadata"]["labels"];
    let labels_at = At::root("spec.template.metadata.labels");
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (key, value) in expected {
        match labels.get(key).and_then(Value::as_str) {
            None => errors.required(&labels_at.key(key), format!("must be '{value}'")),
            Some(found) if found != value => {
                errors.invalid(&labels_at.key(key), labels.clone(), format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let own = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    if LabelSelector::from_object(Some(&spec["selector"])).is_ok_and(|selector| !selector.matches(&own)) {
        errors.invalid(&At::root("spec.selector"), spec["selector"].clone(), "`selector` not auto-generated");
    }
}

pub(super) fn is_indexed(spec: &Value) -> bool {
    text(spec, "completionMode") == "Indexed"
}

fn job_spec(spec: &Value, at: &At, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(&spec[key], &at.field(key), errors);
    }
    if is_set(spec, "maxFailedIndexes") && !is_set(spec, "backoffLimitPerIndex") {
        errors.required(&at.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        required(spec, "managedBy", names::domain_prefixed, at, errors);
        if manager.len() > 63 {
            errors.too_long(&at.field("managedBy"), 63);
        }
    }
    if let Some(mode) = spec["completionMode"].as_str() {
        errors.one_of(&at.field("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if is_indexed(spec) {
        indexed(spec, at, errors);
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"].iter().filter(|key| is_set(spec, key))
        {
            errors.invalid(&at.field(key), spec[*key].clone(), "requires indexed completion mode");
        }
    }
    failure_policy(spec, at, errors);
    if is_indexed(spec) && is_set(spec, "successPolicy") {
        success_policy(spec, &at.field("successPolicy"), errors);
    }
    if let Some(policy) = spec["podReplacementPolicy"].as_str() {
        let all: &[&str] =
            if is_set(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        errors.one_of(&at.field("podReplacementPolicy"), policy, all);
    }
    let template_at = at.field("template");
    pod::template(&spec["template"], &template_at, errors);
    let spec_at = template_at.field("spec");
    let restart_at = spec_at.field("restartPolicy");
    match text(&spec["template"]["spec"], "restartPolicy") {
        "" | "Always" => errors.required(&restart_at, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        policy @ "OnFailure" if is_set(spec, "podFailurePolicy") => {
            errors.invalid(&restart_at, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        policy => errors.not_supported(&restart_at, policy, &["OnFailure", "Never"]),
    }
}

fn indexed(spec: &Value, at: &At, errors: &mut Errors) {
    let of = |key: &str| spec[key].as_i64();
    let (completions, parallelism, failed) = (of("completions"), of("parallelism"), of("maxFailedIndexes"));
    if completions.is_none() {
        errors.required(&at.field("completions"), "when completion mode is Indexed");
    }
    if let Some(parallelism) = parallelism.filter(|parallelism| *parallelism > MOST) {
        let why = format!("must be less than or equal to {MOST} when completion mode is Indexed");
        errors.invalid(&at.field("parallelism"), parallelism, why);
    }
    let failed_at = at.field("maxFailedIndexes");
    if let (Some(failed), Some(completions)) = (failed, completions)
        && failed > completions
    {
        errors.invalid(&failed_at, failed, "must be less than or equal to completions");
    }
    if let Some(failed) = failed.filter(|failed| *failed > MOST) {
        errors.invalid(&failed_at, failed, format!("must be less than or equal to {MOST}"));
    }
    if completions.is_none_or(|completions| completions <= MANY_COMPLETIONS) || of("backoffLimitPerIndex").is_none() {
        return;
    }
    if failed.is_none() {
        errors.required(&failed_at, format!("must be specified when completions is above {MANY_COMPLETIONS}"));
    }
    for (key, value) in [("parallelism", parallelism), ("maxFailedIndexes", failed)] {
        if let Some(value) = value.filter(|value| *value > FEW_PARALLEL) {
            let why = format!(
                "must be less than or equal to {FEW_PARALLEL} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
            );
            errors.invalid(&at.field(key), value, why);
        }
    }
}

fn failure_policy(spec: &Value, at: &At, errors: &mut Errors) {
    let pod = &spec["template"]["spec"];
    let containers: Vec<&str> = items(pod, "containers")
        .iter()
        .chain(items(pod, "initContainers"))
        .map(|container| text(container, "name"))
        .collect();
    let rules = items(&spec["podFailurePolicy"], "rules");
    let at = at.field("podFailurePolicy");
    let at = at.field("rules");
    if rules.len() > 20 {
        errors.too_many(&at, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        let (action, action_at) = (text(rule, "action"), at.field("action"));
        const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
        match action {
            "" => errors.required(&action_at, format!("valid values: {}", listed(&ACTIONS))),
            "FailIndex" if !is_set(spec, "backoffLimitPerIndex") => {
                errors.invalid(&action_at, action, "requires the backoffLimitPerIndex to be set");
            }
            _ => errors.one_of(&action_at, action, &ACTIONS),
        }
        let (codes, conditions) = (is_set(rule, "onExitCodes"), items(rule, "onPodConditions"));
        if codes {
            exit_codes(&rule["onExitCodes"], &containers, &at.field("onExitCodes"), errors);
        }
        pod_conditions(conditions, &at.field("onPodConditions"), errors);
        match (codes, conditions.is_empty()) {
            (true, false) => {
                errors.invalid_because(&at, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => {
                errors.invalid_because(&at, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            _ => {}
        }
    }
}

/// Words as Go prints a list of them.
fn listed(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn exit_codes(rule: &Value, containers: &[&str], at: &At, errors: &mut Errors) {
    let operator = text(rule, "operator");
    match operator {
        "" => errors.required(&at.field("operator"), format!("valid values: {}", listed(&["In", "NotIn"]))),
        _ => errors.one_of(&at.field("operator"), operator, &["In", "NotIn"]),
    }
    if let Some(name) = rule["containerName"].as_str().filter(|name| !containers.contains(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&at.field("containerName"), name, why);
    }
    let values: Vec<i64> = items(rule, "values").iter().filter_map(Value::as_i64).collect();
    let values_at = at.field("values");
    match values.len() {
        0 => errors.invalid(&values_at, rule["values"].clone(), "at least one value is required"),
        256.. => errors.too_many(&values_at, values.len(), 255),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        let at = values_at.index(i);
        if operator == "In" && *value == 0 {
            errors.invalid(&at, 0, "must not be 0 for the In operator");
        }
        if !seen.insert(*value) {
            errors.duplicate(&at, *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&values_at, rule["values"].clone(), "must be ordered");
    }
}

fn pod_conditions(conditions: &[Value], at: &At, errors: &mut Errors) {
    if conditions.len() > 20 {
        errors.too_many(at, conditions.len(), 20);
    }
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        errors.rule(&at.field("type"), text(condition, "type"), names::qualified);
        const STATES: [&str; 3] = ["False", "True", "Unknown"];
        match text(condition, "status") {
            "" => errors.required(&at.field("status"), format!("valid values: {}", listed(&STATES))),
            status => errors.one_of(&at.field("status"), status, &STATES),
        }
    }
}

fn success_policy(spec: &Value, at: &At, errors: &mut Errors) {
    let (rules, at) = (items(&spec["successPolicy"], "rules"), at.field("rules"));
    let completions = spec["completions"].as_i64().unwrap_or(0);
    match rules.len() {
        0 => errors.required(&at, "at least one rules must be specified when the successPolicy is specified"),
        21.. => errors.too_many(&at, rules.len(), 20),
        _ => {}
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        let (indexes, count) = (rule["succeededIndexes"].as_str(), rule["succeededCount"].as_i64());
        if indexes.is_none() && count.is_none() {
            errors.required(&at, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let total = indexes.map(|text| (text, count_indexes(text, completions)));
        if let Some((text, Err(why))) = &total {
            let why = format!("error parsing succeededIndexes: {why}");
            errors.invalid(&at.field("succeededIndexes"), *text, why);
        }
        let Some(count) = count else { continue };
        let count_at = at.field("succeededCount");
        not_negative(&rule["succeededCount"], &count_at, errors);
        if count > completions {
            let why = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(&count_at, count, why);
        }
        let total = total.map(|(_, total)| total.unwrap_or(0));
        if let Some(total) = total.filter(|total| count > *total) {
            let why = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.invalid(&count_at, count, why);
        }
    }
}

/// How many indexes `0,2-4` names; they must rise and lie below the completions.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let number = |text: &str| -> Result<i64, String> {
            let number: i64 =
                text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
            if number >= completions {
                return Err(format!("too large index: {text:?}"));
            }
            Ok(number)
        };
        let parts: Vec<&str> = interval.split('-').collect();
        let (first, end) = match parts.as_slice() {
            [one] => (number(one)?, number(one)?),
            [first, end] => (number(first)?, number(end)?),
            _ => {
                return Err(format!(
                    "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if parts.len() == 2 && first >= end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// A new CronJob's schedule leaves the time zone to the field for it.
pub(crate) fn new_cron_job(object: &Value, errors: &mut Errors) {
    let found = text(&object["spec"], "schedule");
    if found.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&At::root("spec.schedule"), found, why);
    }
}

/// A schedule that has named its zone may go on, without the field.
pub(crate) fn cron_job_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    if sub != Sub::Main {
        return;
    }
    let found = text(&new["spec"], "schedule");
    if !text(&old["spec"], "schedule").contains("TZ") {
        new_cron_job(new, errors);
    } else if found.contains("TZ") && is_set(&new["spec"], "timeZone") {
        let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.invalid(&At::root("spec.schedule"), found, why);
    }
}

/// CronJob.
pub(crate) fn cron_job(object: &Value, errors: &mut Errors) {
    // The controller appends eleven characters to name its Jobs.
    let name = text(&object["metadata"], "name");
    if name.len() > 52 {
        errors.invalid(&At::root("metadata.name"), name, "must be no more than 52 characters");
    }
    let (spec, at) = (&object["spec"], At::root("spec"));
    let schedule_at = at.field("schedule");
    match text(spec, "schedule") {
        "" => errors.required(&schedule_at, ""),
        found => {
            if let Err(why) = Schedule::parse(found) {
                errors.invalid(&schedule_at, found, why);
            }
        }
    }
    if let Some(zone) = spec["timeZone"].as_str() {
        time_zone(zone, &at.field("timeZone"), errors);
    }
    errors.one_of(&at.field("concurrencyPolicy"), text(spec, "concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&spec[key], &at.field(key), errors);
    }
    let job_at = at.field("jobTemplate");
    let job = &spec["jobTemplate"]["spec"];
    let spec_at = job_at.field("spec");
    job_spec(job, &spec_at, errors);
    if is_set(job, "selector") {
        errors.invalid(&spec_at.field("selector"), job["selector"].clone(), "`selector` will be auto-generated");
    }
    if job["manualSelector"] == true {
        errors.not_supported(&spec_at.field("manualSelector"), true, &["nil", "false"]);
    }
}

fn time_zone(zone: &str, at: &At, errors: &mut Errors) {
    if zone.is_empty() {
        return errors.invalid(at, zone, "timeZone must be nil or non-empty string");
    }
    if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        return errors.invalid(at, zone, why);
    }
    if !is_zone(zone) {
        errors.invalid(at, zone, format!("unknown time zone {zone}"));
    }
}

/// Job: selector, template and completions stay as they are.
pub(crate) fn job_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    match sub {
        Sub::Status => return job_status::check(new, old, errors),
        Sub::Main => {}
        _ => return,
    }
    let waits = waits(old);
    let (new, old, at) = (&new["spec"], &old["spec"], At::root("spec"));
    let completions_at = at.field("completions");
    if !is_indexed(new) {
        errors.immutable(&completions_at, &new["completions"], &old["completions"]);
    } else if new["completions"] != old["completions"] && new["completions"] != new["parallelism"] {
        // An indexed Job may be resized as long as it stays one Pod an index.
        let why = "can only be modified in tandem with spec.parallelism";
        errors.invalid(&completions_at, new["completions"].clone(), why);
    }
    if !waits {
        errors.immutable(&at.field("template"), &new["template"], &old["template"]);
    } else {
        let (new, old) = (&new["template"]["spec"], &old["template"]["spec"]);
        if !same(&settled(new), &settled(old)) {
            errors.invalid(&at.field("template.spec"), new.clone(), "field is immutable");
        }
    }
    for key in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy", "managedBy"]
    {
        errors.immutable(&at.field(key), &new[key], &old[key]);
    }
}

/// Whether a Job is suspended and none of its Pods runs, so that it may still be said where and with what they shall.
fn waits(job: &Value) -> bool {
    let (spec, status) = (&job["spec"], &job["status"]);
    let suspended = items(status, "conditions")
        .iter()
        .any(|condition| text(condition, "type") == "Suspended" && text(condition, "status") == "True");
    let idle = status["active"].as_i64().unwrap_or(0) == 0;
    spec["suspend"] == true && idle && (suspended || !is_set(status, "startTime"))
}

/// A PodSpec without what a queue may still decide: nodes, resources.
fn settled(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(map) = spec.as_object_mut() else { return spec };
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        map.remove(key);
    }
    if let Some(affinity) = map.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
        if affinity.is_empty() {
            map.remove("affinity");
        }
    }
    for list in ["containers", "initContainers"] {
        for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("resources");
            }
        }
    }
    spec
}
