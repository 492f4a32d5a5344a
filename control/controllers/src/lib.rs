//! The controllers: each brings one kind of object from what is asked for to what is.
//!
//! They are ordinary API clients, one module each, reading like their page in the Kubernetes documentation. A module is
//! split in two: pure decisions (tested with tables and properties) and the I/O that gathers and carries out.
//!
//! All are driven by changes and by one timer heap a queue. There is no periodic resync: a cache that shows all
//! of a controller's own writes, and events for everything else, make it unnecessary.

mod account_tokens;
mod authority;
mod autoscaling;
mod bootstrap_tokens;
mod catalog;
mod certificates;
mod context;
mod counts;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod error;
mod garbage;
mod hand;
mod history;
mod job;
mod namespace;
mod namespace_defaults;
mod node;
mod pods;
mod protection;
mod replicaset;
mod role_aggregation;
mod sleepers;
mod statefulset;
mod ttl;
mod volumes;

use std::sync::Arc;

pub use authority::Authority;
use catalog::Observer;
use context::Context;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::ReplicationController};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;
use wherry_reconcile::{Informers, Recorders};

/// The API as a service account of the namespace `kube-system`, by its name.
pub type Clients = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// What the controllers need to run.
#[derive(Clone)]
pub struct Config {
    /// The API as `system:kube-controller-manager`.
    pub client: Client,
    /// The API as each controller's own service account (upstream's `--use-service-account-credentials`): a controller can do
    /// no more than the default role of its name allows.
    pub clients: Clients,
    /// The process's informers.
    pub informers: Informers,
    /// Where events go.
    pub recorders: Recorders,
    /// The holder of the cluster's keys.
    pub authority: Arc<dyn Authority>,
    /// The cluster's root certificate: the content of every namespace's ConfigMap `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// The addresses of all Pods, for example `10.128.0.0/9`.
    pub cluster_cidr: String,
    /// The prefix length of a node's share of it, for example 18.
    pub node_mask: u8,
}

/// Runs all controllers until `cancel`, and returns once all have ended.
pub async fn run(config: Config, cancel: CancellationToken) {
    let Config { client, clients, informers, recorders, .. } = config;
    let root = Context { client, clients, informers, recorders };
    let mut controllers = JoinSet::new();
    macro_rules! start {
        ($account:literal, $run:path $(, $argument:expr)*) => {
            controllers.spawn($run(root.acting_as($account) $(, $argument)*, cancel.clone()))
        };
    }
    start!("clusterrole-aggregation-controller", role_aggregation::run);
    start!("deployment-controller", deployment::run);
    start!("daemon-set-controller", daemonset::run);
    start!("cronjob-controller", cronjob::run);
    start!("disruption-controller", disruption::run);
    start!("ttl-after-finished-controller", ttl::run);
    start!("horizontal-pod-autoscaler", autoscaling::run);
    start!("job-controller", job::run);
    start!("job-controller", job::orphans::run);
    start!("statefulset-controller", statefulset::run);
    start!("replicaset-controller", replicaset::run::<ReplicaSet>);
    start!("replication-controller", replicaset::run::<ReplicationController>);
    start!("endpointslice-controller", endpoints::slices::run);
    start!("endpoint-controller", endpoints::legacy::run);
    start!("endpointslicemirroring-controller", endpoints::mirror::run);
    start!("pvc-protection-controller", protection::run);
    start!("persistent-volume-binder", volumes::run);
    start!("ephemeral-volume-controller", volumes::ephemeral::run);
    start!("service-account-controller", namespace_defaults::run, config.root_ca_pem.clone());
    // Upstream's token controller has no account of its own either.
    controllers.spawn(account_tokens::run(root.clone(), config.root_ca_pem, config.authority.clone(), cancel.clone()));
    start!("certificate-controller", certificates::run, config.authority);
    start!("token-cleaner", bootstrap_tokens::run);
    start!("node-controller", node::ipam::run, config.cluster_cidr, config.node_mask);
    start!("node-controller", node::lifecycle::run);
    start!("node-controller", node::eviction::run);
    start!("pod-garbage-collector", node::podgc::run);
    start!("ttl-controller", node::ttl::run);
    start!("generic-garbage-collector", run_catalog);
    while let Some(ended) = controllers.join_next().await {
        // A controller's reconcilers are guarded one by one; a panic here is one of its feeds.
        if let Err(error) = ended {
            error!(%error, "a controller failed");
        }
    }
}

/// The controllers that deal with every kind there is.
async fn run_catalog(context: Context, cancel: CancellationToken) {
    let Some(resources) = catalog::discover_until(&context.client, &cancel).await else {
        return;
    };
    let garbage = garbage::Collector::new(context.clone(), resources.clone());
    let namespaces = namespace::Controller::new(context.acting_as("namespace-controller"), resources.clone());
    let observers: Vec<Arc<dyn Observer>> = vec![garbage.clone(), namespaces.clone()];
    let watch = catalog::watch_all(&context, &resources, observers, &cancel);
    tokio::join!(watch, garbage.run(cancel.clone()), namespaces.run(cancel.clone()));
}
