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

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(job) = self.jobs.get_key(&key).filter(|job| job.metadata.deletion_timestamp.is_none()) else {
            return Ok(Outcome::Done);
        };
        let Some(end) = end(&job) else { return Ok(Outcome::Done) };
        let left = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
        if !left.is_zero() {
            return Ok(Outcome::After(left + Duration::from_millis(1)));
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
    use serde_json::json;

    use super::*;

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
