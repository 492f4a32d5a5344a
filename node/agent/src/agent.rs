//! The agent of one node: what joins its parts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{EventType, Informer, Informers, Recorder};
use wherry_runtime::{PodRef, Runtime};

use crate::clock::Clock;
use crate::config::Objects;
use crate::config::volumes::{Pins, unmount_below};
use crate::connector::Connector;
use crate::driver::Driver;
use crate::driver::shared::{Limits, Shared, View};
use crate::logs::Logs;
use crate::manifests::Manifests;
use crate::measure::{Connections, Machine, MachineSupply, Meter};
use crate::node::heartbeat::Heartbeat;
use crate::node::register::{Facts, NotReady, architecture};
use crate::node::{Capacity, feed, local_path, waking};
use crate::ports::{ImageSource, NetworkStart, NodeNet, Supply};
use crate::shortage::{Pressure, ShortageOptions};
use crate::streams::Sessions;

/// What an agent is made of.
pub struct Config {
    /// The Node's name.
    pub node_name: String,
    /// As `system:node:<name>`.
    pub client: kube::Client,
    /// The process's informers.
    pub informers: Informers,
    /// As component `kubelet` of this node.
    pub recorder: Recorder,
    /// Runs WebAssembly.
    pub wasm: Arc<dyn Runtime>,
    /// Runs containers; none where the node cannot.
    pub containers: Option<Arc<dyn Runtime>>,
    /// Images of both kinds.
    pub images: Arc<dyn ImageSource>,
    /// Starts the node's network once the Node has a Pod CIDR.
    pub network: Arc<dyn NetworkStart>,
    /// Pods' files lie in `<data_dir>/pods`, the node's seccomp profiles in `<data_dir>/seccomp`.
    pub data_dir: PathBuf,
    /// Where what the agent writes for Pods from Secrets, ConfigMaps, fields and tokens lies, the node's alone: in [`Memory`]
    /// where there is any, in `<data_dir>/written` where none. It is there again when containers are, after a restart of the agent.
    pub memory_dir: Option<PathBuf>,
    /// Labels beside the agent's own.
    pub labels: BTreeMap<String, String>,
    /// Where manifests of Pods lie that the node runs by itself, if anywhere: kubelet's `--pod-manifest-path`.
    pub manifests: Option<PathBuf>,
    /// What the node offers; what the machine has where none.
    pub capacity: Option<Capacity>,
    /// What is left of it; what the machine tells where none.
    pub supply: Option<Arc<dyn Supply>>,
    /// What is done where that is too little.
    pub shortage: ShortageOptions,
    /// The time; [`Clock::default`] outside tests.
    pub clock: Clock,
}

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its directory.
    #[error("cannot use {}: {error}", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Its network.
    #[error("cannot start the node's network: {0}")]
    Network(String),
}

/// The agent of one node: see the crate's documentation.
pub struct Agent {
    config: Config,
    capacity: Capacity,
    logs: Arc<Logs>,
    pins: Option<Arc<Pins>>,
    manifests: Option<Manifests>,
    view: Arc<View>,
    meter: Arc<Meter>,
    connections: Arc<Connections>,
    sessions: Arc<Sessions>,
    not_ready: watch::Sender<NotReady>,
    pressure: watch::Sender<Pressure>,
}

impl Agent {
    /// An agent that does not run yet; its HTTP API answers already.
    ///
    /// # Errors
    /// [`AgentError::Directory`].
    pub fn new(config: Config) -> Result<Self, AgentError> {
        let dir = config.data_dir.join("pods");
        let private = || {
            use std::os::unix::fs::DirBuilderExt as _;
            let make = |dir: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            // Secrets' values lie here.
            make(&written(&config))?;
            make(&dir)?;
            Logs::new(dir.clone())
        };
        let logs = private().map_err(|error| AgentError::Directory { dir: dir.clone(), error })?;
        let pins = config.containers.is_some().then(|| Pins::new(&config.data_dir)).transpose();
        let pins = pins.map_err(|error| AgentError::Directory { dir: PathBuf::from("/run/wherry"), error })?;
        let manifests = config.manifests.as_deref().map(|dir| {
            Manifests::open(dir, &config.node_name)
                .map_err(|error| AgentError::Directory { dir: dir.to_owned(), error })
        });
        let manifests = manifests.transpose()?;
        let capacity = config.capacity.clone().unwrap_or_else(|| Capacity::detect(&config.data_dir));
        let not_ready =
            watch::Sender::new(Some("container runtime network not ready: the node has no Pod CIDR yet".to_owned()));
        let view = Arc::<View>::default();
        let meter = Meter::new(view.clone(), Machine::new(capacity.clone(), &config.data_dir));
        Ok(Self {
            config,
            capacity,
            logs,
            pins: pins.map(Arc::new),
            manifests,
            view,
            meter,
            connections: Arc::default(),
            sessions: Arc::default(),
            not_ready,
            pressure: watch::Sender::default(),
        })
    }

