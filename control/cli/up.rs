//! `wherry up`: a whole cluster in this process.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures::future::select_all;
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::Node as NodeObject;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wherry_agent::{Capacity, Memory, PodLimit};
use wherry_images::Images;
use wherry_network::{Cluster, ClusterConfig};
use wherry_reconcile::{Informer, nodes};
use wherry_server::audit::{Audit, Policy, Rotation};
use wherry_server::pki;

use crate::data_dir::DataDir;
use crate::limits;
use crate::parts::{self, Containers, ControlPlane, Isolate, Node, Wasm, addresses};

/// Start a cluster: API server and nodes, in the foreground, until Ctrl-C.
///
/// Prints one line that begins with `ready` when kubectl can be used. A second start with the same directory goes on with the
/// same cluster. As root, Pods may hold containers (by containerd, which is started for it); otherwise
/// the cluster runs WebAssembly only.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where the cluster's state, images and certificates lie [default: wherry in the user's data directory]
    #[arg(long, value_name = "DIR", env = "WHERRY_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Write a kubeconfig to FILE instead of adding the context `wherry` to the user's own
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Port of the API server on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 6443)]
    api_port: u16,
    /// How many nodes, each in a network of its own; none with 0: API, controllers and scheduler alone
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(..=250))]
    nodes: u16,
    /// Accept the bearer tokens in FILE: lines of `token,user,uid`, and optionally a quoted list of groups
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Use the containerd at SOCKET instead of starting one
    #[arg(long, value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// Run the Pods whose manifests lie in DIR on every node, whatever the API says (static Pods)
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,
    /// Run WebAssembly in processes of its own that can do nothing else: unprivileged users, locked in by Landlock and seccomp. As
    /// root only
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Isolate::None)]
    isolate: Isolate,
    #[command(flatten)]
    shortage: parts::ShortageArgs,
    #[command(flatten)]
    audit: AuditArgs,
}

/// Who did what: an audit log.
#[derive(Debug, Args)]
struct AuditArgs {
    /// Log requests as the audit.k8s.io/v1 Policy in FILE says
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    audit_policy_file: Option<PathBuf>,
    /// Where the audit log is written, one JSON event a line
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// At how many MiB the audit log is set aside and begun anew
    #[arg(long, value_name = "N", default_value_t = 100)]
    audit_log_maxsize: u32,
    /// How many audit logs that were set aside are kept
    #[arg(long, value_name = "N", default_value_t = 10)]
    audit_log_maxbackup: u16,
}

impl AuditArgs {
    fn open(&self) -> anyhow::Result<Option<Audit>> {
        let (Some(policy), Some(path)) = (&self.audit_policy_file, &self.audit_log_path) else {
            return Ok(None);
        };
        let rotation =
            Rotation { bytes: u64::from(self.audit_log_maxsize) << 20, kept: usize::from(self.audit_log_maxbackup) };
        Ok(Some(Audit::open(Policy::read(policy)?, path, rotation)?))
    }
}

/// What runs, in the order in which it is stopped.
struct Running {
    nodes: Vec<Node>,
    stop_nodes: CancellationToken,
    wasm: Wasm,
    containers: Option<Containers>,
    control: ControlPlane,
    cluster: Arc<Cluster>,
    dir: DataDir,
    _lock: File,
}

impl Up {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        parts::install_crypto();
        limits::raise();
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("wherry").build()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        // Watched from the start: a signal during start-up ends it in order, too.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(stop);
        let progress = ProgressBar::new_spinner();
        progress.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
        progress.enable_steady_tick(Duration::from_millis(100));

