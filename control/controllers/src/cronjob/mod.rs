//! CronJob: makes a Job at each time of its schedule.
//!
//! Flow of a pass: follow the Jobs that run ([`record`]); see which time is due ([`due`]); start a Job for it, unless one runs
//! and the policy forbids it; report; drop ended Jobs beyond the histories; look again when the next time comes.
//!
//! Guarantees
//! - A Job is named after the minute it was scheduled for: however often a pass is repeated, a time is met once.
//! - Of several missed times only the last is made up for, and only within `startingDeadlineSeconds`.

mod due;
mod record;

use std::sync::Arc;

use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{Timestamp, tz::TimeZone},
};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
};
use tokio_util::sync::CancellationToken;
use wherry_api::cron::{Schedule, zone_of};
use wherry_reconcile::{
    EventType, Expectations, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder,
    informer::revision_of,
    ownership::{controller_of, is_controlled_by, owner_reference},
    status::{Precondition, patch_status},
};

use crate::{
    context::Context,
    error::{self, Error},
    hand::owners,
};

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 4;
/// The scheduled time, by the clocks of the CronJob's zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// The index of Jobs by the UID of their controller.
const BY_CONTROLLER: &str = "controller";

struct Controller {
    context: Context,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
    /// Our writes to CronJobs and to Jobs.
    own_writes: Expectations,
    job_writes: Expectations,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        crons: context.informers.get(),
        jobs: context.informers.get(),
        recorder: context.recorders.component(NAME),
        own_writes: Expectations::default(),
        job_writes: Expectations::default(),
        context,
    });
    controller
        .jobs
        .index(BY_CONTROLLER, |job| controller_of(&job.metadata).map(|owner| owner.uid.clone()).into_iter().collect());
    let of_jobs = controller.clone();
    Feeds::new()
        .on(&controller.crons, |change| [change.key()])
        // A Job without a controller is nobody's.
        .on(&controller.jobs, move |change| owners(&of_jobs.crons, change, |_, _| false))
        .run(NAME, WORKERS, controller.clone(), cancel)
        .await;
}

/// One pass over one CronJob.
struct Pass<'a> {
    key: &'a ObjectKey,
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    status: CronJobStatus,
    now: Timestamp,
}

