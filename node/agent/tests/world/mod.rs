//! A node without a machine: the real agent and API server, a fake runtime, images and network that do as told.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "tests, of which each uses a part")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wherry_agent::ports::{Amount, ImageSource, Left, NetworkStart, NodeImage, NodeNet, PullError, Supply};
use wherry_agent::{Agent, Capacity, Clock, Config, DnsConfig, ShortageOptions};
use wherry_network::{PodRequest, Service, ServiceKey};
use wherry_reconcile::{Informers, Recorders};
use wherry_runtime::fake::FakeRuntime;
use wherry_runtime::{Descriptor, Image, ImageKind, PodNetwork, PodRef, SocketFamily, SocketKind};
use wherry_server::{Server, User};
use wherry_store::MemoryStore;

pub const NODE: &str = "n1";
/// No test waits this long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a thing that has to happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// A machine that has as much left as a test says; at first of everything more than enough.
pub struct Machine(Mutex<Left>, AtomicUsize);

impl Default for Machine {
    fn default() -> Self {
        let plenty = Some(Amount { available: 1 << 40, capacity: 1 << 40 });
        let left = Left { memory: plenty, disk: plenty, inodes: plenty, pids: plenty };
        Self(Mutex::new(left), AtomicUsize::new(0))
    }
}

impl Machine {
    pub fn set(&self, change: impl FnOnce(&mut Left)) {
        change(&mut self.0.lock());
    }

    /// How often the agent has looked at it.
    pub fn looks(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Supply for Machine {
    fn left(&self) -> Left {
        self.1.fetch_add(1, Ordering::Relaxed);
        *self.0.lock()
    }
}

/// What collecting an image gives back.
pub const IMAGE_BYTES: u64 = 1 << 20;

/// Images by reference; what is not there cannot be pulled. Those that are collected give room to the machine's disk.
#[derive(Default)]
pub struct Images {
    known: Mutex<HashMap<String, (ImageKind, bool)>>,
    held: Mutex<Vec<Weak<Image>>>,
    pub machine: Arc<Machine>,
}

impl Images {
    /// An image on the node (or, where not `local`, in the registry).
    pub fn add(&self, reference: &str, kind: ImageKind, local: bool) {
        self.known.lock().insert(reference.to_owned(), (kind, local));
    }

    /// The digest of an image's manifest.
    pub fn digest(reference: &str) -> String {
        let hex: String = reference.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex:0>64}")
    }

    fn hand_out(&self, reference: &str, kind: ImageKind) -> Arc<Image> {
        let image = Self::image(reference, kind);
        self.held.lock().push(Arc::downgrade(&image));
        image
    }

    fn image(reference: &str, kind: ImageKind) -> Arc<Image> {
        let blob = Descriptor {
            media_type: String::new(),
            digest: Self::digest(reference),
            size: 1,
            path: PathBuf::from("/dev/null"),
        };
        Arc::new(Image {
            reference: reference.to_owned(),
            id: format!("{reference}@sha256:{:064}", 1),
            kind,
            manifest: blob.clone(),
            config: blob.clone(),
            layers: vec![blob],
            entrypoint: vec![],
            cmd: vec![],
            env: vec![],
            working_dir: None,
            user: None,
        })
    }
}

#[async_trait]
impl ImageSource for Images {
    fn get(&self, reference: &str) -> Result<Option<Arc<Image>>, PullError> {
        if reference.contains(' ') {
            return Err(PullError { reason: "InvalidImageName", message: "not a reference".to_owned() });
        }
        let known = self.known.lock();
        Ok(known.get(reference).filter(|(_, local)| *local).map(|(kind, _)| self.hand_out(reference, *kind)))
    }

    async fn latest_kind(&self, reference: &str, _secrets: &[Vec<u8>]) -> Option<ImageKind> {
        self.known.lock().get(reference).map(|(kind, _)| *kind)
    }

    async fn pull(&self, reference: &str, _secrets: &[Vec<u8>]) -> Result<Arc<Image>, PullError> {
        let mut images = self.known.lock();
        let Some((kind, local)) = images.get_mut(reference) else {
            return Err(PullError {
                reason: "ErrImagePull",
                message: format!("{reference}: not found in the registry"),
            });
        };
        *local = true;
        Ok(self.hand_out(reference, *kind))
    }

    fn unpack(&self, image: &Image, dir: &Path) -> Result<(), PullError> {
        let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(dir.join("name"), &image.reference));
        written.map_err(|error| PullError { reason: "ErrImagePull", message: error.to_string() })
    }

