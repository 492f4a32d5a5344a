//! One look at a Job and its Pods: what to do, and what to report. Pure.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use wherry_reconcile::EventType;

use super::{
    account::Account,
    manage::{self, Slot, Steps},
    policies::{self, Verdict},
    view::{Pods, Settings, uid},
};
use crate::counts::{count, saturate};

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) kind: EventType,
    pub(super) reason: String,
    pub(super) message: String,
}

/// What a pass does, in this order.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) dismiss: Vec<Arc<Pod>>,
    pub(super) create: Vec<Slot>,
    /// To be reported; `active` counts on all being created.
    pub(super) status: JobStatus,
    pub(super) news: Vec<News>,
    /// Pods that lose their finalizer.
    pub(super) settle: Vec<Arc<Pod>>,
    /// Pods that are stopped because the Job is decided.
    pub(super) stop: Vec<Arc<Pod>>,
    /// Time itself changes the decision.
    pub(super) again: Option<Duration>,
}

/// How a Job is going to end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ending {
    success: bool,
    reason: String,
    message: String,
}

impl Ending {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.into() }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { success: true, reason: reason.to_owned(), message: message.into() }
    }

    /// The condition that announces it, and the one that states it.
    fn conditions(&self) -> (&'static str, &'static str) {
        if self.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") }
    }
}

pub(super) fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    job.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn holds(job: &Job, kind: &str) -> bool {
    condition(job, kind).is_some_and(|condition| condition.status == "True")
}

/// Whether the Job has ended, and all that it was about is written.
pub(crate) fn is_finished(job: &Job) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

/// Decides for a Job that has not finished.
pub(super) fn decide(job: &Job, all: Vec<Arc<Pod>>, now: Timestamp) -> Decision {
    let settings = Settings::of(job);
    let pods = Pods::of(all);
    let mut account = Account::open(&settings, &pods);
    account.enter(&settings, &pods, false);
    let mut decision = Decision { status: job.status.clone().unwrap_or_default(), ..Decision::default() };
    if decision.status.start_time.is_none() && !settings.suspended {
        decision.status.start_time = Some(Time(now));
    }
    let deleting = job.metadata.deletion_timestamp.is_some();
    let mut ending = ending(&settings, &pods, &account, &mut decision, now);
    let mut steps = Steps::default();
    if ending.is_none() && !deleting {
        ending = completion(&settings, &pods, &account);
        if ending.is_none() {
            steps = manage::manage(&settings, &pods, &account, now);
            suspension(&settings, &mut decision, now);
        }
    }
    match &ending {
        Some(ending) => {
            if !ending.success {
                account.enter(&settings, &pods, true);
            }
            decision.stop = pods.active.clone();
        }
        None => {
            decision.create = steps.create;
            decision.dismiss = steps.dismiss;
            decision.again = sooner(decision.again, steps.again);
        }
    }
    let kept = kept_back(&settings, &pods, &account, ending.is_some());
    decision.settle =
        account.settled.iter().filter(|pod| !kept.iter().any(|kept| uid(kept) == uid(pod))).cloned().collect();
    if account.more {
        decision.again = Some(Duration::ZERO);
    }
    report(&settings, &pods, &account, &mut decision);
    if let Some(ending) = ending {
        let (announced, stated) = ending.conditions();
        set(&mut decision.status, announced, "True", &ending.reason, &ending.message, now);
        if pods.active.is_empty() && pods.terminating.is_empty() && account.is_closed() {
            finish(&settings, &ending, stated, &mut decision, now);
        }
    }
    decision
}

fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// Whether, and how, the Job is decided; not by completion.
fn ending(
    settings: &Settings<'_>,
    pods: &Pods,
    account: &Account,
    decision: &mut Decision,
    now: Timestamp,
) -> Option<Ending> {
    let job = settings.job;
    for (kind, success) in [("SuccessCriteriaMet", true), ("FailureTarget", false)] {
        if let Some(known) = condition(job, kind).filter(|condition| condition.status == "True") {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            return Some(Ending { success, reason: text(&known.reason), message: text(&known.message) });
        }
    }
    let mut failed = pods.all.iter().filter(|pod| settings.has_failed(pod));
    if let Some(Verdict::FailJob(why)) =
        failed.by_ref().map(|pod| settings.verdict(pod)).find(|verdict| matches!(verdict, Verdict::FailJob(_)))
    {
        return Some(Ending::failure("PodFailurePolicy", why));
    }
    let in_place = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.restart_policy.as_deref());
    let restarts = if in_place == Some("OnFailure") { manage::restarts(&pods.active) } else { 0 };
    if account.failed() > settings.backoff_limit || restarts > 0 && restarts >= settings.backoff_limit {
        return Some(Ending::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    if let Some(left) = until_deadline(settings, &decision.status, now) {
        if left.is_zero() {
            return Some(Ending::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        decision.again = sooner(decision.again, Some(left));
    }
    if settings.indexed { ending_by_index(settings, account) } else { None }
}

fn until_deadline(settings: &Settings<'_>, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let seconds = settings.job.spec.as_ref()?.active_deadline_seconds.filter(|_| !settings.suspended)?;
    let passed = now.duration_since(status.start_time.as_ref()?.0).as_millis();
    let left = i128::from(seconds) * 1000 - passed;
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

fn ending_by_index(settings: &Settings<'_>, account: &Account) -> Option<Ending> {
    let spec = settings.job.spec.as_ref()?;
    let completions = settings.completions?;
    let given_up = saturate(account.given_up.len());
    if spec.max_failed_indexes.is_some_and(|most| given_up > most) {
        let text = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Ending::failure("MaxFailedIndexesExceeded", text));
    }
    if given_up > 0 && given_up + account.succeeded(settings) >= completions {
        return Some(Ending::failure("FailedIndexes", "Job has failed indexes"));
    }
    let met = policies::met(spec.success_policy.as_ref()?, &account.completed, completions)?;
    Some(Ending::success("SuccessPolicy", met))
}

/// Whether all that was to be done is done, and nobody is at it any more.
fn completion(settings: &Settings<'_>, pods: &Pods, account: &Account) -> Option<Ending> {
    let succeeded = account.succeeded(settings);
    let enough = match settings.completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0,
    };
    let idle = pods.active.is_empty();
    (enough && idle).then(|| Ending::success("CompletionsReached", "Reached expected number of succeeded pods"))
}

fn suspension(settings: &Settings<'_>, decision: &mut Decision, now: Timestamp) {
    let known = condition(settings.job, "Suspended").map(|condition| condition.status.as_str());
    let (status, reason, message) = match (settings.suspended, known) {
        (true, Some("True")) | (false, None | Some("False")) => return,
        (true, _) => ("True", "JobSuspended", "Job suspended"),
        (false, _) => ("False", "JobResumed", "Job resumed"),
    };
    set(&mut decision.status, "Suspended", status, reason, message, now);
    if !settings.suspended {
        // The deadline counts from here.
        decision.status.start_time = Some(Time(now));
    }
    decision.news.push(News {
        kind: EventType::Normal,
        reason: if settings.suspended { "Suspended" } else { "Resumed" }.to_owned(),
        message: message.to_owned(),
    });
}

/// Pods that keep their finalizer although they are counted: how often their index has failed is written on them alone, until
/// the next Pod of the index carries it on.
fn kept_back(settings: &Settings<'_>, pods: &Pods, account: &Account, ending: bool) -> Vec<Arc<Pod>> {
    if ending {
        return Vec::new();
    }
    let last = manage::last_failures(settings, pods);
    let carried = |n: &i32| pods.active.iter().any(|pod| settings.valid_index(pod) == Some(*n));
    last.into_iter()
        .filter(|(n, _)| !carried(n) && !account.completed.contains(n) && !account.given_up.contains(n))
        .map(|(_, pod)| pod)
        .collect()
}

fn report(settings: &Settings<'_>, pods: &Pods, account: &Account, decision: &mut Decision) {
    let going = decision.dismiss.len() + decision.stop.len();
    let active = pods.active.len() - going + decision.create.len();
    let ready = count(saturate(pods.ready())).min(pods.active.len() - going);
    let status = &mut decision.status;
    status.active = (active > 0).then_some(saturate(active));
    status.ready = Some(saturate(ready));
    status.terminating = Some(saturate(pods.terminating.len() + going));
    account.report(settings, status);
}

fn finish(settings: &Settings<'_>, ending: &Ending, stated: &str, decision: &mut Decision, now: Timestamp) {
    set(&mut decision.status, stated, "True", &ending.reason, &ending.message, now);
    let too_many = settings.completions.filter(|completions| decision.status.succeeded.unwrap_or(0) > *completions);
    if ending.success {
        decision.status.completion_time = Some(Time(now));
        if too_many.is_some() {
            let message = "Too many succeeded pods running after completion count reached".to_owned();
            decision.news.push(News { kind: EventType::Warning, reason: "TooManySucceededPods".to_owned(), message });
        }
        let (reason, message) = ("Completed".to_owned(), "Job completed".to_owned());
        decision.news.push(News { kind: EventType::Normal, reason, message });
    } else {
        let (reason, message) = (ending.reason.clone(), ending.message.clone());
        decision.news.push(News { kind: EventType::Warning, reason, message });
    }
    decision.again = None;
}

fn set(status: &mut JobStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter_mut().find(|condition| condition.type_ == kind);
    if known.as_ref().is_some_and(|known| known.status == value) {
        return;
    }
    let condition = JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
