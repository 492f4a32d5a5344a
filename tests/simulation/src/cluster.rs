//! The parts of a cluster, put together as `wherry up` puts them, each of which can end at any moment and begin again.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wherry_api::certificates::Request;
use wherry_controllers::Authority;
use wherry_reconcile::{Informers, Recorders};
use wherry_scheduler::{ImageKinds, Kind, Scheduler};
use wherry_server::{Server, User};
use wherry_store::Store;

use crate::{
    agent::{self, Fortune},
    machines::Machines,
    network::Network,
    store::Witnessed,
    witness::Witness,
};

/// Who sits where, for the network.
pub(crate) const CONTROLLERS: &str = "controllers";
pub(crate) const SCHEDULER: &str = "scheduler";

/// A part that runs.
struct Part {
    task: JoinHandle<()>,
    cancel: CancellationToken,
}

impl Part {
    fn new<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(CancellationToken) -> F) -> Self {
        let cancel = CancellationToken::new();
        Self { task: tokio::spawn(run(cancel.clone())), cancel }
    }

    /// Ends it as a crash does: where it stands.
    fn crash(self) {
        self.task.abort();
        // What it started beside itself: informers and recorders.
        self.cancel.cancel();
    }
}

/// No certificates are asked for in the simulation.
struct NoKeys;

impl Authority for NoKeys {
    fn certificate(&self, _: &Request, _: &[&str], _: i64) -> Result<String, String> {
        Err("the simulation has no certificate authority".to_owned())
    }

    fn token(&self, _: &str, _: &str, _: &str, _: &str) -> Result<String, String> {
        Err("the simulation has no key".to_owned())
    }
}

/// All images are containers.
struct Containers;

#[async_trait]
impl ImageKinds for Containers {
    async fn kind(&self, _: &str) -> Option<Kind> {
        Some(Kind::Container)
    }
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    pub(crate) machines: Arc<Machines>,
    pub(crate) fortune: Arc<Mutex<Fortune>>,
    pub(crate) store: Arc<Witnessed>,
    server: Part,
    parts: BTreeMap<String, Part>,
    random: Arc<Mutex<StdRng>>,
}

fn serve(store: &Arc<Witnessed>) -> Result<(Server, Part), String> {
    let server = Server::new(wherry_server::Config::new(store.clone())).map_err(|error| error.to_string())?;
    let maintained = server.clone();
    Ok((server, Part::new(|cancel| async move { maintained.maintain(cancel).await })))
}

impl Cluster {
    /// A bootstrapped server; nothing else runs yet.
    pub(crate) async fn new(seed: u64, witness: Arc<Witness>) -> Result<Self, String> {
        let store = Arc::new(Witnessed::new(witness.clone()));
        let (server, part) = serve(&store)?;
        server.bootstrap().await.map_err(|error| error.to_string())?;
        let random = |stream| StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(stream));
        Ok(Self {
            network: Network::new(random(1), server, witness.clone()),
            machines: Arc::new(Machines::new(witness)),
            fortune: Arc::new(Mutex::new(Fortune { falters: 0.0, fails: 0.0 })),
            store,
            server: part,
            parts: BTreeMap::new(),
            random: Arc::new(Mutex::new(random(2))),
        })
    }

    /// Whether a part runs.
    pub(crate) fn runs(&self, part: &str) -> bool {
        self.parts.contains_key(part)
    }

    /// Starts controllers, scheduler, or the agent of a node, if it does not run.
    pub(crate) fn start(&mut self, part: &str) {
        if self.runs(part) {
            return;
        }
        let started = match part {
            CONTROLLERS => self.controllers(),
            SCHEDULER => self.scheduler(),
            node => self.agent(node),
        };
        self.parts.insert(part.to_owned(), started);
    }

    /// Ends a part where it stands.
    pub(crate) fn crash(&mut self, part: &str) {
        if let Some(part) = self.parts.remove(part) {
            part.crash();
        }
    }

    /// The server ends with all that is under way in it, and another begins over the same store.
    pub(crate) fn restart_server(&mut self) -> Result<(), String> {
        let (server, part) = serve(&self.store)?;
        std::mem::replace(&mut self.server, part).crash();
        self.network.replace_server(server);
        Ok(())
    }

    /// The server forgets its history: watches that come late begin anew.
    pub(crate) fn forget_history(&self) {
        let revision = self.store.revision();
        // Nothing to forget is fine as well.
        let _ = self.store.compact(revision);
    }

    fn controllers(&self) -> Part {
        let network = self.network.clone();
        let manager = network.troubled(User::component("kube-controller-manager"), CONTROLLERS);
        Part::new(|cancel| {
            let config = wherry_controllers::Config {
                client: manager.clone(),
                clients: Arc::new(move |account| network.troubled(User::controller(account), CONTROLLERS)),
                informers: Informers::new(manager.clone(), cancel.clone()),
                recorders: Recorders::new(manager, cancel.clone()),
                authority: Arc::new(NoKeys),
                root_ca_pem: "-----BEGIN CERTIFICATE-----".to_owned(),
                cluster_cidr: "10.128.0.0/9".to_owned(),
                node_mask: 18,
            };
            wherry_controllers::run(config, cancel)
        })
    }

    fn scheduler(&self) -> Part {
        let client = self.network.troubled(User::component("kube-scheduler"), SCHEDULER);
        // In one process the scheduler reads the controllers' caches; here each has its own, so that each can crash.
        let manager = self.network.troubled(User::component("kube-controller-manager"), SCHEDULER);
        Part::new(|cancel| {
            let recorders = Recorders::new(manager.clone(), cancel.clone());
            let scheduler = Scheduler::new(wherry_scheduler::Config {
                client,
                informers: Informers::new(manager, cancel.clone()),
                recorder: recorders.component("default-scheduler"),
                kinds: Arc::new(Containers),
                name: "default-scheduler".to_owned(),
            });
            scheduler.run(cancel)
        })
    }

    fn agent(&self, node: &str) -> Part {
        let config = agent::Config {
            node: node.to_owned(),
            client: self.network.troubled(User::node(node), node),
            machines: self.machines.clone(),
            random: self.random.clone(),
            fortune: self.fortune.clone(),
        };
        Part::new(|cancel| agent::run(config, cancel))
    }
}