    fn list(&self) -> Vec<NodeImage> {
        Vec::new()
    }

    fn note_uses(&self) {}

    fn collect(&self, bytes: u64, _min_age: Duration) -> Result<u64, String> {
        let mut known = self.known.lock();
        let held: Vec<_> =
            self.held.lock().iter().filter_map(Weak::upgrade).map(|image| image.reference.clone()).collect();
        let mut freed = 0;
        for (reference, (_, local)) in known.iter_mut() {
            if freed < bytes && *local && !held.contains(reference) {
                *local = false;
                freed += IMAGE_BYTES;
            }
        }
        self.machine.set(|left| left.disk.as_mut().unwrap().available += freed);
        Ok(freed)
    }

    fn blobs(&self) -> Result<HashSet<String>, String> {
        let known = self.known.lock();
        Ok(known.iter().filter(|(_, (_, local))| *local).map(|(reference, _)| Self::digest(reference)).collect())
    }
}

/// Pods get real loopback addresses, so that probes find what a test listens with.
pub struct Network {
    pods: Mutex<HashMap<String, (IpAddr, bool)>>,
    next: Mutex<u8>,
    pub services: Mutex<BTreeMap<ServiceKey, Service>>,
    changed: tokio::sync::Notify,
    subnet: u8,
}

struct PodNet {
    ips: [IpAddr; 1],
    namespace: Option<PathBuf>,
}

#[async_trait]
impl PodNetwork for PodNet {
    fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    fn namespace(&self) -> Option<&Path> {
        self.namespace.as_deref()
    }

    fn socket(&self, _family: SocketFamily, _kind: SocketKind) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        Ok(addr)
    }

    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        Ok(addr)
    }

    async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Network {
    pub fn new(subnet: u8) -> Arc<Self> {
        Arc::new(Self {
            pods: Mutex::default(),
            next: Mutex::new(1),
            services: Mutex::default(),
            changed: tokio::sync::Notify::new(),
            subnet,
        })
    }

    /// Has it that an earlier life made the network of a Pod.
    pub fn leave(&self, uid: &str) {
        self.pods.lock().insert(uid.to_owned(), (Ipv4Addr::new(127, 77, self.subnet, 200).into(), true));
    }

    /// Waits until a Service is as `wanted` says.
    pub async fn service(&self, name: &str, wanted: impl Fn(Option<&Service>) -> bool) {
        loop {
            let changed = self.changed.notified();
            let key = ServiceKey { namespace: "default".to_owned(), name: name.to_owned() };
            if wanted(self.services.lock().get(&key)) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until so many Pods have an address.
    pub async fn pods(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.pods.lock().len() == count {
                return;
            }
            changed.await;
        }
    }

    /// Waits until no Pod has an address. A Pod that had ended leaves the API before the agent has cleared up after it.
    pub async fn emptied(&self) {
        let empty = async {
            loop {
                let changed = self.changed.notified();
                if self.pods.lock().is_empty() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), empty).await.expect("a Pod's address is not given back");
    }
}

/// The network, as it is handed to an agent.
pub struct Shared(pub Arc<Network>);

#[async_trait]
impl NodeNet for Shared {
    async fn add_pod(&self, pod: &PodRef, request: PodRequest) -> Result<Arc<dyn PodNetwork>, String> {
        let PodRequest { namespaced, ip, .. } = request;
        let network = &self.0;
        let (ip, namespaced) = *network.pods.lock().entry(pod.uid.clone()).or_insert_with(|| {
            let mut next = network.next.lock();
            *next = next.wrapping_add(1);
            (ip.unwrap_or(Ipv4Addr::new(127, 77, network.subnet, *next).into()), namespaced)
        });
        Ok(Arc::new(PodNet { ips: [ip], namespace: namespaced.then(|| PathBuf::from("/proc/self/ns/net")) }))
    }

    fn left(&self) -> io::Result<HashSet<String>> {
        Ok(self.0.pods.lock().keys().cloned().collect())
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), String> {
        self.0.pods.lock().remove(uid);
        self.0.changed.notify_waiters();
        Ok(())
    }

    fn set_service(&self, key: ServiceKey, service: Option<Service>) {
        match service {
            Some(service) => self.0.services.lock().insert(key, service),
            None => self.0.services.lock().remove(&key),
        };
        self.0.changed.notify_waiters();
    }

    async fn set_peer(&self, _pod_cidr: &str, _via: Option<IpAddr>) -> Result<(), String> {
        Ok(())
    }

    async fn traffic(&self) -> std::collections::HashMap<String, wherry_runtime::Traffic> {
        std::collections::HashMap::new()
    }

    async fn drained(&self, _ip: IpAddr) {}

    async fn connections(&self) -> Option<std::collections::HashMap<ServiceKey, u64>> {
        None
    }

    fn waiting(&self) -> Option<wherry_agent::ports::Waiting> {
        None
    }

    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(to).await
    }

    fn node_ips(&self) -> Vec<IpAddr> {
        vec![Ipv4Addr::LOCALHOST.into()]
    }

    fn dns(&self) -> DnsConfig {
        DnsConfig { server: Some(Ipv4Addr::new(10, 96, 0, 10).into()), domain: "cluster.local".to_owned() }
    }
}

