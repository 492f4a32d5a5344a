//! What a Deployment reports: counts, and the conditions Available, Progressing and ReplicaFailure, with upstream's reasons
//! and messages. Pure: the time is an argument.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{
    revisions::{Revisions, replicas},
    rolling::Goal,
};
use crate::replicaset::status::REPLICA_FAILURE;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// What a pass did that the status should tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// A ReplicaSet was created.
    Created(String),
    /// A ReplicaSet could not be created.
    NotCreated(String),
}

/// Everything that the status follows from.
pub(super) struct View<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) revisions: &'a Revisions,
    pub(super) goal: Goal,
    /// The pass rolled out; otherwise it scaled, was paused or is being deleted, and progress is not judged.
    pub(super) rollout: bool,
    pub(super) news: News,
    pub(super) now: Timestamp,
}

impl View<'_> {
    fn deadline(&self) -> Option<i32> {
        let seconds = self.deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds);
        seconds.filter(|seconds| *seconds != i32::MAX)
    }

    fn before(&self) -> DeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    fn generation(&self) -> i64 {
        self.deployment.metadata.generation.unwrap_or(0)
    }

    /// `ReplicaSet "web-abc" …` or `Deployment "web" …`.
    fn subject(&self) -> String {
        match &self.revisions.new {
            Some(new) => format!("ReplicaSet {:?}", new.metadata.name.as_deref().unwrap_or_default()),
            None => format!("Deployment {:?}", self.deployment.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn condition(&self, kind: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
        DeploymentCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        }
    }

    /// The whole status.
    pub(super) fn status(&self) -> DeploymentStatus {
        let mut status = self.counts();
        let mut conditions = Conditions(self.before().conditions.unwrap_or_default());
        let available = status.available_replicas.unwrap_or(0) >= self.goal.min_available();
        conditions.set(match available {
            true => self.condition(
                AVAILABLE,
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.".into(),
            ),
            false => self.condition(
                AVAILABLE,
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.".into(),
            ),
        });
        self.pause(&mut conditions);
        self.tell(&mut conditions);
        if self.rollout {
            self.progress(&status, &mut conditions);
            match self.failure() {
                Some(failure) => conditions.set(failure),
                None => conditions.remove(REPLICA_FAILURE),
            }
        }
        status.conditions = (!conditions.0.is_empty()).then_some(conditions.0);
        status
    }

    fn counts(&self) -> DeploymentStatus {
        let sum = |count: &dyn Fn(&ReplicaSet) -> i32| -> i32 { self.revisions.all().map(|set| count(set)).sum() };
        let of = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
        let available = sum(&|set| of(set).available_replicas.unwrap_or(0));
        let updated = self.revisions.new.as_ref().map_or(0, |new| of(new).replicas);
        DeploymentStatus {
            observed_generation: Some(self.generation()),
            replicas: non_zero(sum(&|set| of(set).replicas)),
            updated_replicas: non_zero(updated),
            ready_replicas: non_zero(sum(&|set| of(set).ready_replicas.unwrap_or(0))),
            available_replicas: non_zero(available),
            unavailable_replicas: non_zero((sum(&|set| replicas(set)) - available).max(0)),
            terminating_replicas: Some(sum(&|set| of(set).terminating_replicas.unwrap_or(0))),
            collision_count: self.before().collision_count,
            conditions: None,
        }
    }

    /// While paused no deadline runs; after resuming it starts anew.
    fn pause(&self, conditions: &mut Conditions) {
        if self.deadline().is_none() {
            return;
        }
        let paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        let reason = conditions.reason(PROGRESSING);
        let news = match (paused, reason == Some(PAUSED)) {
            _ if reason == Some(TIMED_OUT) => return,
            (true, false) => (PAUSED, "Deployment is paused"),
            (false, true) => (RESUMED, "Deployment is resumed"),
            _ => return,
        };
        conditions.set(self.condition(PROGRESSING, "Unknown", news.0, news.1.into()));
    }

    fn tell(&self, conditions: &mut Conditions) {
        if self.deadline().is_none() {
            return;
        }
        match &self.news {
            News::Created(name) => conditions.set(self.condition(
                PROGRESSING,
                "True",
                "NewReplicaSetCreated",
                format!("Created new replica set {name:?}"),
            )),
            News::NotCreated(message) => {
                conditions.set(self.condition(PROGRESSING, "False", "ReplicaSetCreateError", message.clone()));
            }
            News::None => {
                if let (None, Some(new)) = (conditions.reason(PROGRESSING), &self.revisions.new) {
                    let name = new.metadata.name.as_deref().unwrap_or_default();
                    let message = format!("Found new replica set {name:?}");
                    conditions.set(self.condition(PROGRESSING, "True", "FoundNewReplicaSet", message));
                }
            }
        }
    }

    fn progress(&self, status: &DeploymentStatus, conditions: &mut Conditions) {
        if self.deadline().is_none() {
            return conditions.remove(PROGRESSING);
        }
        if matches!(self.news, News::NotCreated(_)) {
            return;
        }
        let settled = status.replicas == status.updated_replicas && conditions.reason(PROGRESSING) == Some(COMPLETE);
        if settled {
            return;
        }
        if is_complete(self.deployment, status) {
            let message = format!("{} has successfully progressed.", self.subject());
            conditions.set(self.condition(PROGRESSING, "True", COMPLETE, message));
        } else if has_progressed(&self.before(), status) {
            let message = format!("{} is progressing.", self.subject());
            conditions.renew(self.condition(PROGRESSING, "True", "ReplicaSetUpdated", message));
        } else if self.is_timed_out(conditions) {
            let message = format!("{} has timed out progressing.", self.subject());
            conditions.set(self.condition(PROGRESSING, "False", TIMED_OUT, message));
        }
    }

    fn is_timed_out(&self, conditions: &Conditions) -> bool {
        match conditions.reason(PROGRESSING) {
            None | Some(COMPLETE) => false,
            Some(TIMED_OUT) => true,
            Some(_) => self.until_deadline(&conditions.0).is_some_and(|left| left.is_zero()),
        }
    }

    /// What is left of the deadline since progress was last seen.
    fn until_deadline(&self, conditions: &[DeploymentCondition]) -> Option<Duration> {
        let deadline = i64::from(self.deadline()?);
        let condition = conditions.iter().find(|condition| condition.type_ == PROGRESSING)?;
        let since = condition.last_update_time.as_ref()?.0;
        let left = deadline * 1000 - self.now.duration_since(since).as_millis() as i64;
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// When to look again because a deadline may have passed by then, given the status that is now reported.
    pub(super) fn next_check(&self, status: &DeploymentStatus) -> Option<Duration> {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let reason = conditions
            .iter()
            .find(|condition| condition.type_ == PROGRESSING)
            .and_then(|condition| condition.reason.as_deref())?;
        if !self.rollout || is_complete(self.deployment, status) || matches!(reason, TIMED_OUT | COMPLETE) {
            return None;
        }
        // Times are kept in seconds: look when the second has passed.
        self.until_deadline(conditions).map(|left| left + Duration::from_secs(1))
    }

    /// The failure of a ReplicaSet, the new one's before the others'.
    fn failure(&self) -> Option<DeploymentCondition> {
        let failure = |set: &Arc<ReplicaSet>| {
            let conditions = set.status.as_ref()?.conditions.as_ref()?;
            let found = conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE)?;
            Some(DeploymentCondition {
                type_: found.type_.clone(),
                status: found.status.clone(),
                reason: found.reason.clone(),
                message: found.message.clone(),
                last_update_time: found.last_transition_time.clone(),
                last_transition_time: found.last_transition_time.clone(),
            })
        };
        self.revisions.new.iter().chain(&self.revisions.old).find_map(failure)
    }
}

/// All replicas are updated and available, and no old ones are left.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(now.updated_replicas) > count(before.updated_replicas)
        || old(now) < old(before)
        || count(now.ready_replicas) > count(before.ready_replicas)
        || count(now.available_replicas) > count(before.available_replicas)
}

