//! Static Pods: what manifests of the node say is run, and shown to the API by mirror Pods.
//!
//! ```text
//!  manifests ─► wanted ─┐                         ┌─► a record, as of any Pod; only one at a time of a name
//!                       ├─► by name: settle ──────┤
//!  mirror Pods (API) ───┘                         └─► the mirror Pod: created, removed where it shows another manifest
//! ```
//!
//! Source of the behaviour: kubelet's `pkg/kubelet/pod/mirror_client.go` and its pod workers. The API decides nothing about a static
//! Pod: a mirror Pod that is deleted comes again, and while it cannot be made the Pod runs all the same. A manifest that changes is
//! another Pod: it begins when the one before has ended.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use wherry_api::mirror;
use wherry_reconcile::{Change, Informer};
use wherry_runtime::PodRef;

use super::outcome::Outcome;
use super::record::{Record, Uid, pod_ref};
use super::shared::Shared;
use super::{Driver, Timer, status};
use crate::lifecycle::{self, add};
use crate::manifests::{Key, Wanted, key};

/// Between attempts at a mirror Pod that the API server refuses.
const RETRY: Duration = Duration::from_secs(5);

/// What is known of static Pods.
#[derive(Default)]
pub(super) struct Statics {
    /// The manifests as they are.
    wanted: Wanted,
    /// The Pod that has the name now, which may be one of an earlier manifest.
    running: HashMap<Key, Uid>,
    /// What the API shows.
    mirrors: HashMap<Key, Arc<Pod>>,
    /// Mirror Pods that are being made or removed, until the API tells of it.
    busy: HashSet<Key>,
    /// For the uid of their owner.
    nodes: Option<Informer<Node>>,
}

/// Whether a Pod of the API is a mirror Pod.
pub(super) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, mirror::MIRROR).is_some()
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether `shown` shows `pod` and is to stay.
fn shows(shown: &Pod, pod: &Pod) -> bool {
    shown.metadata.deletion_timestamp.is_none() && annotation(shown, mirror::MIRROR) == annotation(pod, mirror::HASH)
}

impl Driver {
    /// Takes up the manifests and mirror Pods of before: the Pods that are to run, with what the API was told of them.
    pub(super) fn take_up_statics(
        &mut self,
        wanted: Wanted,
        mirrors: Vec<Arc<Pod>>,
        nodes: Informer<Node>,
    ) -> Vec<Arc<Pod>> {
        self.statics.nodes = Some(nodes);
        self.statics.mirrors = mirrors.into_iter().map(|pod| (key(&pod), pod)).collect();
        self.statics.wanted = wanted;
        let mut pods = Vec::new();
        for (key, pod) in &self.statics.wanted {
            let shown = self.statics.mirrors.get(key).filter(|shown| shows(shown, pod));
            pods.push(Arc::new(Pod { status: shown.and_then(|shown| shown.status.clone()), ..(**pod).clone() }));
        }
        for pod in &pods {
            if let Some(uid) = pod.metadata.uid.as_deref() {
                self.statics.running.insert(key(pod), uid.into());
            }
        }
        pods
    }

    /// Whether a Pod is one of a manifest.
    pub(super) fn is_static(&self, uid: &Uid) -> bool {
        self.statics.running.values().any(|known| known == uid)
    }

    /// The manifests are others.
    pub(super) fn manifests_changed(&mut self, wanted: Wanted) {
        let before = std::mem::replace(&mut self.statics.wanted, wanted);
        let keys: BTreeSet<Key> = before.into_keys().chain(self.statics.wanted.keys().cloned()).collect();
        for key in keys {
            self.settle_static(&key);
        }
    }

    /// The API shows another mirror Pod than before, or none.
    pub(super) fn mirror_changed(&mut self, change: &Change<Pod>) {
        let Some(pod) = change.object() else { return };
        let key = key(pod);
        match change.new.as_ref().filter(|pod| self.is_ours(pod) && is_mirror(pod)) {
            Some(pod) => self.statics.mirrors.insert(key.clone(), pod.clone()),
            None => self.statics.mirrors.remove(&key),
        };
        self.statics.busy.remove(&key);
        self.settle_static(&key);
    }

    /// A Pod has ended for good: where it was a static one, its name is free.
    pub(super) fn static_forgotten(&mut self, key: &Key, uid: &Uid) {
        if self.statics.running.get(key) == Some(uid) {
            self.statics.running.remove(key);
            self.settle_static(key);
        }
    }

    /// Brings all names to what their manifests say.
    pub(super) fn settle_statics(&mut self) {
        let statics = &self.statics;
        let keys: BTreeSet<Key> = statics.wanted.keys().chain(statics.mirrors.keys()).cloned().collect();
        for key in keys {
            self.settle_static(&key);
        }
    }