#[async_trait]
impl NetworkStart for Shared {
    fn node_ips(&self) -> Vec<IpAddr> {
        NodeNet::node_ips(self)
    }

    async fn start(&self, pod_cidr: &str) -> Result<Arc<dyn NodeNet>, String> {
        assert_eq!(pod_cidr, "10.128.0.0/18");
        Ok(Arc::new(Self(self.0.clone())))
    }
}

/// A running agent.
struct Running {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    router: axum::Router,
    informers: Informers,
}

pub struct World {
    server: Server,
    pub client: Client,
    pub wasm: Arc<FakeRuntime>,
    pub containers: Arc<FakeRuntime>,
    pub images: Arc<Images>,
    pub network: Arc<Network>,
    pub clock: Clock,
    pub dir: tempfile::TempDir,
    /// Of static Pods, once a test wants any.
    pub manifests: Option<tempfile::TempDir>,
    agent: Option<Running>,
}

impl World {
    /// A cluster of one node, Ready. `subnet` keeps the loopback addresses of tests apart.
    pub async fn new(subnet: u8) -> Self {
        let server = Server::new(wherry_server::Config::new(Arc::new(MemoryStore::new()))).unwrap();
        server.bootstrap().await.unwrap();
        let images = Arc::new(Images::default());
        images.add("wasm:1", ImageKind::Wasm, true);
        images.add("oci:1", ImageKind::Container, true);
        let mut world = Self {
            client: server.client(User::admin()),
            server,
            wasm: FakeRuntime::new("fakewasm"),
            containers: FakeRuntime::new("fakeoci"),
            images,
            network: Network::new(subnet),
            clock: Clock::manual(Timestamp::now()),
            dir: tempfile::tempdir().unwrap(),
            manifests: None,
            agent: None,
        };
        world.namespace_defaults().await;
        world.start().await;
        world
    }