impl Controller {
    fn jobs_of(&self, key: &ObjectKey) -> Api<Job> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }

    fn is_current(&self, key: &ObjectKey, jobs: &[Arc<Job>]) -> bool {
        let is_live = |uid: &str| {
            jobs.iter().any(|job| job.metadata.uid.as_deref() == Some(uid) && job.metadata.deletion_timestamp.is_none())
        };
        self.own_writes.satisfied(key, self.crons.revision(), |_| false)
            && self.job_writes.satisfied(key, self.jobs.revision(), is_live)
    }

    fn tell(&self, pass: &Pass<'_>, kind: EventType, reason: &str, text: impl Into<String>) {
        self.recorder.on(pass.cron, kind, reason, text);
    }

    /// The schedule and the clock that it goes by; none if it cannot be read, which is told.
    fn schedule(&self, pass: &Pass<'_>) -> Option<(Schedule, TimeZone)> {
        let zone = match pass.spec.time_zone.as_deref() {
            None => TimeZone::system(),
            Some(name) => match zone_of(name) {
                Some(zone) => zone,
                None => {
                    let text = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                    self.tell(pass, EventType::Warning, "UnknownTimeZone", text);
                    return None;
                }
            },
        };
        match Schedule::parse(&pass.spec.schedule) {
            Ok(schedule) => Some((schedule, zone)),
            Err(why) => {
                let text = format!("unparseable schedule: {:?} : {why}", pass.spec.schedule);
                self.tell(pass, EventType::Warning, "UnparseableSchedule", text);
                None
            }
        }
    }

    /// Starts what is due. Says when to look again.
    async fn start(&self, pass: &mut Pass<'_>, jobs: &[Arc<Job>]) -> Result<Outcome, Error> {
        let suspended = pass.spec.suspend == Some(true) || pass.cron.metadata.deletion_timestamp.is_some();
        let Some((schedule, zone)) = (if suspended { None } else { self.schedule(pass) }) else {
            return Ok(Outcome::Done);
        };
        let due = due::due(pass.cron, &schedule, &zone, pass.now);
        let again = due.next.map_or(Outcome::Done, Outcome::After);
        if due.too_many {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(pass, EventType::Warning, "TooManyMissedTimes", text);
        }
        let met = pass.status.last_schedule_time.as_ref().map(|time| time.0);
        let Some(time) = due.time.filter(|time| Some(*time) != met) else {
            return Ok(again);
        };
        if due::is_too_late(pass.cron, time, pass.now) {
            let text =
                format!("Missed scheduled time to start a job: {}", time.strftime("%a, %d %b %Y %H:%M:%S +0000"));
            self.tell(pass, EventType::Warning, "MissSchedule", text);
            return Ok(again);
        }
        let runs = pass.status.active.clone().unwrap_or_default();
        match pass.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !runs.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell(pass, EventType::Normal, "JobAlreadyActive", text);
                return Ok(again);
            }
            Some("Replace") => {
                for job in jobs.iter().filter(|job| runs.iter().any(|run| run.uid == job.metadata.uid)) {
                    self.delete(pass, job).await?;
                }
                pass.status.active = None;
            }
            _ => {}
        }
        self.create(pass, time, &zone).await?;
        Ok(again)
    }

    async fn create(&self, pass: &mut Pass<'_>, time: Timestamp, zone: &TimeZone) -> Result<(), Error> {
        let job = job_at(pass.cron, pass.spec, time, zone);
        let name = record::name(&job).to_owned();
        let api = self.jobs_of(pass.key);
        let created = match api.create(&PostParams::default(), &job).await {
            Ok(created) => {
                self.tell(pass, EventType::Normal, "SuccessfulCreate", format!("Created job {name}"));
                created
            }
            Err(error) if error::is_namespace_terminating(&error) => return Ok(()),
            // It may be ours: the status was not written.
            Err(error) if error::already_exists(&error) => {
                let there = api.get(&name).await?;
                if !is_controlled_by(&there.metadata, pass.cron.metadata.uid.as_deref().unwrap_or_default()) {
                    return Err(error.into());
                }
                there
            }
            Err(error) => {
                let text = format!("Error creating job: {}", error::message(&error));
                self.tell(pass, EventType::Warning, "FailedCreate", text);
                return Err(error.into());
            }
        };
        self.job_writes.wrote(pass.key, revision_of(&created));
        pass.status.last_schedule_time = Some(Time(time));
        let active = pass.status.active.get_or_insert_default();
        if !crate::job::is_finished(&created) && !active.iter().any(|run| run.uid == created.metadata.uid) {
            active.push(record::reference(&created));
        }
        Ok(())
    }

    async fn delete(&self, pass: &Pass<'_>, job: &Job) -> Result<(), Error> {
        let name = record::name(job);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: job.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::background()
        };
        match self.jobs_of(pass.key).delete(name, &params).await {
            Ok(_) => {
                self.job_writes.deleted(pass.key, job.metadata.uid.clone().unwrap_or_default());
                self.tell(pass, EventType::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) if error::is_not_found(&error) || error::is_conflict(&error) => Ok(()),
            Err(error) => {
                let text = format!("Deleted job: {}", error::message(&error));
                self.tell(pass, EventType::Warning, "FailedDelete", text);
                Err(error.into())
            }
        }
    }
}

/// The Job for a scheduled time.
fn job_at(cron: &CronJob, spec: &CronJobSpec, time: Timestamp, zone: &TimeZone) -> Job {
    let meta = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = time.to_zoned(zone.clone());
    let format = if zone == &TimeZone::UTC { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    annotations.insert(SCHEDULED.to_owned(), local.strftime(format).to_string());
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", time.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(cron) = self.crons.get_key(&key) else {
            self.own_writes.forget(&key);
            self.job_writes.forget(&key);
            return Ok(Outcome::Done);
        };
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let jobs = self.jobs.by_index(BY_CONTROLLER, uid);
        if !self.is_current(&key, &jobs) {
            return Ok(Outcome::Behind);
        }
        let (status, news) = record::follow(&cron, &jobs);
        let mut pass = Pass { key: &key, cron: &cron, spec: &cron.spec, status, now: Timestamp::now() };
        for (kind, reason, text) in news {
            self.tell(&pass, kind, reason, text);
        }
        let started = self.start(&mut pass, &jobs).await;
        let api: Api<CronJob> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let patched = patch_status(&api, &*cron, cron.status.as_ref(), &pass.status, Precondition::Uid).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.own_writes.wrote(&key, revision_of(&updated));
        }
        for job in record::expired(&cron, &jobs) {
            self.delete(&pass, &job).await?;
        }
        started
    }
}