        let dir = DataDir::resolve(self.data_dir.clone())?;
        let lock = dir.lock()?;
        // Containers of an earlier life may be using what it left.
        let network_is_ours = !Cluster::is_there(&dir.network())?;
        let memory = self.memory(&dir)?;
        let (mut running, port) = match self.start(&dir, lock, memory.as_ref(), &progress).await {
            Ok(started) => started,
            Err(error) => {
                progress.finish_and_clear();
                if let Some(memory) = memory.filter(|memory| !memory.was_found()) {
                    remove(memory);
                }
                if network_is_ours && let Err(error) = Cluster::remove(&dir.network()) {
                    tracing::error!(%error, "the network was left behind");
                }
                return Err(error);
            }
        };
        let result = tokio::select! {
            result = self.announce_and_watch(&mut running, port, &progress) => result,
            () = &mut stop => Ok(()),
        };
        progress.finish_and_clear();
        let stopped = running.stop(memory).await;
        result.and(stopped)
    }

    /// Starts all parts; the port is that of the API on 127.0.0.1.
    async fn start(
        &self,
        dir: &DataDir,
        lock: File,
        memory: Option<&Memory>,
        progress: &ProgressBar,
    ) -> anyhow::Result<(Running, u16)> {
        // First what a user may have got wrong, before anything is made.
        let images = Images::open(dir.images(), parts::images(dir))?;
        let images = Arc::new(images);
        let shortage = self.shortage.options()?;
        let audit = self.audit.open()?;
        let manifests = self.manifests()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.api_port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{} (--api-port)", self.api_port))?;
        let port = listener.local_addr()?.port();

        progress.set_message("setting up the network");
        let cluster = Cluster::start(ClusterConfig {
            dir: dir.network(),
            cluster_cidr: addresses::CLUSTER_CIDR.parse()?,
            service_cidr: addresses::SERVICE_CIDR.parse()?,
            dns_ip: addresses::DNS_IP,
            domain: addresses::DOMAIN.to_owned(),
            publish: true,
        })
        .await?;
        let cluster = Arc::new(cluster);
        limits::raise_connections();
        if self.nodes > cluster.max_nodes() {
            bail!("--nodes {}: without root there can be {} only", self.nodes, cluster.max_nodes());
        }

        progress.set_message("starting the API server");
        let tokens = self.token_auth_file.as_deref();
        let mut control = ControlPlane::start(dir.path(), cluster.api_ip(), images.clone(), tokens, audit).await?;
        let names = [cluster.api_ip()];
        control.listen(listener, &names)?;
        control.listen(cluster.listen(addresses::API_PORT).context("listen for Pods")?, &names)?;

        progress.set_message("starting the runtimes");
        let mut wasm = Wasm::new(dir.path(), memory, self.isolate)?;
        let limit = PodLimit::detect(self.nodes, wasm.files_of_pod(&cluster));
        limits::tell(limit);
        let mut containers = self.containers(dir).await?;
        let stop_nodes = CancellationToken::new();
        let mut nodes = Vec::new();
        for index in 0..self.nodes {
            let parts = parts::NodeParts {
                nodes: self.nodes,
                pods: limit.pods,
                manifests: manifests.as_deref(),
                control: &control,
                cluster: &cluster,
                images: &images,
                wasm: &mut wasm,
                containers: containers.as_mut(),
                memory,
                shortage: &shortage,
            };
            nodes.push(Node::start(index, dir.path(), parts, stop_nodes.clone()).await?);
        }
        let running = Running { nodes, stop_nodes, wasm, containers, control, cluster, dir: dir.clone(), _lock: lock };
        Ok((running, port))
    }

    /// The directory of static Pods, wherever this process goes.
    fn manifests(&self) -> anyhow::Result<Option<PathBuf>> {
        let Some(dir) = &self.pod_manifest_path else { return Ok(None) };
        let found = dir.canonicalize().and_then(|dir| std::fs::read_dir(&dir).map(|_| dir));
        found.map(Some).with_context(|| format!("the directory {} (--pod-manifest-path)", dir.display()))
    }

    /// The place in memory for what agents write, where there are any.
    fn memory(&self, dir: &DataDir) -> anyhow::Result<Option<Memory>> {
        if self.nodes == 0 {
            return Ok(None);
        }
        let machine = Capacity::detect(dir.path()).memory_bytes.unsigned_abs();
        Memory::open(dir.path(), machine).context("mount a tmpfs in /run/wherry")
    }

    /// containerd, where there may and can be one. What is asked for by name must be there.
    async fn containers(&self, dir: &DataDir) -> anyhow::Result<Option<Containers>> {
        if self.nodes == 0 {
            return Ok(None);
        }
        if let Some(socket) = &self.containerd {
            let context = || format!("containerd at {}", socket.display());
            return Containers::start(dir.path(), Some(socket)).await.with_context(context).map(Some);
        }
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("note: without root this cluster runs WebAssembly only");
            return Ok(None);
        }
        match Containers::start(dir.path(), None).await {
            Ok(containers) => Ok(Some(containers)),
            Err(error) => {
                eprintln!("note: this cluster runs WebAssembly only: {error:#}");
                Ok(None)
            }
        }
    }

    /// Writes the kubeconfig, waits for the nodes, says that all is ready; then ends only when a node does.
    async fn announce_and_watch(&self, running: &mut Running, port: u16, progress: &ProgressBar) -> anyhow::Result<()> {
        let kubeconfig = running.control.kubeconfig(port)?;
        let shown = match &self.kubeconfig {
            Some(path) => {
                kubeconfig.write(path)?;
                format!("KUBECONFIG={}", path.display())
            }
            None => {
                let path = pki::default_path().context("there is no home directory: name a file with --kubeconfig")?;
                kubeconfig.merge_into(&path)?;
                format!("context wherry in {}", path.display())
            }
        };
        progress.set_message("waiting for the nodes");
        let informer = running.control.informers.get::<NodeObject>();
        let names: Vec<String> = running.nodes.iter().map(|node| node.name.clone()).collect();
        let mut agents_ready: Vec<_> = running.nodes.iter().map(Node::not_ready).collect();
        let agents = async {
            if running.nodes.is_empty() {
                return std::future::pending().await;
            }
            let (ended, _, _) = select_all(running.nodes.iter_mut().map(|node| Box::pin(node.ended()))).await;
            ended.and_then(|()| bail!("a node's agent ended"))
        };
        let ready = async {
            for agent in &mut agents_ready {
                // An agent that ends is told by the other branch.
                let _ = agent.wait_for(Option::is_none).await;
            }
            nodes_ready(&informer, &names).await;
            progress.finish_and_clear();
            let kinds = if running.containers.is_some() { "WebAssembly and containers" } else { "WebAssembly" };
            let nodes = match names.len() {
                0 => "no nodes".to_owned(),
                1 => format!("1 node, {kinds}"),
                many => format!("{many} nodes, {kinds}"),
            };
            // Nobody need be reading.
            drop(crate::say(&format!("ready: https://127.0.0.1:{port} ({nodes}), {shown}\n")));
            std::future::pending::<anyhow::Result<()>>().await
        };
        tokio::select! {
            failed = agents => failed,
            never = ready => never,
        }
    }
}

