//! The controllers: each brings one kind of object from what is asked for to what is.
//!
//! They are ordinary API clients, one module each, reading like their page in the Kubernetes documentation. A module is
//! split in two: pure decisions (tested with tables and properties) and the I/O that gathers and carries out.
//!
//! All are driven by changes and by one timer heap a queue. There is no periodic resync: a cache that shows all
//! of a controller's own writes, and events for everything else, make it unnecessary.

mod context;
mod deployment;
mod endpoints;
mod error;
mod pods;
mod replicaset;

use context::Context;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Informers, Recorders};

/// What the controllers need to run.
#[derive(Clone)]
pub struct Config {
    /// The API as `system:kube-controller-manager`.
    pub client: Client,
    /// The process's informers.
    pub informers: Informers,
    /// Where events go.
    pub recorders: Recorders,
    /// The cluster's root certificate: the content of every namespace's ConfigMap `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// The addresses of all Pods, for example `10.128.0.0/9`.
    pub cluster_cidr: String,
    /// The prefix length of a node's share of it, for example 18.
    pub node_mask: u8,
}

/// Runs all controllers until `cancel`, and returns once all have ended.
pub async fn run(config: Config, cancel: CancellationToken) {
    let context = Context {
        client: config.client,
        informers: config.informers,
        recorders: config.recorders,
    };
    let mut controllers = JoinSet::new();
    controllers.spawn(deployment::run(context.clone(), cancel.clone()));
    controllers.spawn(replicaset::run(context.clone(), cancel.clone()));
    controllers.spawn(endpoints::slices::run(context.clone(), cancel.clone()));
    controllers.spawn(endpoints::legacy::run(context.clone(), cancel.clone()));
    controllers.spawn(endpoints::mirror::run(context.clone(), cancel.clone()));
    while controllers.join_next().await.is_some() {}
}
