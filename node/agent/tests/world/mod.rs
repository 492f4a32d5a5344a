//! A node without a machine: the real agent and API server, a fake runtime, images and network that do as told.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used, reason = "tests, of which each uses a part")]

mod images;
mod network;
mod waits;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wherry_agent::{Agent, Capacity, Clock, Config, ShortageOptions};
use wherry_reconcile::{Informers, Recorders};
use wherry_runtime::ImageKind;
use wherry_runtime::fake::FakeRuntime;
use wherry_server::{Server, User};
use wherry_store::MemoryStore;

pub use images::{Images, Machine};
pub use network::Network;
use network::Shared;
pub use waits::{condition, soon};

pub const NODE: &str = "n1";

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

impl Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}
