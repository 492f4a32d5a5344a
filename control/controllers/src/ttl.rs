//! TTL after finished: a Job that has ended goes, with its Pods, `ttlSecondsAfterFinished` later.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::batch::v1::Job, jiff::Timestamp};
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Feeds, Informer, ObjectKey, Outcome, Reconciler};

use crate::{
    context::Context,
    error::{self, Error},
};

const NAME: &str = "ttl-after-finished-controller";

struct Controller {
    context: Context,
    jobs: Informer<Job>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller { jobs: context.informers.get(), context });
    Feeds::new()
        .on(&controller.jobs, |change| change.new.as_ref().filter(|job| end(job).is_some()).map(|_| change.key()))
        .run(NAME, 2, controller.clone(), cancel)
        .await;
}

/// When a Job that has ended is to go.
fn end(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let ended = conditions.iter().find(|c| ["Complete", "Failed"].contains(&c.type_.as_str()) && c.status == "True")?;
    let lifetime = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    ended.last_transition_time.as_ref()?.0.checked_add(lifetime).ok()
}

/// How long a Job stays: nothing once it is to go, none where it does not go by itself.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(end(job)?.duration_since(now)).unwrap_or_default())
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(job) = self.jobs.get_key(&key).filter(|job| job.metadata.deletion_timestamp.is_none()) else {
            return Ok(Outcome::Done);
        };
        match left(&job, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        let params = DeleteParams {
            // Whatever changed since may have changed when it is to go.
            preconditions: Some(Preconditions {
                uid: job.metadata.uid.clone(),
                resource_version: job.metadata.resource_version.clone(),
            }),
            ..DeleteParams::foreground()
        };
        let api: Api<Job> = Api::namespaced(self.context.client.clone(), &key.namespace);
        error::gone_is_fine(api.delete(&key.name, &params).await)?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn a_job_goes_when_its_time_is_over_and_never_before(
            ttl in prop::option::of(0i32..1000), kind in 0usize..4, status in any::<bool>(), ended in 0i64..1000, now in 0i64..3_000_000,
        ) {
            let at = |milli: i64| Timestamp::from_millisecond(milli).unwrap();
            let kind = ["Complete", "Failed", "SuccessCriteriaMet", "Suspended"][kind];
            let condition = json!({
                "type": kind, "status": if status { "True" } else { "False" }, "lastTransitionTime": at(ended * 1000).to_string(),
            });
            let spec = json!({ "ttlSecondsAfterFinished": ttl, "template": {} });
            let job: Job =
                serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": { "conditions": [condition] } })).unwrap();
            let finished = status && ["Complete", "Failed"].contains(&kind);
            let stays = left(&job, at(now));
            prop_assert_eq!(stays.is_some(), finished && ttl.is_some(), "only what has ended and says so goes");
            let (Some(stays), Some(ttl)) = (stays, ttl) else { return Ok(()) };
            prop_assert_eq!(stays.is_zero(), now >= (ended + i64::from(ttl)) * 1000);
            // Whoever waits as long as told finds that it goes, and a moment before that it did not.
            let then = now + i64::try_from(stays.as_millis()).unwrap();
            prop_assert_eq!(left(&job, at(then)), Some(Duration::ZERO));
            if !stays.is_zero() {
                prop_assert_ne!(left(&job, at(then - 1)), Some(Duration::ZERO));
            }
        }
    }

    #[test]
    fn the_time_counts_from_the_end() {
        let job = |ttl: Option<i32>, kind: &str| -> Job {
            serde_json::from_value(json!({
                "spec": { "ttlSecondsAfterFinished": ttl, "template": {} }, "metadata": {},
                "status": { "conditions": [{ "type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
            }))
            .unwrap()
        };
        assert_eq!(end(&job(Some(60), "Failed")).unwrap().to_string(), "2026-01-01T00:01:00Z");
        assert_eq!(end(&job(Some(60), "FailureTarget")), None);
        assert_eq!(end(&job(None, "Complete")), None);
    }
}