    /// Why the node is not ready, as this life of the agent sees it; none once it is.
    pub fn not_ready(&self) -> watch::Receiver<Option<String>> {
        self.not_ready.subscribe()
    }

    /// Logs, Pods, metrics and health, for the API server's node connector.
    pub fn http(&self) -> axum::Router {
        let node = self.config.node_name.clone();
        crate::http::router(self.view.clone(), self.logs.clone())
            .merge(crate::http::metrics::router(node, self.meter.clone(), self.connections.clone()))
            .merge(crate::streams::router(self.view.clone(), self.sessions.clone()))
    }

    /// The way to [`http`](Self::http) for an API server in this process.
    #[must_use]
    pub fn connector(&self) -> Connector {
        Connector(self.http())
    }

    /// Registers the Node, starts its network, then runs its Pods until cancelled. Containers are left as they are.
    ///
    /// # Errors
    /// [`AgentError::Network`].
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), AgentError> {
        let cancel = cancel.child_token();
        let _stop_parts = cancel.clone().drop_guard();
        let mut parts = JoinSet::new();
        let heartbeat = Heartbeat {
            client: self.config.client.clone(),
            facts: self.facts(),
            images: self.config.images.clone(),
            runtimes: std::iter::once(&self.config.wasm).chain(&self.config.containers).cloned().collect(),
            pressure: self.pressure.subscribe(),
            not_ready: self.not_ready.subscribe(),
            nodes: self.config.informers.get(),
        };
        parts.spawn(heartbeat.run(cancel.clone()));
        let Some(network) = self.start_network(&cancel).await? else { return Ok(()) };
        self.meter.set_network(network.clone());
        self.connections.set_network(network.clone());
        let informers = self.config.informers.clone();
        let shared = self.shared(network.clone());
        let waiting = network.waiting();
        {
            let (informers, network, cancel) = (informers.clone(), network.clone(), cancel.clone());
            parts.spawn(async move { feed::services(&informers, network, cancel).await });
        }
        {
            let (informers, network, cancel, own) =
                (informers.clone(), network, cancel.clone(), self.config.node_name.clone());
            parts.spawn(async move { feed::peers(&informers, own, network, cancel).await });
        }
        {
            let volumes = local_path::Keeper {
                client: self.config.client.clone(),
                node: self.config.node_name.clone(),
                dir: self.local_path(),
                volumes: informers.get(),
            };
            parts.spawn(volumes.run(cancel.clone()));
        }
        if let Some(waiting) = waiting {
            let teller = waking::Teller {
                client: self.config.client.clone(),
                node: self.config.node_name.clone(),
                services: informers.get(),
                recorder: self.config.recorder.clone(),
                waiting,
            };
            parts.spawn(teller.run(cancel.clone()));
        }
        shared.node_event(EventType::Normal, "Starting", "Starting kubelet.");
        self.not_ready.send_replace(None);
        let ready = format!("Node {} status is now: NodeReady", self.config.node_name);
        shared.node_event(EventType::Normal, "NodeReady", ready);
        Driver::new(Arc::new(shared), self.manifests.take()).run(&informers, cancel.clone()).await;
        cancel.cancel();
        while parts.join_next().await.is_some() {}
        self.sessions.close().await;
        Ok(())
    }

    /// Waits for the Node's Pod CIDR. None where cancelled first.
    async fn start_network(&self, cancel: &CancellationToken) -> Result<Option<Arc<dyn NodeNet>>, AgentError> {
        let nodes = self.config.informers.get::<Node>();
        let mut changes = nodes.subscribe();
        let cidr = loop {
            let known = nodes.get("", &self.config.node_name);
            if let Some(cidr) = known.and_then(|node| node.spec.as_ref()?.pod_cidr.clone()) {
                break cidr;
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(None),
                change = changes.next() => if change.is_none() {
                    return Ok(None);
                },
            }
        };
        self.config.network.start(&cidr).await.map(Some).map_err(AgentError::Network)
    }

    fn facts(&self) -> Facts {
        let config = &self.config;
        let mut labels = BTreeMap::from([
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
            ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
            ("wherry.dev/wasm".to_owned(), "true".to_owned()),
            ("wherry.dev/containers".to_owned(), config.containers.is_some().to_string()),
        ]);
        labels.extend(config.labels.clone());
        let runtime = config.containers.as_ref().unwrap_or(&config.wasm).info();
        Facts {
            name: config.node_name.clone(),
            labels,
            local_path: self.local_path(),
            ips: config.network.node_ips(),
            capacity: self.capacity.clone(),
            runtime,
        }
    }

    fn shared(&self, network: Arc<dyn NodeNet>) -> Shared {
        let config = &self.config;
        Shared {
            node_name: config.node_name.clone(),
            client: config.client.clone(),
            recorder: config.recorder.clone(),
            wasm: config.wasm.clone(),
            containers: config.containers.clone(),
            images: config.images.clone(),
            network,
            local_path: self.local_path(),
            written: written(config),
            image_volumes: config.data_dir.join("image-volumes"),
            objects: Arc::new(Caches::new(&config.informers)),
            pins: self.pins.clone(),
            logs: self.logs.clone(),
            seccomp_profiles: config.data_dir.join("seccomp"),
            clock: config.clock.clone(),
            capacity: self.capacity.clone(),
            supply: config.supply.clone().unwrap_or_else(|| Arc::new(MachineSupply::new(&config.data_dir))),
            meter: self.meter.clone(),
            shortage: config.shortage.clone(),
            pressure: self.pressure.clone(),
            view: self.view.clone(),
            limits: Limits::default(),
        }
    }

    /// Where this node's volumes of the class local-path lie.
    fn local_path(&self) -> PathBuf {
        let dir = self.config.data_dir.join("volumes");
        std::path::absolute(&dir).unwrap_or(dir)
    }
}

