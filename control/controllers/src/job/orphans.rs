//! Pods that wait to be counted by a Job that will not: it is gone, or it has ended. They lose their finalizer.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::Api;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Feeds, Informer, ObjectKey, Outcome, Reconciler,
    ownership::{controller_of, selects},
};

use super::{is_finished, is_foreign, settle, view::is_tracked};
use crate::{context::Context, error::Error, pods};

const NAME: &str = "job-controller-orphans";

struct Controller {
    context: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
}

/// Runs the controller until `cancel`. Its keys are those of Pods.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller { jobs: context.informers.get(), pods: context.informers.get(), context });
    pods::index(&controller.pods);
    let pods = controller.pods.clone();
    Feeds::new()
        .on(&controller.pods, |change| {
            change.new.iter().filter(|pod| is_tracked(pod)).map(|pod| ObjectKey::of(&**pod)).collect::<Vec<_>>()
        })
        .on(&controller.jobs, move |change| {
            // Its Pods' own changes tell as long as it is there and runs.
            let ended = change.new.as_ref().is_none_or(|job| is_finished(job));
            let uid = change.object().and_then(|job| job.metadata.uid.clone()).filter(|_| ended);
            let left = uid.map(|uid| pods.by_index(pods::BY_CONTROLLER, &uid)).unwrap_or_default();
            left.into_iter().filter(|pod| is_tracked(pod)).map(|pod| ObjectKey::of(&*pod)).collect::<Vec<_>>()
        })
        .run(NAME, 4, controller.clone(), cancel)
        .await;
}

impl Controller {
    /// Whether a Job is there that counts the Pod, or is going to adopt it.
    fn is_awaited(&self, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        match controller_of(&pod.metadata) {
            Some(owner) => self.jobs.get(namespace, &owner.name).is_some_and(|job| {
                job.metadata.uid.as_ref() == Some(&owner.uid) && (!is_finished(&job) || is_foreign(&job))
            }),
            None => self.jobs.list_namespace(namespace).iter().any(|job| {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                !is_finished(job)
                    && job.metadata.deletion_timestamp.is_none()
                    && pod.metadata.deletion_timestamp.is_none()
                    && selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
            }),
        }
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get_key(&key).filter(|pod| is_tracked(pod) && !self.is_awaited(pod)) else {
            return Ok(Outcome::Done);
        };
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        settle(&api, &pod).await?;
        Ok(Outcome::Done)
    }
}
