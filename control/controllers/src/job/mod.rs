//! Job: runs Pods until enough of them have succeeded.
//!
//! Flow of a pass: claim the Pods; [`decide`] enters those that ended into the account, says whether the Job is decided, and
//! otherwise which Pods it lacks or can do without; then Pods are created or dismissed, the status is written, and only after
//! that the finalizers of the Pods it has counted are removed.
//!
//! Guarantees
//! - Every Pod is counted exactly once ([`account`]), also one that somebody deleted: it stays until it was counted.
//! - A Job has ended only when none of its Pods runs any more.
//! - Backoff is read from the Pods, and so outlives a restart.
//!
//! Caveat: the account trusts that Pods whose finalizer was removed are told before or with what was written after. One
//! controller at a time writes, waits for its own writes to arrive, and writes its counts at the version that it read.

mod account;
mod backoff;
mod decide;
mod indexes;
mod manage;
pub(crate) mod orphans;
mod pod;
mod policies;
mod view;

use std::{sync::Arc, time::Duration};

use decide::Decision;
pub(crate) use decide::is_finished;
use futures::future::join_all;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use view::{FINALIZER, is_tracked};
use wherry_reconcile::{
    Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder, ownership::selects, status::patch_status,
};

use crate::{
    context::Context,
    error::{self, Error},
    hand::{Failure, Hand, owners},
    pods,
};

const NAME: &str = "job-controller";
const WORKERS: usize = 8;
const MANAGER: &str = "kubernetes.io/job-controller";

struct Controller {
    context: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    hand: Hand,
    recorder: Recorder,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let recorder = context.recorders.component(NAME);
    let controller = Arc::new(Controller {
        jobs: context.informers.get(),
        pods: context.informers.get(),
        hand: Hand::new(&context, recorder.clone()).holding(&[FINALIZER]),
        recorder,
        context,
    });
    let of_pods = controller.clone();
    Feeds::new()
        .on(&controller.jobs, |change| [change.key()])
        .on(&controller.pods, move |change| {
            owners(&of_pods.jobs, change, |job, pod| {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| selects(selector, pod.labels.as_ref()))
            })
        })
        .run(NAME, WORKERS, controller.clone(), cancel)
        .await;
}

/// Whether the Job is somebody else's to run.
fn is_foreign(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGER)
}

/// Removes the finalizer that tracks a Pod; one that is gone had none.
async fn settle(api: &Api<Pod>, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({ "metadata": {
        "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    } });
    match error::gone_is_fine(api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await) {
        // Another Pod has its name.
        Err(error) if error::is_conflict(&error) => Ok(None),
        result => result,
    }
}

impl Controller {
    async fn settle_all(&self, key: &ObjectKey, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        for result in join_all(pods.iter().filter(|pod| is_tracked(pod)).map(|pod| settle(&api, pod))).await {
            if let Some(pod) = result? {
                self.hand.wrote(key, &pod);
            }
        }
        Ok(())
    }

    /// Carries a decision out. What fails is told after the status was written: it says how far the Job is.
    async fn carry_out(&self, key: &ObjectKey, job: &Job, decision: Decision) -> Result<Outcome, Error> {
        let Decision { dismiss, create, mut status, news, settle, stop, again } = decision;
        // First uncounted, then deleted: that they end says nothing about the Job.
        self.settle_all(key, &dismiss).await?;
        let mut failure: Option<Failure> = self.hand.delete(job, &dismiss).await;
        let lacking: Vec<Pod> = create.iter().map(|slot| pod::make(job, slot)).collect();
        let (created, not_created) = self.hand.create(job, &lacking).await;
        let active = status.active.unwrap_or(0) - crate::counts::saturate(lacking.len() - created);
        status.active = (active > 0).then_some(active);
        failure = not_created.or(failure);

        let api: Api<Job> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let patched = patch_status(&api, job, job.status.as_ref(), &status, account::AT).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.hand.reported(key, &updated);
        }
        for told in news {
            self.recorder.on(job, told.kind, &told.reason, told.message);
        }
        self.settle_all(key, &settle).await?;
        failure = self.hand.delete(job, &stop).await.or(failure);
        match failure {
            Some(failure) => Err(Error::Partial(failure.message)),
            // Times are kept in seconds: look a moment after the second has passed.
            None => Ok(again.map_or(Outcome::Done, |left| Outcome::After(left + Duration::from_millis(1)))),
        }
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(job) = self.jobs.get_key(&key) else {
            self.hand.forget(&key);
            return Ok(Outcome::Done);
        };
        let uid = job.metadata.uid.clone().unwrap_or_default();
        if is_foreign(&job) || is_finished(&job) {
            return Ok(Outcome::Done);
        }
        if !self.hand.is_current(&key, &uid, self.jobs.revision()) {
            return Ok(Outcome::Behind);
        }
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let candidates = pods::owned_and_orphans(&self.pods, &uid, &key.namespace);
        let claimed = self.hand.claim(&*job, &selector, candidates).await?;
        let decision = decide::decide(&job, claimed, Timestamp::now());
        self.carry_out(&key, &job, decision).await
    }
}
