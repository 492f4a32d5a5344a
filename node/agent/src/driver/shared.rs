//! What every task of the driver uses.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};
use wherry_reconcile::{EventType, Recorder};
use wherry_runtime::{ContainerId, ImageKind, PodNetwork, Runtime};

use crate::clock::Clock;
use crate::config::Objects;
use crate::config::fields::PodFacts;
use crate::config::volumes::Pins;
use crate::lifecycle::{self, Slot};
use crate::logs::Logs;
use crate::measure::Meter;
use crate::node::Capacity;
use crate::ports::{ImageSource, NodeNet, Supply};
use crate::shortage::{Pressure, ShortageOptions};

/// Shared by the driver's tasks; nothing here changes but the view.
pub(crate) struct Shared {
    pub(crate) node_name: String,
    pub(crate) client: kube::Client,
    pub(crate) recorder: Recorder,
    pub(crate) wasm: Arc<dyn Runtime>,
    pub(crate) containers: Option<Arc<dyn Runtime>>,
    pub(crate) images: Arc<dyn ImageSource>,
    pub(crate) network: Arc<dyn NodeNet>,
    pub(crate) objects: Arc<dyn Objects>,
    /// Where this node's volumes of the class local-path lie.
    pub(crate) local_path: PathBuf,
    /// What the agent writes for Pods from Secrets and the like lies here, by uid and volume.
    pub(crate) written: PathBuf,
    /// Where images that Pods mount are unpacked, by digest.
    pub(crate) image_volumes: PathBuf,
    /// Names for subPaths; where there are containers.
    pub(crate) pins: Option<Arc<Pins>>,
    pub(crate) logs: Arc<Logs>,
    /// Where the files of `seccompProfile.localhostProfile` lie.
    pub(crate) seccomp_profiles: PathBuf,
    pub(crate) clock: Clock,
    pub(crate) capacity: Capacity,
    /// What the node has left of what it may run short of.
    pub(crate) supply: Arc<dyn Supply>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) shortage: ShortageOptions,
    /// What the node is told to be short of.
    pub(crate) pressure: watch::Sender<Pressure>,
    pub(crate) view: Arc<View>,
    pub(crate) limits: Limits,
}

/// How much is done at once.
pub(crate) struct Limits {
    /// Containers being created and started.
    pub(crate) starts: Semaphore,
    /// Probes.
    pub(crate) probes: Semaphore,
    /// Requests to the API server.
    pub(crate) writes: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self { starts: Semaphore::new(16), probes: Semaphore::new(64), writes: Semaphore::new(64) }
    }
}

/// What the HTTP side may see of the Pods.
pub(crate) type View = RwLock<HashMap<(String, String), Seen>>;

/// One Pod, for readers.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) pod: Arc<Pod>,
    pub(crate) dir: PathBuf,
    /// While it has one.
    pub(crate) network: Option<Arc<dyn PodNetwork>>,
    pub(crate) containers: Vec<SeenContainer>,
}

/// One container, for readers.
#[derive(Clone)]
pub(crate) struct SeenContainer {
    pub(crate) name: String,
    /// Runs made so far.
    pub(crate) attempts: u32,
    /// Its live run, and what runs it.
    pub(crate) live: Option<(ContainerId, Arc<dyn Runtime>)>,
    /// The reason it waits with.
    pub(crate) waiting: Option<String>,
}

impl Shared {
    /// The runtime of a kind; none where this node has none.
    pub(crate) fn runtime(&self, kind: ImageKind) -> Option<&Arc<dyn Runtime>> {
        match kind {
            ImageKind::Wasm => Some(&self.wasm),
            ImageKind::Container => self.containers.as_ref(),
        }
    }

    /// Both runtimes.
    pub(crate) fn runtimes(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        std::iter::once(&self.wasm).chain(self.containers.as_ref())
    }

    /// What the agent writes for a Pod's volumes.
    pub(crate) fn written(&self, uid: &str) -> PathBuf {
        self.written.join(uid)
    }

    /// Whether the Pod's RuntimeClass says Wasm.
    pub(crate) fn is_wasm_class(&self, pod: &Pod) -> bool {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
        class.is_some_and(|class| {
            let handler = self.objects.runtime_handler(class).unwrap_or_else(|| class.to_owned());
            wherry_api::runtime_class::is_wasm(&handler)
        })
    }

    /// An event about the node.
    pub(crate) fn node_event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        let node = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.event(&node, kind, reason, message);
    }

    /// An event about the Pod.
    pub(crate) fn event(&self, pod: &Pod, kind: EventType, reason: &str, message: impl Into<String>) {
        self.recorder.event(&reference(pod, None), kind, reason, message);
    }

    /// An event about one of its containers.
    pub(crate) fn container_event(
        &self,
        pod: &Pod,
        slot: Slot,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.recorder.event(&reference(pod, Some(slot)), kind, reason, message);
    }

    /// What the downward API tells that is not in the manifest.
    pub(crate) fn facts(&self, pod_ips: &[std::net::IpAddr]) -> PodFacts {
        PodFacts {
            pod_ips: pod_ips.iter().map(ToString::to_string).collect(),
            host_ips: self.network.node_ips().iter().map(ToString::to_string).collect(),
        }
    }
}

fn reference(pod: &Pod, slot: Option<Slot>) -> ObjectReference {
    let meta = &pod.metadata;
    let field_path = slot.map(|slot| {
        let (list, _) = lifecycle::field(slot);
        format!("spec.{list}{{{}}}", lifecycle::name(pod, slot))
    });
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path,
    }
}
