//! What the driver holds of one Pod, beside its [`PodState`].

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wherry_runtime::{ContainerId, Image, PodNetwork, PodRef, Runtime};

use super::resize::Held;
use super::stop::Order;
use super::tokens::Tokens;
use crate::config::deferred::Deferred;
use crate::config::volumes::Volumes;
use crate::lifecycle::{Deletion, PodState, Slot, Want};
use crate::probe::{ProbeKind, Tracker};
use crate::shortage::LocalLimits;

/// A Pod's uid.
pub(crate) type Uid = Arc<str>;

/// One Pod on this node.
pub(super) struct Record {
    /// The manifest, with the resources that the Pod may have.
    pub(super) pod: Arc<Pod>,
    /// The manifest as it is, where the node has not granted what it asks for.
    pub(super) wanted: Option<Arc<Pod>>,
    /// What its containers request.
    pub(super) requests: Held,
    /// What it may have on the node's disk.
    pub(super) limits: LocalLimits,
    /// What is counted as the Pod's.
    pub(super) held: Held,
    /// It is noted in its directory that the API may not know what its containers have.
    pub(super) resize_noted: bool,
    pub(super) reference: PodRef,
    /// The Pod at the API that shows this one: itself; of a static Pod its mirror Pod, where there is one.
    pub(super) shown: Option<PodRef>,
    pub(super) dir: PathBuf,
    pub(super) state: PodState,
    pub(super) gone: bool,
    pub(super) network: Option<Arc<dyn PodNetwork>>,
    pub(super) volumes: Arc<Volumes>,
    /// What `/etc` has of the Pod, while its ground is made.
    pub(super) etc: Option<Arc<Deferred>>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) refresh: Refresh,
    pub(super) runs: HashMap<Slot, RunHandle>,
    /// The image of each container that has started, and those of its image volumes: in use until the Pod is over.
    pub(super) images: HashMap<Slot, Arc<Image>>,
    pub(super) volume_images: Vec<Arc<Image>>,
    pub(super) starting: HashMap<Slot, CancellationToken>,
    pub(super) trackers: HashMap<(Slot, ProbeKind), Tracker>,
    pub(super) status: PodStatus,
    pub(super) writing: Writing,
    /// Something it names changed while its ground was made, or a container started, of what was known before.
    pub(super) outdated: bool,
    /// ConfigMaps, Secrets and claims it names. What a manifest names never changes.
    named: HashSet<(&'static str, String)>,
}

/// A live run.
pub(super) struct RunHandle {
    pub(super) id: ContainerId,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) attempt: u32,
    /// How it is being stopped, once it is.
    pub(super) stop: Option<watch::Sender<Order>>,
}

/// Whether the Pod's volumes are being written again: one task at a time, or an older one could finish last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refresh {
    /// No.
    Idle,
    /// A task is at it.
    Running,
    /// A task is at it, and began before the last change: once it is done, another follows.
    Again,
}

/// Where the writing of a Pod's status is.
#[derive(Default)]
pub(super) struct Writing {
    /// What the API holds of what the agent writes.
    pub(super) written: Value,
    /// A patch is under way.
    pub(super) in_flight: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// When to try (again), where not at once.
    pub(super) not_before: Option<Timestamp>,
}

impl Record {
    pub(super) fn new(pod: Arc<Pod>, dir: PathBuf, state: PodState) -> Self {
        let reference = pod_ref(&pod);
        let status = pod.status.clone().unwrap_or_default();
        let writing = Writing { written: super::status::own(&status), ..Writing::default() };
        let named = named_objects(&pod);
        Self {
            requests: Held::of(&pod),
            limits: LocalLimits::of(&pod),
            held: Held::default(),
            wanted: None,
            resize_noted: false,
            pod,
            shown: Some(reference.clone()),
            reference,
            dir,
            state,
            gone: false,
            network: None,
            volumes: Arc::default(),
            etc: None,
            tokens: Arc::default(),
            refresh: Refresh::Idle,
            runs: HashMap::new(),
            images: HashMap::new(),
            volume_images: Vec::new(),
            starting: HashMap::new(),
            trackers: HashMap::new(),
            status,
            writing,
            outdated: false,
            named,
        }
    }

    pub(super) fn want(&self) -> Want {
        let meta = &self.pod.metadata;
        let deletion = meta.deletion_timestamp.as_ref().map(|at| Deletion {
            deadline: at.0,
            grace: std::time::Duration::from_secs(
                meta.deletion_grace_period_seconds.unwrap_or(30).max(0).unsigned_abs(),
            ),
        });
        Want { deletion, gone: self.gone }
    }

    /// The ConfigMaps, Secrets and claims it names: (kind, namespace, name).
    pub(super) fn objects(&self) -> impl Iterator<Item = (&'static str, String, String)> {
        self.named.iter().map(|(kind, name)| (*kind, self.reference.namespace.clone(), name.clone()))
    }

    /// No container is started any more.
    pub(super) fn ending(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some() || self.state.verdict.is_some()
    }
}

/// A Pod as runtimes and network know it.
pub(super) fn pod_ref(pod: &Pod) -> PodRef {
    let meta = &pod.metadata;
    PodRef {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// The ConfigMaps, Secrets and claims that a Pod's manifest names, so that their changes find the Pod.
fn named_objects(pod: &Pod) -> HashSet<(&'static str, String)> {
    let Some(spec) = &pod.spec else { return HashSet::new() };
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let from = || containers().flat_map(|container| container.env_from.iter().flatten());
    let values =
        || containers().flat_map(|container| container.env.iter().flatten()).filter_map(|env| env.value_from.as_ref());
    let volumes = || spec.volumes.iter().flatten();
    let projected = || {
        volumes()
            .filter_map(|volume| volume.projected.as_ref())
            .flat_map(|projected| projected.sources.iter().flatten())
    };
    let maps = from()
        .filter_map(|source| Some(source.config_map_ref.as_ref()?.name.clone()))
        .chain(values().filter_map(|value| Some(value.config_map_key_ref.as_ref()?.name.clone())))
        .chain(volumes().filter_map(|volume| Some(volume.config_map.as_ref()?.name.clone())))
        .chain(projected().filter_map(|source| Some(source.config_map.as_ref()?.name.clone())));
    let secrets = from()
        .filter_map(|source| Some(source.secret_ref.as_ref()?.name.clone()))
        .chain(values().filter_map(|value| Some(value.secret_key_ref.as_ref()?.name.clone())))
        .chain(volumes().filter_map(|volume| volume.secret.as_ref()?.secret_name.clone()))
        .chain(projected().filter_map(|source| Some(source.secret.as_ref()?.name.clone())))
        .chain(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let claims = volumes().filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod_name}-{}", volume.name)),
        _ => None,
    });
    let claims = claims.map(|name| ("claim", name));
    maps.map(|name| ("configmap", name)).chain(secrets.map(|name| ("secret", name))).chain(claims).collect()
}
