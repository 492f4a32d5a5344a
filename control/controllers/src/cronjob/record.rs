//! What a CronJob knows of its Jobs: which run, which have ended, which can go. Pure.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    jiff::Timestamp,
};
use kube::Resource;
use wherry_reconcile::EventType;

use crate::{counts::count, job::is_finished};

/// Something to be told.
pub(super) type News = (EventType, &'static str, String);

pub(super) fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

fn uid(job: &Job) -> Option<&str> {
    job.metadata.uid.as_deref()
}

/// A reference to a Job, as the status lists those that run.
pub(super) fn reference(job: &Job) -> ObjectReference {
    let mut reference = job.object_ref(&());
    reference.resource_version = job.metadata.resource_version.clone();
    reference
}

fn ended(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let ended = conditions.iter().find(|c| ["Complete", "Failed"].contains(&c.type_.as_str()) && c.status == "True");
    ended.map(|condition| condition.type_.as_str())
}

/// Brings the list of running Jobs up to date. A Job that somebody made by hand is told of, and otherwise theirs.
pub(super) fn follow(cron: &CronJob, jobs: &[Arc<Job>]) -> (CronJobStatus, Vec<News>) {
    let mut status = cron.status.clone().unwrap_or_default();
    let mut news: Vec<News> = Vec::new();
    let mut active = status.active.take().unwrap_or_default();
    active.retain(|known| match jobs.iter().find(|job| uid(job) == known.uid.as_deref()) {
        None => {
            let text = format!("Active job went missing: {}", known.name.as_deref().unwrap_or_default());
            news.push((EventType::Normal, "MissingJob", text));
            false
        }
        Some(job) if is_finished(job) => {
            let text = format!("Saw completed job: {}, condition: {}", name(job), ended(job).unwrap_or_default());
            news.push((EventType::Normal, "SawCompletedJob", text));
            false
        }
        Some(_) => true,
    });
    for job in jobs.iter().filter(|job| !is_finished(job) && job.metadata.deletion_timestamp.is_none()) {
        if !active.iter().any(|known| known.uid.as_deref() == uid(job)) {
            let text = format!("Saw a job that the controller did not create or forgot: {}", name(job));
            news.push((EventType::Warning, "UnexpectedJob", text));
        }
    }
    status.active = (!active.is_empty()).then_some(active);
    let succeeded = jobs.iter().filter_map(|job| job.status.as_ref()?.completion_time.clone()).max();
    status.last_successful_time = status.last_successful_time.max(succeeded);
    (status, news)
}

/// The ended Jobs beyond the limits, oldest first.
pub(super) fn expired(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits =
        [("Complete", cron.spec.successful_jobs_history_limit), ("Failed", cron.spec.failed_jobs_history_limit)];
    let started = |job: &Job| -> (Option<Timestamp>, String) {
        let start = job.status.as_ref().and_then(|status| status.start_time.as_ref());
        (start.or(job.metadata.creation_timestamp.as_ref()).map(|time| time.0), name(job).to_owned())
    };
    let mut expired = Vec::new();
    for (kind, limit) in limits {
        let Some(limit) = limit else { continue };
        let mut all: Vec<_> = jobs
            .iter()
            .filter(|job| ended(job) == Some(kind) && job.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect();
        all.sort_by_key(|job| started(job));
        let surplus = all.len().saturating_sub(count(limit));
        expired.extend(all.into_iter().take(surplus));
    }
    expired
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(n: i64, ended: Option<&str>) -> Arc<Job> {
        let conditions: Vec<_> = ended.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect();
        let time = Timestamp::from_second(1_000_000 + n).unwrap().to_string();
        let completed = (ended == Some("Complete")).then_some(&time);
        let job = serde_json::from_value(json!({
            "metadata": { "name": format!("tick-{n}"), "uid": format!("u{n}"), "creationTimestamp": time },
            "status": { "conditions": conditions, "completionTime": completed },
        }));
        Arc::new(job.unwrap())
    }

    #[test]
    fn running_jobs_are_followed() {
        let cron: CronJob = serde_json::from_value(json!({ "metadata": {}, "status": {
            "active": [{ "name": "tick-1", "uid": "u1" }, { "name": "tick-2", "uid": "u2" }, { "name": "tick-9", "uid": "u9" }],
        } }))
        .unwrap();
        let (status, news) = follow(&cron, &[job(1, Some("Complete")), job(2, None), job(3, None)]);
        let active: Vec<_> = status.active.unwrap().into_iter().filter_map(|job| job.name).collect();
        assert_eq!(active, ["tick-2"]);
        let reasons: Vec<_> = news.iter().map(|(_, reason, _)| *reason).collect();
        assert_eq!(reasons, ["SawCompletedJob", "MissingJob", "UnexpectedJob"]);
        assert_eq!(status.last_successful_time.unwrap().0.as_second(), 1_000_001);
    }

    #[test]
    fn histories_keep_the_newest() {
        let cron: CronJob = serde_json::from_value(json!({ "metadata": {}, "spec": {
            "schedule": "", "jobTemplate": {}, "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
        } }))
        .unwrap();
        let jobs = [job(3, Some("Complete")), job(1, Some("Complete")), job(2, Some("Failed")), job(4, None)];
        let names: Vec<_> = expired(&cron, &jobs).iter().map(|job| name(job).to_owned()).collect();
        assert_eq!(names, ["tick-1", "tick-2"]);
    }
}
