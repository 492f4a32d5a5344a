//! What a Job's status may say: rules that hold between its parts, looked at when those parts change (upstream:
//! `validateJobStatus` and `getStatusValidationOptions` of batch, which hold other controllers to what clients rely on).

use std::collections::BTreeSet;

use serde_json::Value;

use super::batch::{count_indexes, is_indexed};
use super::{At, Errors, is_set, items, not_negative, text};
use crate::strategy::same;

/// A Job, and what its conditions say.
struct Seen<'a> {
    status: &'a Value,
    complete: bool,
    failed: bool,
    failing: bool,
    succeeded: bool,
}

impl<'a> Seen<'a> {
    fn of(job: &'a Value) -> Self {
        let status = &job["status"];
        let holds = |kind: &str| {
            items(status, "conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
        };
        Self {
            status,
            complete: holds("Complete"),
            failed: holds("Failed"),
            failing: holds("FailureTarget"),
            succeeded: holds("SuccessCriteriaMet"),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }

    fn count(&self, key: &str) -> i64 {
        self.status[key].as_i64().unwrap_or(0)
    }
}

/// A change of a Job's status.
pub(super) fn check(new_job: &Value, old_job: &Value, errors: &mut Errors) {
    let (new, old, at) = (Seen::of(new_job), Seen::of(old_job), At::root("status"));
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(&new.status[key], &at.field(key), errors);
    }
    uncounted(&new.status["uncountedTerminatedPods"], &at.field("uncountedTerminatedPods"), errors);
    conditions(&new, &old, &at.field("conditions"), errors);
    times(&new, &old, new_job, &at, errors);
    pods(&new, &old, &at, errors);
    indexes(&new, &old, &new_job["spec"], &at, errors);
    if new.count("failed") < old.count("failed") {
        errors.invalid(&at.field("failed"), new.count("failed"), "cannot decrease the failed counter");
    }
    let spec = &new_job["spec"];
    let elastic = is_indexed(spec) && same(&spec["completions"], &spec["parallelism"]);
    if !elastic && new.count("succeeded") < old.count("succeeded") {
        errors.invalid(&at.field("succeeded"), new.count("succeeded"), "cannot decrease the succeeded counter");
    }
}

fn uncounted(pods: &Value, at: &At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for key in ["succeeded", "failed"] {
        for (i, uid) in items(pods, key).iter().filter_map(Value::as_str).enumerate() {
            let at = at.field(key);
            if uid.is_empty() {
                errors.invalid(&at.index(i), uid, "must not be empty");
            } else if !seen.insert(uid) {
                errors.duplicate(&at.index(i), uid);
            }
        }
    }
}

fn conditions(new: &Seen, old: &Seen, at: &At, errors: &mut Errors) {
    let completes = new.complete != old.complete;
    let fails = new.failed != old.failed;
    let rules = [
        ((completes || fails) && new.complete && new.failed, "cannot set Complete=True and Failed=true conditions"),
        (
            (completes || new.failing != old.failing) && new.complete && new.failing,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (fails || changed(new, old, "failedIndexes")) && new.failed && !new.failing,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (completes || new.succeeded != old.succeeded) && new.complete && !new.succeeded,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (new.succeeded && new.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (new.succeeded && new.failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (old.failed && !new.failed, "cannot disable the terminal Failed=True condition"),
        (old.complete && !new.complete, "cannot disable the terminal Complete=True condition"),
        (old.failing && !new.failing, "cannot disable the terminal FailureTarget=True condition"),
        (old.succeeded && !new.succeeded, "cannot disable the SuccessCriteriaMet=True condition"),
        (
            old.complete && !old.succeeded && new.succeeded,
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ),
    ];
    for (_, why) in rules.iter().filter(|(broken, _)| *broken) {
        errors.invalid_because(at, why);
    }
}

fn changed(new: &Seen, old: &Seen, key: &str) -> bool {
    !same(&new.status[key], &old.status[key])
}

fn times(new: &Seen, old: &Seen, job: &Value, at: &At, errors: &mut Errors) {
    let (start, end) = (&new.status["startTime"], &new.status["completionTime"]);
    let (start_at, end_at) = (at.field("startTime"), at.field("completionTime"));
    let (starts, ends) = (changed(new, old, "startTime"), changed(new, old, "completionTime"));
    let completes = new.complete != old.complete || ends;
    if completes && !end.is_null() && !new.complete {
        let why = "cannot set completionTime when there is no Complete=True condition";
        errors.invalid(&end_at, end.clone(), why);
    }
    if completes && end.is_null() && new.complete {
        errors.required(&end_at, "completionTime is required for Complete jobs");
    }
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if (starts || ends) && time(start).zip(time(end)).is_some_and(|(start, end)| end < start) {
        errors.invalid(&end_at, end.clone(), "must be equal to or after `startTime`");
    }
    let nothing_to_do = job["spec"]["suspend"] == true && job["spec"]["completions"] == 0;
    if (new.finished() != old.finished() || starts) && !nothing_to_do && start.is_null() && new.finished() {
        errors.required(&start_at, "startTime is required for finished job");
    }
    if ends && !end.is_null() && is_set(old.status, "completionTime") {
        errors.invalid(&end_at, end.clone(), "field is immutable");
    }
    let suspended = |seen: &Seen, status: &str| {
        items(seen.status, "conditions").iter().any(|c| text(c, "type") == "Suspended" && text(c, "status") == status)
    };
    let resumes = suspended(old, "True") && suspended(new, "False");
    if starts && !resumes && is_set(old.status, "startTime") && job["spec"]["suspend"] != true {
        errors.invalid(&start_at, start.clone(), "field is immutable for unsuspended job once set");
    }
}

fn pods(new: &Seen, old: &Seen, at: &At, errors: &mut Errors) {
    let finishes = new.finished() != old.finished();
    for key in ["active", "terminating"] {
        if (finishes || changed(new, old, key)) && new.finished() && new.count(key) > 0 {
            errors.invalid(&at.field(key), new.count(key), format!("{key}>0 is invalid for finished job"));
        }
    }
    let waiting = &new.status["uncountedTerminatedPods"];
    let any = !items(waiting, "succeeded").is_empty() || !items(waiting, "failed").is_empty();
    if (finishes || changed(new, old, "uncountedTerminatedPods")) && new.finished() && any {
        errors.invalid(&at.field("uncountedTerminatedPods"), waiting.clone(), "must be empty for finished job");
    }
    let moved = changed(new, old, "ready") || changed(new, old, "active");
    if moved && new.count("ready") > new.count("active") {
        errors.invalid(&at.field("ready"), new.count("ready"), "cannot set more ready pods than active");
    }
}

fn indexes(new: &Seen, old: &Seen, spec: &Value, at: &At, errors: &mut Errors) {
    let completions = spec["completions"].as_i64();
    let (done, failed) = (text(new.status, "completedIndexes"), new.status["failedIndexes"].as_str());
    let (done_at, failed_at) = (at.field("completedIndexes"), at.field("failedIndexes"));
    if changed(new, old, "completedIndexes") {
        if let Some(Err(why)) = completions.map(|completions| count_indexes(done, completions)) {
            errors.invalid(&done_at, done, format!("error parsing completedIndexes: {why}"));
        }
        if !done.is_empty() && !is_indexed(spec) {
            errors.invalid(&done_at, done, "cannot set non-empty completedIndexes when non-indexed completion mode");
        }
    }
    let Some(failed) = failed.filter(|_| changed(new, old, "failedIndexes")) else { return };
    if !is_set(spec, "backoffLimitPerIndex") {
        errors.invalid(&failed_at, failed, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    } else if let Some(Err(why)) = completions.map(|completions| count_indexes(failed, completions)) {
        errors.invalid(&failed_at, failed, format!("error parsing failedIndexes: {why}"));
    }
}