    /// What the controllers give every namespace.
    async fn namespace_defaults(&self) {
        let account = json!({ "metadata": { "name": "default" } });
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        accounts.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();
        let root = json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": "the root" } });
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "default");
        maps.create(&PostParams::default(), &serde_json::from_value(root).unwrap()).await.unwrap();
    }

    /// Starts the agent and waits for its Node.
    pub async fn start(&mut self) {
        let cancel = CancellationToken::new();
        let client = self.server.client(User::node(NODE));
        // As in `wherry up`: the informers are shared with the control plane. The agent itself is a node.
        let watcher = self.server.client(User::component("kube-controller-manager"));
        let informers = Informers::new(watcher, cancel.clone());
        let agent = Agent::new(Config {
            node_name: NODE.to_owned(),
            client: client.clone(),
            informers: informers.clone(),
            recorder: Recorders::new(client, cancel.clone()).component_on("kubelet", NODE),
            wasm: self.wasm.clone(),
            containers: Some(self.containers.clone()),
            images: self.images.clone(),
            network: Arc::new(Shared(self.network.clone())),
            memory_dir: None,
            data_dir: self.dir.path().to_owned(),
            labels: BTreeMap::new(),
            manifests: self.manifests.as_ref().map(|dir| dir.path().to_owned()),
            capacity: Some(Capacity { cpu_millis: 4000, memory_bytes: 8 << 30, storage_bytes: 1 << 30, pods: 100 }),
            supply: Some(self.images.machine.clone()),
            // Disks in worlds are small.
            shortage: ShortageOptions {
                eviction_hard: "memory.available<100Mi,nodefs.available<5%".parse().unwrap(),
                ..ShortageOptions::default()
            },
            clock: self.clock.clone(),
        })
        .unwrap();
        let router = agent.http();
        let task = tokio::spawn({
            let cancel = cancel.clone();
            async move { agent.run(cancel).await.unwrap() }
        });
        self.agent = Some(Running { cancel, task, router, informers });
        let nodes: Api<Node> = Api::all(self.client.clone());
        soon("registration", await_condition(nodes.clone(), NODE, |node: Option<&Node>| node.is_some())).await.unwrap();
        let cidr = Patch::Merge(json!({ "spec": { "podCIDR": "10.128.0.0/18", "podCIDRs": ["10.128.0.0/18"] } }));
        nodes.patch(NODE, &PatchParams::default(), &cidr).await.unwrap();
        let ready = |node: Option<&Node>| {
            let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|conditions| {
                conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            })
        };
        soon("the node's readiness", await_condition(nodes, NODE, ready)).await.unwrap();
    }

    /// Ends the agent, as a crash would: containers stay.
    pub async fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.cancel.cancel();
            soon("the agent's end", agent.task).await.unwrap();
        }
    }

    /// What the node's machine has left.
    pub fn machine(&self) -> &Machine {
        &self.images.machine
    }

    /// Waits for a condition of the Node.
    pub async fn node_condition(&self, type_: &str, status: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let wanted = |node: Option<&Node>| {
            let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == type_ && one.status == status))
        };
        soon(&format!("{type_} {status}"), await_condition(nodes, NODE, wanted)).await.unwrap();
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a Pod on the node from a spec.
    pub async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut pod = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
        pod["spec"]["nodeName"] = json!(NODE);
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    pub async fn delete(&self, name: &str, grace: u32) {
        let params = DeleteParams { grace_period_seconds: Some(grace), ..DeleteParams::default() };
        self.pods().delete(name, &params).await.unwrap();
    }

    /// Waits for a Pod's status, as JSON.
    pub async fn status(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool + Send) -> Value {
        let found = soon(
            what,
            await_condition(self.pods(), name, Wanted(|pod: &Pod| wanted(&serde_json::to_value(&pod.status).unwrap()))),
        )
        .await;
        serde_json::to_value(found.unwrap().unwrap().status).unwrap()
    }

    pub async fn ready(&self, name: &str) -> Value {
        self.status(name, "readiness", |status| condition(status, "Ready") == "True").await
    }

    /// Waits until the container of this name waits with this reason.
    pub async fn waiting(&self, name: &str, reason: &str) -> Value {
        self.status(name, reason, |status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason).await
    }

    pub async fn gone(&self, name: &str) {
        soon("the end of the Pod", await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_none()))
            .await
            .unwrap();
    }

    /// Waits for an event about a Pod; its message.
    pub async fn event(&self, name: &str, reason: &str, part: &str) -> String {
        let events = self.agent.as_ref().unwrap().informers.get::<Event>();
        let mut changes = events.subscribe();
        soon(&format!("event {reason} {part:?}"), async {
            while let Some(change) = changes.next().await {
                if let Some(event) = change.new
                    && event.involved_object.name.as_deref() == Some(name)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().unwrap_or_default().contains(part)
                {
                    return event.message.clone().unwrap_or_default();
                }
            }
            panic!("the informer ended")
        })
        .await
    }

    /// Waits for an event about a part of a Pod; its message.
    pub async fn event_about(&self, name: &str, reason: &str, field: &str) -> String {
        let events = self.agent.as_ref().unwrap().informers.get::<Event>();
        let mut changes = events.subscribe();
        soon(&format!("event {reason} about {field}"), async {
            while let Some(change) = changes.next().await {
                if let Some(event) = change.new
                    && event.involved_object.name.as_deref() == Some(name)
                    && event.involved_object.field_path.as_deref() == Some(field)
                    && event.reason.as_deref() == Some(reason)
                {
                    return event.message.clone().unwrap_or_default();
                }
            }
            panic!("the informer ended")
        })
        .await
    }

    /// GET on the agent's HTTP API.
    pub async fn get(&self, path: &str) -> (u16, axum::body::Body) {
        use tower::ServiceExt as _;
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = self.agent.as_ref().unwrap().router.clone().oneshot(request).await.unwrap();
        (response.status().as_u16(), response.into_body())
    }

    /// GET to its end, as text.
    pub async fn text(&self, path: &str) -> (u16, String) {
        let (code, body) = self.get(path).await;
        let bytes = soon("the end of an answer", axum::body::to_bytes(body, 1 << 20)).await.unwrap();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

pub fn condition<'a>(status: &'a Value, type_: &str) -> &'a str {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions
        .iter()
        .find(|condition| condition["type"] == type_)
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
}

struct Wanted<F>(F);

impl<F: Fn(&Pod) -> bool> Condition<Pod> for Wanted<F> {
    fn matches_object(&self, pod: Option<&Pod>) -> bool {
        pod.is_some_and(|pod| (self.0)(pod))
    }
}

impl Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}