fn non_zero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

struct Conditions(Vec<DeploymentCondition>);

impl Conditions {
    fn find(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.0.iter().find(|condition| condition.type_ == kind)
    }

    fn reason(&self, kind: &str) -> Option<&str> {
        self.find(kind)?.reason.as_deref()
    }

    fn remove(&mut self, kind: &str) {
        self.0.retain(|condition| condition.type_ != kind);
    }

    /// Sets a condition unless it says the same already.
    fn set(&mut self, condition: DeploymentCondition) {
        let same = self
            .find(&condition.type_)
            .is_some_and(|known| known.status == condition.status && known.reason == condition.reason);
        if !same {
            self.renew(condition);
        }
    }

    /// Sets a condition with a fresh update time, even if it says the same already.
    fn renew(&mut self, mut condition: DeploymentCondition) {
        if let Some(known) = self.find(&condition.type_)
            && known.status == condition.status
        {
            condition.last_transition_time = known.last_transition_time.clone();
        }
        self.remove(&condition.type_);
        self.0.push(condition);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSetSpec, ReplicaSetStatus};
    use kube::api::ObjectMeta;

    use super::*;

    fn set(replicas: i32, available: i32) -> Arc<ReplicaSet> {
        Arc::new(ReplicaSet {
            metadata: ObjectMeta { name: Some("web-1".into()), ..Default::default() },
            spec: Some(ReplicaSetSpec { replicas: Some(replicas), ..Default::default() }),
            status: Some(ReplicaSetStatus {
                replicas,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                ..Default::default()
            }),
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// The status of a Deployment of two after a pass at `second`.
    fn pass(deployment: &Deployment, new: Option<Arc<ReplicaSet>>, news: News, second: i64) -> DeploymentStatus {
        let revisions = Revisions { new, old: Vec::new() };
        View { deployment, revisions: &revisions, goal: Goal::of(deployment), rollout: true, news, now: at(second) }
            .status()
    }

    fn reason(status: &DeploymentStatus, kind: &str) -> (String, String) {
        let conditions = status.conditions.clone().unwrap();
        let condition = conditions.into_iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status, condition.reason.unwrap())
    }

    fn is(status: &DeploymentStatus, value: &str, expected: &str) -> bool {
        reason(status, PROGRESSING) == (value.to_owned(), expected.to_owned())
    }

    #[test]
    fn the_story_of_a_rollout() {
        let mut deployment = Deployment {
            spec: Some(DeploymentSpec { replicas: Some(2), progress_deadline_seconds: Some(60), ..Default::default() }),
            ..Default::default()
        };
        let created = pass(&deployment, Some(set(2, 0)), News::Created("web-1".into()), 0);
        assert!(is(&created, "True", "ReplicaSetUpdated"));
        assert_eq!(reason(&created, AVAILABLE).1, "MinimumReplicasUnavailable");
        deployment.status = Some(created);

        let waiting = pass(&deployment, Some(set(2, 0)), News::None, 59);
        assert_eq!(Some(&waiting), deployment.status.as_ref(), "nothing new");
        let late = pass(&deployment, Some(set(2, 0)), News::None, 61);
        assert!(is(&late, "False", TIMED_OUT));
        deployment.status = Some(late);

        let one = pass(&deployment, Some(set(2, 1)), News::None, 70);
        assert!(is(&one, "True", "ReplicaSetUpdated"), "progress after the deadline counts");
        deployment.status = Some(one);
        let done = pass(&deployment, Some(set(2, 2)), News::None, 80);
        assert!(is(&done, "True", COMPLETE));
        assert_eq!(reason(&done, AVAILABLE).1, "MinimumReplicasAvailable");
        deployment.status = Some(done);

        let broken = pass(&deployment, Some(set(2, 0)), News::None, 10_000);
        assert!(is(&broken, "True", COMPLETE), "a finished rollout does not time out");
    }

    #[test]
    fn pausing_stops_the_clock() {
        let mut deployment = Deployment {
            spec: Some(DeploymentSpec {
                paused: Some(true),
                progress_deadline_seconds: Some(60),
                ..Default::default()
            }),
            ..Default::default()
        };
        deployment.status = Some(pass(&deployment, None, News::None, 0));
        assert!(is(deployment.status.as_ref().unwrap(), "Unknown", PAUSED));
        deployment.spec.as_mut().unwrap().paused = Some(false);
        let resumed = pass(&deployment, None, News::None, 1000);
        assert!(is(&resumed, "Unknown", RESUMED));
    }
}