fn written(config: &Config) -> PathBuf {
    config.memory_dir.clone().unwrap_or_else(|| config.data_dir.join("written"))
}

/// What Pods may name, from the process's informers.
struct Caches {
    maps: Informer<ConfigMap>,
    secrets: Informer<Secret>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    services: Informer<Service>,
    classes: Informer<RuntimeClass>,
}

impl Caches {
    fn new(informers: &Informers) -> Self {
        Self {
            maps: informers.get(),
            secrets: informers.get(),
            claims: informers.get(),
            volumes: informers.get(),
            services: informers.get(),
            classes: informers.get(),
        }
    }
}

impl Objects for Caches {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.maps.get(namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(namespace, name)
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(namespace, name)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get("", name)
    }

    fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.services.list_namespace(namespace)
    }

    fn runtime_handler(&self, name: &str) -> Option<String> {
        self.classes.get("", name).map(|class| class.handler.clone())
    }
}

/// Unmounts what the Pods of a node had in memory, once none of its containers runs any more. As after a restart of the machine,
/// they begin with nothing there.
///
/// # Errors
/// What the system says.
pub fn vacate(data_dir: &Path) -> io::Result<()> {
    unmount_below(&data_dir.join("pods"))
}

/// A Pod reference's place in logs.
impl Agent {
    /// The directory in which a Pod's logs and volumes lie.
    #[must_use]
    pub fn pod_dir(&self, pod: &PodRef) -> PathBuf {
        self.logs.pod_dir(&pod.namespace, &pod.name, &pod.uid)
    }
}
