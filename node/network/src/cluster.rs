//! The nodes of one `wherry up` and what joins them.
//!
//! With root: a fabric namespace with a bridge, a namespace per node. Without: one node in a namespace that a helper
//! process holds. The API server has an address that every Pod reaches: the bridge's, or one on the
//! node's loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use wherry_runtime::{SocketFamily, SocketKind};

use crate::gate::Gate;
use crate::helper::{HelperClient, HelperConfig};
use crate::links::{NodeLinks, configure_fabric, connection_in, join, route_peer};
use crate::netns::Netns;
use crate::node::NodeConfig;
use crate::place::{Place, listen};
use crate::services::Services;
use crate::{Cidr, NetworkError, ipc, netns};

/// Where the Pods' shared memory is kept.
const SHARED: &str = "shared";
const BRIDGE: &str = "wherry0";
const FABRIC: Cidr = Cidr { base: Ipv4Addr::new(172, 30, 0, 0), length: 16 };

/// What all nodes share.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where namespaces are pinned.
    pub dir: PathBuf,
    /// All Pods' addresses.
    pub cluster_cidr: Cidr,
    /// All Services' addresses.
    pub service_cidr: Cidr,
    /// The address of cluster DNS, inside the Service range.
    pub dns_ip: Ipv4Addr,
    /// `cluster.local`.
    pub domain: String,
    /// Forward 127.0.0.1:nodePort of this machine to the first node, for every TCP node port.
    pub publish: bool,
}

/// See the module's documentation.
pub struct Cluster {
    config: ClusterConfig,
    fabric: Fabric,
    tables: Arc<Tables>,
    shares_listener: bool,
}

/// The Service tables of all nodes of this process: a Pod may stop once each of them has dropped it.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<Vec<Weak<Services>>>);

impl Tables {
    pub(crate) fn add(&self, table: &Arc<Services>) {
        let mut tables = self.0.lock();
        tables.retain(|table| table.strong_count() > 0);
        tables.push(Arc::downgrade(table));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Services>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

enum Fabric {
    Bridge(Arc<Place>),
    Helper(Arc<Place>),
}

impl Cluster {
    /// Makes the fabric, or takes it up again. Whether this process may make namespaces decides which.
    ///
    /// # Errors
    /// What the kernel refuses, with the part's name.
    pub async fn start(config: ClusterConfig) -> Result<Self, NetworkError> {
        let fabric = if nix::unistd::Uid::effective().is_root() {
            let (netns, _) = Netns::open_or_create(&config.dir.join("fabric"))?;
            configure_fabric(&connection_in(&netns)?, BRIDGE, address(1), FABRIC.length).await?;
            Fabric::Bridge(Arc::new(Place::Entered(netns)))
        } else {
            let links = NodeLinks {
                loopback: vec![address(1), address(2), config.dns_ip],
                node_ip: address(2),
                pod_cidr: config.cluster_cidr.to_string(),
                service_cidr: config.service_cidr.to_string(),
            };
            let start = tokio::task::spawn_blocking(move || HelperClient::start(&HelperConfig { links }));
            let helper = start.await.map_err(|error| NetworkError::Invalid(error.to_string()))??;
            Fabric::Helper(Arc::new(Place::Held(helper)))
        };
        let (Fabric::Bridge(place) | Fabric::Helper(place)) = &fabric;
        let place = place.clone();
        let tried = tokio::task::spawn_blocking(move || Gate::try_out(&place)).await;
        let tried = tried.unwrap_or_else(|error| Err(NetworkError::Invalid(error.to_string())));
        if let Err(error) = &tried {
            tracing::warn!(%error, "served Pods hold a listener, and so an open file, each: transparent proxying is not to be had");
        }
        Ok(Self { config, fabric, tables: Arc::default(), shares_listener: tried.is_ok() })
    }

    /// Whether served Pods that have an address alone share one listener of their node; each holds its own where not.
    #[must_use]
    pub fn shares_listener(&self) -> bool {
        self.shares_listener
    }

    /// What it was started with.
    #[must_use]
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// How many nodes it can have.
    #[must_use]
    pub fn max_nodes(&self) -> u16 {
        match self.fabric {
            Fabric::Bridge(_) => 250,
            Fabric::Helper(_) => 1,
        }
    }

    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The address at which Pods reach the API server.
    #[must_use]
    pub fn api_ip(&self) -> IpAddr {
        address(1).into()
    }

    /// The address of the `index`th node.
    #[must_use]
    pub fn node_ip(&self, index: u16) -> Ipv4Addr {
        address(u64::from(index) + 2)
    }

    /// Listens on [`api_ip`](Self::api_ip).
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let (Fabric::Bridge(place) | Fabric::Helper(place)) = &self.fabric;
        let socket = place.socket(SocketFamily::V4, SocketKind::Tcp)?;
        listen(socket, SocketAddr::new(self.api_ip(), port))
    }

    pub(crate) fn shared_dir(&self, node: &str) -> PathBuf {
        self.config.dir.join(SHARED).join(node)
    }

    pub(crate) fn pods_dir(&self, node: &str) -> PathBuf {
        self.config.dir.join("pods").join(node)
    }

    pub(crate) async fn node_place(&self, config: &NodeConfig) -> Result<Arc<Place>, NetworkError> {
        let fabric = match &self.fabric {
            Fabric::Bridge(place) => place,
            Fabric::Helper(place) => return Ok(place.clone()),
        };
        let Place::Entered(bridge) = &**fabric else { return Err(NetworkError::NoNamespaces) };
        let (netns, _) = Netns::open_or_create(&self.config.dir.join("nodes").join(&config.name))?;
        let port = format!("node{}", config.index);
        let fabric = connection_in(bridge)?;
        join(
            (&fabric, bridge),
            (&connection_in(&netns)?, &netns),
            BRIDGE,
            &port,
            self.node_ip(config.index),
            FABRIC.length,
        )
        .await?;
        // The API server's answers to Pods go by their node.
        route_peer(&fabric, config.pod_cidr, Some(self.node_ip(config.index))).await?;
        Ok(Arc::new(Place::Entered(netns)))
    }

    /// Whether an earlier life left a namespace below `dir`.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn is_there(dir: &Path) -> io::Result<bool> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if !path.is_dir() || Self::is_there(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes down every namespace below `dir`, of this life or an earlier one. Containers in them lose their network.
    ///
    /// # Errors
    /// When a namespace cannot be unpinned.
    pub fn remove(dir: &Path) -> io::Result<()> {
        ipc::clear_all(&dir.join(SHARED))?;
        Self::unpin(dir)
    }

    fn unpin(dir: &Path) -> io::Result<()> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() { Self::unpin(&path)? } else { netns::remove(&path)? }
        }
        Ok(())
    }
}

fn address(n: u64) -> Ipv4Addr {
    FABRIC.nth(n).unwrap_or(FABRIC.base)
}
