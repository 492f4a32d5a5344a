//! A node of this process: network, runtimes, agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wherry_agent::{Agent, Capacity, ClusterNetwork, Memory, ShortageOptions};
use wherry_containers::{ContainerOptions, ContainerRuntime, Containerd, ContainerdOptions};
use wherry_images::Images;
use wherry_network::Cluster;
use wherry_runtime::{ContainerState, Runtime, Scoped, Signal};
use wherry_server::User;

use super::{ControlPlane, Wasm};

/// containerd, ours or the machine's, and what the nodes run with it.
pub(crate) struct Containers {
    /// None where the machine's own is used.
    child: Option<Containerd>,
    socket: PathBuf,
    runtimes: Vec<Arc<ContainerRuntime>>,
}

impl Containers {
    /// Starts a containerd below `dir`, or uses the one at `socket`.
    pub(crate) async fn start(dir: &Path, socket: Option<&Path>) -> anyhow::Result<Self> {
        let (child, socket) = match socket {
            Some(socket) => (None, socket.to_owned()),
            None => {
                let child = Containerd::start(ContainerdOptions::new(dir.join("containerd"))).await?;
                let socket = child.socket().to_owned();
                (Some(child), socket)
            }
        };
        Ok(Self { child, socket, runtimes: Vec::new() })
    }

    /// A node's own containers: a namespace of containerd.
    async fn connect(&mut self, node: &str, dir: &Path) -> anyhow::Result<Arc<dyn Runtime>> {
        let mut options = ContainerOptions::new(&self.socket, dir.join("containers"));
        // In the machine's own, other clusters may have a node of this name.
        options.namespace = match self.child {
            Some(_) => node.to_owned(),
            None => format!("{node}-{:08x}", crc32c::crc32c(dir.as_os_str().as_encoded_bytes())),
        };
        let runtime = ContainerRuntime::connect(options)
            .await
            .with_context(|| format!("containerd at {}", self.socket.display()))?;
        self.runtimes.push(runtime.clone());
        Ok(runtime)
    }

    /// Ends all containers, then the containerd that was started for them; the machine's own is left as it was.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Self { child, runtimes, .. } = self;
        for runtime in runtimes {
            for container in runtime.list().await.context("list the containers")? {
                if matches!(container.state, ContainerState::Running { .. }) {
                    runtime.kill(&container.id, Signal::Kill).await?;
                    runtime.wait(&container.id).await?;
                }
                runtime.remove(&container.id).await?;
            }
            if child.is_none() {
                runtime.vacate().await?;
            }
        }
        if let Some(child) = child {
            child.stop().await;
        }
        Ok(())
    }
}

/// What the nodes of a process share.
pub(crate) struct NodeParts<'a> {
    /// How many nodes share the machine.
    pub(crate) nodes: u16,
    /// How many Pods each takes.
    pub(crate) pods: i64,
    /// Where manifests of Pods lie that each of them runs by itself.
    pub(crate) manifests: Option<&'a Path>,
    pub(crate) control: &'a ControlPlane,
    pub(crate) cluster: &'a Arc<Cluster>,
    pub(crate) images: &'a Arc<Images>,
    pub(crate) wasm: &'a mut Wasm,
    pub(crate) containers: Option<&'a mut Containers>,
    pub(crate) memory: Option<&'a Memory>,
    /// What is done when one runs short.
    pub(crate) shortage: &'a ShortageOptions,
}

/// A running agent.
pub(crate) struct Node {
    pub(crate) name: String,
    dir: PathBuf,
    not_ready: watch::Receiver<Option<String>>,
    task: JoinHandle<Result<(), wherry_agent::AgentError>>,
}

impl Node {
    /// Starts the agent of the `index`th node.
    pub(crate) async fn start(
        index: u16,
        root: &Path,
        parts: NodeParts<'_>,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let NodeParts { nodes, pods, manifests, control, cluster, images, wasm, containers, memory, shortage } = parts;
        let name = format!("wherry-{index}");
        let dir = root.join("nodes").join(&name);
        let containers = match containers {
            Some(containers) => Some(containers.connect(&name, &dir).await?),
            None => None,
        };
        let agent = Agent::new(wherry_agent::Config {
            node_name: name.clone(),
            client: control.server.client(User::node(&name)),
            informers: control.informers.clone(),
            recorder: control.recorders.component_on("kubelet", &name),
            wasm: Scoped::new(wasm.of_node(&name, &dir)?),
            containers,
            images: images.clone(),
            network: ClusterNetwork::new(cluster.clone(), &*name, index),
            data_dir: dir.clone(),
            memory_dir: memory.map(|memory| memory.path().join("nodes").join(&name)),
            labels: Default::default(),
            manifests: manifests.map(Path::to_owned),
            capacity: Some(Capacity { pods, ..Capacity::detect(root).share(nodes) }),
            supply: None,
            shortage: shortage.clone(),
            clock: Default::default(),
        })?;
        control.agents.add(&name, agent.connector());
        let not_ready = agent.not_ready();
        Ok(Self { name, dir, not_ready, task: tokio::spawn(agent.run(cancel)) })
    }

    /// Unmounts its Pods' volumes, once none of its containers runs any more.
    pub(crate) fn vacate(&self) -> std::io::Result<()> {
        wherry_agent::vacate(&self.dir)
    }

    /// Says why the node is not ready, in this life of its agent.
    pub(crate) fn not_ready(&self) -> watch::Receiver<Option<String>> {
        self.not_ready.clone()
    }

    /// Waits for the agent's end.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.task).await.context("the agent panicked")?.with_context(|| format!("node {}", self.name))
    }
}
