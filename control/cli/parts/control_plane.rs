//! Store, API server, controllers, scheduler.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wherry_api::resource::Registry;
use wherry_images::Images;
use wherry_reconcile::{Informers, Recorders};
use wherry_runtime::ImageKind;
use wherry_scheduler::{ImageKinds, Kind};
use wherry_server::audit::Audit;
use wherry_server::pki::{Kubeconfig, Pki};
use wherry_server::{Config, Issuer, Server, StaticTokens, User};

use super::authority::Keys;
use super::connector::Agents;

/// The addresses of every cluster.
pub(crate) mod addresses {
    use std::net::Ipv4Addr;

    /// All Pods.
    pub(crate) const CLUSTER_CIDR: &str = "10.128.0.0/9";
    /// A node's share: 16,381 Pods.
    pub(crate) const NODE_MASK: u8 = 18;
    /// All Services.
    pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
    /// Cluster DNS.
    pub(crate) const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
    /// Cluster DNS' zone.
    pub(crate) const DOMAIN: &str = "cluster.local";
    /// Where the API server listens for Pods.
    pub(crate) const API_PORT: u16 = 6443;
}

/// A running control plane.
pub(crate) struct ControlPlane {
    pub(crate) server: Server,
    pub(crate) agents: Agents,
    pub(crate) informers: Informers,
    pub(crate) recorders: Recorders,
    pki: Arc<Pki>,
    store: Arc<wherry_store::LogStore>,
    audit: Option<Audit>,
    /// Controllers and scheduler: they end first.
    deciders: JoinSet<()>,
    decide: CancellationToken,
    listeners: JoinSet<()>,
    listen: CancellationToken,
}

impl ControlPlane {
    /// Opens the state below `dir` and starts everything but the listeners. `token_file` holds further bearer tokens.
    pub(crate) async fn start(
        dir: &Path,
        pod_api: IpAddr,
        images: Arc<Images>,
        token_file: Option<&Path>,
        audit: Option<Audit>,
    ) -> anyhow::Result<Self> {
        let pki = Arc::new(Pki::open(dir).context("certificates")?);
        let registry = Arc::new(Registry::builtin());
        let store = {
            let (dir, describe) = (dir.join("store"), wherry_server::describe(registry.clone()));
            // Recovery reads the whole state from the disk.
            // Beside the state, not in it: a backup of the store is worth nothing to who does not have the keys.
            let keys = dir.with_file_name("encryption.keys");
            let open = move || {
                let vault = wherry_store::Vault::open(&keys, &["secrets"])?;
                wherry_store::open(dir, wherry_store::Options::new(describe).encrypted(vault))
            };
            Arc::new(tokio::task::spawn_blocking(open).await?.context("the cluster's state")?)
        };
        let mut config = Config::new(store.clone());
        config.registry = registry;
        config.audit = audit.clone();
        config.cluster.api_endpoints = vec![SocketAddr::new(pod_api, addresses::API_PORT)];
        let keys = pki.service_account_keys().context("service account keys")?;
        let issuer = Arc::new(Issuer::of_cluster(&config.cluster.domain, keys));
        config.issuer = Some(issuer.clone());
        config.front_proxy = Some(pki.front_proxy().context("front proxy")?);
        if let Some(file) = token_file {
            config.tokens.push(Arc::new(StaticTokens::read(file).context("the token file")?));
        }
        let agents = Agents::default();
        config.nodes = Arc::new(agents.clone());
        let server = Server::new(config)?;
        server.bootstrap().await.context("the cluster's first objects")?;

        let decide = CancellationToken::new();
        let mut deciders = JoinSet::new();
        let (maintained, cancel) = (server.clone(), decide.clone());
        deciders.spawn(async move { maintained.maintain(cancel).await });
        let informers = Informers::new(server.client(User::component("kube-controller-manager")), decide.clone());
        let recorders = Recorders::new(server.client(User::component("kube-controller-manager")), decide.clone());
        let controllers = wherry_controllers::Config {
            client: server.client(User::component("kube-controller-manager")),
            clients: {
                let server = server.clone();
                Arc::new(move |account| server.client(User::controller(account)))
            },
            informers: informers.clone(),
            recorders: recorders.clone(),
            authority: Arc::new(Keys { pki: pki.clone(), issuer }),
            root_ca_pem: pki.ca_certificate().to_owned(),
            cluster_cidr: addresses::CLUSTER_CIDR.to_owned(),
            node_mask: addresses::NODE_MASK,
        };
        deciders.spawn(wherry_controllers::run(controllers, decide.clone()));
        let scheduler = wherry_scheduler::Scheduler::new(wherry_scheduler::Config {
            client: server.client(User::component("kube-scheduler")),
            informers: informers.clone(),
            recorder: recorders.component("default-scheduler"),
            kinds: Arc::new(Kinds(images)),
            name: "default-scheduler".to_owned(),
        });
        deciders.spawn(scheduler.run(decide.clone()));
        Ok(Self {
            server,
            agents,
            informers,
            recorders,
            pki,
            store,
            audit,
            deciders,
            decide,
            listeners: JoinSet::new(),
            listen: CancellationToken::new(),
        })
    }

    /// Serves HTTPS on a listener.
    pub(crate) fn listen(&mut self, listener: TcpListener, names: &[IpAddr]) -> anyhow::Result<()> {
        let names = wherry_server::Cluster::default().api_names(names.iter().copied());
        let tls = self.pki.server_tls(&self.pki.serving(&names)?)?;
        let (server, cancel) = (self.server.clone(), self.listen.clone());
        self.listeners.spawn(async move {
            if let Err(error) = server.serve(listener, tls, cancel).await {
                tracing::error!(%error, "the API server stopped listening");
            }
        });
        Ok(())
    }

    /// The administrator's way in.
    pub(crate) fn kubeconfig(&self, port: u16) -> anyhow::Result<Kubeconfig> {
        Ok(Kubeconfig {
            name: "wherry".to_owned(),
            server: format!("https://127.0.0.1:{port}"),
            ca: self.pki.ca_certificate().to_owned(),
            credentials: self.pki.admin()?,
        })
    }

    /// Ends everything, deciders first, the store last.
    pub(crate) async fn stop(mut self) {
        self.decide.cancel();
        while self.deciders.join_next().await.is_some() {}
        self.informers.closed().await;
        self.recorders.closed().await;
        self.listen.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.store.close().await;
        if let Some(audit) = self.audit
            && let Err(error) = tokio::task::spawn_blocking(move || audit.flushed()).await
        {
            tracing::error!(%error, "the audit log's last events may be missing");
        }
    }
}

/// What the scheduler asks of images: the kind, before any node has pulled one.
struct Kinds(Arc<Images>);

#[async_trait]
impl ImageKinds for Kinds {
    async fn kind(&self, reference: &str) -> Option<Kind> {
        match self.0.kind(reference, None).await {
            Ok(ImageKind::Wasm) => Some(Kind::Wasm),
            Ok(ImageKind::Container) => Some(Kind::Container),
            Err(error) => {
                tracing::debug!(reference, %error, "the kind of an image is not known");
                None
            }
        }
    }
}
