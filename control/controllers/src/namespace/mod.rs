//! Namespace deletion: empties a namespace that is being deleted, then lets it go.
//!
//! Flow of a pass: all Pods first, since they still use the rest; when none is left, every other namespaced resource that
//! discovery knows; then report what remains and why. When nothing does, the finalizer `kubernetes` is removed through
//! `/finalize`. A pass that leaves something behind is followed by another when one of those objects is gone.

mod conditions;

use std::{collections::BTreeMap, sync::Arc};

use conditions::Remaining;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceStatus},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Informer, ObjectKey, Outcome, Queue, Reconciler,
    status::{Precondition, patch_status},
};

use crate::{
    catalog::{Observer, Resource},
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "namespace-controller";
const WORKERS: usize = 4;
const FINALIZER: &str = "kubernetes";

pub(crate) struct Controller {
    context: Context,
    namespaces: Informer<Namespace>,
    resources: Vec<Arc<Resource>>,
    queue: Queue<ObjectKey>,
}

impl Controller {
    pub(crate) fn new(context: Context, resources: Vec<Arc<Resource>>) -> Arc<Self> {
        Arc::new(Self {
            namespaces: context.informers.get(),
            resources: resources.into_iter().filter(|resource| resource.namespaced && resource.can("delete")).collect(),
            queue: Queue::new(),
            context,
        })
    }

    /// Runs the controller until `cancel`.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        if cancel.run_until_cancelled(self.namespaces.synced()).await != Some(true) {
            return;
        }
        let namespaces = feed(self.namespaces.subscribe(), &cancel, |change| {
            if change.new.as_deref().is_some_and(is_deleting) {
                self.queue.add(change.key());
            }
        });
        let work = wherry_reconcile::run(NAME, self.queue.clone(), WORKERS, self.clone(), cancel.clone());
        tokio::join!(namespaces, work);
    }

    /// Deletes what it can of one resource and notes what is left.
    async fn empty(&self, namespace: &str, resource: &Resource, left: &mut Remaining) -> Result<(), kube::Error> {
        let api = resource.objects(&self.context.client, namespace);
        if resource.can("deletecollection") {
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        }
        if !resource.can("list") {
            return Ok(());
        }
        let mut params = ListParams::default().limit(500);
        loop {
            let page = api.list(&params).await?;
            for object in &page.items {
                left.note(&resource.to_string(), object.metadata.finalizers.as_deref().unwrap_or_default());
                if !resource.can("deletecollection") && object.metadata.deletion_timestamp.is_none() {
                    let name = object.metadata.name.as_deref().unwrap_or_default();
                    error::gone_is_fine(api.delete(name, &DeleteParams::background()).await)?;
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }

    async fn empty_all(&self, namespace: &str) -> Remaining {
        let (pods, others): (Vec<_>, Vec<_>) = self.resources.iter().partition(|resource| resource.is("", "Pod"));
        let mut left = Remaining::default();
        for resource in pods {
            if let Err(error) = self.empty(namespace, resource, &mut left).await {
                left.failed(error::message(&error));
            }
        }
        if !left.is_done() {
            return left;
        }
        for resource in others {
            match self.empty(namespace, resource, &mut left).await {
                Ok(()) => {}
                // The kind is gone, and its objects with it.
                Err(error) if error::is_not_found(&error) => {}
                Err(error) => left.failed(error::message(&error)),
            }
        }
        left
    }

    async fn report(&self, namespace: &Namespace, left: &Remaining) -> Result<(), Error> {
        let before = namespace.status.clone().unwrap_or_default();
        let status = NamespaceStatus {
            phase: Some("Terminating".into()),
            conditions: Some(conditions::updated(
                before.conditions.clone().unwrap_or_default(),
                left,
                Timestamp::now(),
            )),
        };
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let patched = patch_status(&api, namespace, namespace.status.as_ref(), &status, Precondition::Uid).await;
        error::gone_is_fine(patched)?;
        Ok(())
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let mut finalized = namespace.clone();
        if let Some(spec) = &mut finalized.spec {
            spec.finalizers.iter_mut().for_each(|finalizers| finalizers.retain(|name| name != FINALIZER));
        }
        // Our view may be older than our own report: the finalizers are what counts.
        finalized.metadata.resource_version = None;
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let result = api.replace_subresource("finalize", name, &PostParams::default(), &finalized).await;
        error::gone_is_fine(result)?;
        Ok(())
    }
}

fn is_deleting(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.is_some_and(|finalizers| finalizers.iter().any(|name| name == FINALIZER))
}

impl Observer for Controller {
    fn observe(&self, _: &Arc<Resource>, old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) {
        let (Some(old), None) = (old, new) else {
            return;
        };
        let Some(name) = old.namespace.as_deref() else {
            return;
        };
        if self.namespaces.get("", name).is_some_and(|namespace| is_deleting(&namespace)) {
            self.queue.add(ObjectKey::new("", name));
        }
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(namespace) = self.namespaces.get_key(&key).filter(|namespace| is_deleting(namespace)) else {
            return Ok(Outcome::Done);
        };
        let left = self.empty_all(&key.name).await;
        if left.is_done() {
            self.finalize(&namespace).await?;
            return Ok(Outcome::Done);
        }
        self.report(&namespace, &left).await?;
        if left.has_failures() || !self.will_be_told(left.counts()) {
            return Err(Error::Partial(left.to_string()));
        }
        Ok(Outcome::Done)
    }
}

impl Controller {
    /// Whether every kind of which something remains is watched, so that its end will wake us.
    fn will_be_told(&self, remaining: &BTreeMap<String, usize>) -> bool {
        remaining
            .keys()
            .all(|name| self.resources.iter().any(|resource| resource.is_watched() && resource.to_string() == *name))
    }
}