impl Running {
    /// Stops nodes first, so that nothing is decided or served for them any more, and the state last. Their place in memory goes once
    /// nothing that has it runs.
    async fn stop(mut self, memory: Option<Memory>) -> anyhow::Result<()> {
        self.stop_nodes.cancel();
        for node in &mut self.nodes {
            if let Err(error) = node.ended().await {
                tracing::error!(%error, "a node did not stop in order");
            }
        }
        self.wasm.shutdown().await;
        if let Some(containers) = self.containers
            && let Err(error) = containers.stop().await
        {
            tracing::error!(error = format!("{error:#}"), "containers were left behind");
        }
        for node in &self.nodes {
            node.vacate().unwrap_or_else(|error| tracing::error!(%error, node = node.name, "volumes stay mounted"));
        }
        memory.into_iter().for_each(remove);
        self.control.stop().await;
        drop(self.cluster);
        Cluster::remove(&self.dir.network()).context("take down the network")
    }
}

fn remove(memory: Memory) {
    memory.remove().unwrap_or_else(|error| tracing::error!(%error, "the place in memory stays mounted"));
}

/// Waits until every named Node is Ready in the eyes of clients.
async fn nodes_ready(informer: &Informer<NodeObject>, names: &[String]) {
    let mut changes = informer.subscribe();
    while !names.iter().all(|name| informer.get("", name).is_some_and(|node| nodes::is_ready(&node))) {
        if changes.next().await.is_none() {
            return;
        }
    }
}