    /// Brings a name to what its manifest says.
    fn settle_static(&mut self, key: &Key) {
        let wanted = self.statics.wanted.get(key).cloned();
        match (wanted, self.statics.running.get(key).cloned()) {
            (Some(pod), None) => self.begin_static(key, pod),
            (Some(pod), Some(uid)) if pod.metadata.uid.as_deref() == Some(&*uid) => {}
            (_, Some(uid)) => self.end_static(&uid),
            (None, None) => {}
        }
        self.settle_mirror(key);
    }

    fn begin_static(&mut self, key: &Key, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.as_deref().map(Uid::from) else { return };
        let reference = pod_ref(&pod);
        let dir = self.shared.logs.pod_dir(&reference.namespace, &reference.name, &reference.uid);
        let state = lifecycle::recover_status(&pod);
        let mut record = Record::new(pod, dir, state);
        record.shown = None;
        self.statics.running.insert(key.clone(), uid.clone());
        self.insert(uid.clone(), record);
        self.reconcile(&uid);
    }

    /// As if it had been deleted, with the grace of its manifest.
    fn end_static(&mut self, uid: &Uid) {
        let now = self.shared.clock.now();
        let Some(record) = self.pods.get_mut(uid).filter(|record| record.pod.metadata.deletion_timestamp.is_none())
        else {
            return;
        };
        let mut pod = (*record.pod).clone();
        let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30).max(0);
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        pod.metadata.deletion_timestamp = Some(Time(add(now, Duration::from_secs(grace.unsigned_abs()))));
        record.pod = Arc::new(pod);
        self.reconcile(uid);
    }

    /// Sees to it that the API shows what runs under a name, and nothing where nothing does.
    pub(super) fn settle_mirror(&mut self, key: &Key) {
        if self.statics.busy.contains(key) {
            return;
        }
        let running = self.statics.running.get(key).cloned();
        let record = running.as_ref().and_then(|uid| self.pods.get_mut(uid));
        let shown = self.statics.mirrors.get(key);
        match (record, shown) {
            (Some(record), Some(shown)) if shows(shown, &record.pod) => {
                let reference = pod_ref(shown);
                let known = record.shown.as_ref().is_some_and(|known| known.uid == reference.uid);
                record.pod = Arc::new(Pod { status: shown.status.clone(), ..(*record.pod).clone() });
                if !known {
                    record.writing.written = status::own(&shown.status.clone().unwrap_or_default());
                    record.shown = Some(reference);
                }
                if let Some(uid) = running {
                    self.reconcile(&uid);
                }
            }
            (record, Some(shown)) => {
                if let Some(record) = record {
                    record.shown = None;
                }
                let (shared, reference) = (self.shared.clone(), pod_ref(shown));
                self.change_mirror(key, async move { remove(&shared, &reference).await });
            }
            (Some(record), None) => {
                record.shown = None;
                // What is about to end is not shown anew.
                if !record.ending() {
                    let (shared, pod) = (self.shared.clone(), record.pod.clone());
                    let node = self.statics.nodes.as_ref().and_then(|nodes| nodes.get("", &shared.node_name));
                    self.change_mirror(key, async move { create(&shared, &pod, node).await });
                }
            }
            (None, None) => {}
        }
    }

    fn change_mirror(&mut self, key: &Key, change: impl Future<Output = Result<(), String>> + Send + 'static) {
        self.statics.busy.insert(key.clone());
        let key = key.clone();
        let lost = Outcome::Mirrored { key: key.clone(), failed: true };
        self.spawn(lost, async move {
            let done = change.await;
            if let Err(problem) = &done {
                tracing::warn!(namespace = key.0, pod = key.1, problem, "cannot show a static Pod, trying again");
            }
            Outcome::Mirrored { key, failed: done.is_err() }
        });
    }

    /// A mirror Pod was made or removed, of which the informer tells; or could not be.
    pub(super) fn mirrored(&mut self, key: Key, failed: bool) {
        if failed {
            self.statics.busy.remove(&key);
            self.timers.set(&Timer::Mirror(key), Some(add(self.shared.clock.now(), RETRY)));
        }
    }
}

/// Makes the mirror Pod.
async fn create(shared: &Shared, pod: &Pod, node: Option<Arc<Node>>) -> Result<(), String> {
    let owner = node.and_then(|node| node.metadata.uid.clone()).ok_or("the Node is not known")?;
    let mut shown = Pod { status: None, ..pod.clone() };
    let meta = &mut shown.metadata;
    meta.uid = None;
    let annotations = meta.annotations.get_or_insert_default();
    let hash = annotations.get(mirror::HASH).cloned().unwrap_or_default();
    annotations.insert(mirror::MIRROR.to_owned(), hash);
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: shared.node_name.clone(),
        uid: owner,
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let _permit = shared.limits.writes.acquire().await;
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    api.create(&PostParams::default(), &shown).await.map(drop).map_err(|error| error.to_string())
}

/// Removes a mirror Pod at once: nothing of it runs.
async fn remove(shared: &Shared, reference: &PodRef) -> Result<(), String> {
    let _permit = shared.limits.writes.acquire().await;
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &reference.namespace);
    let preconditions = Preconditions { uid: Some(reference.uid.clone()), resource_version: None };
    let params =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&reference.name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
