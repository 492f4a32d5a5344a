//! The agent's seams to the node: images and network, as much of them as it uses. The real ones are adapted in
//! [`adapters`](crate::adapters); tests put simple ones in their place.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use wherry_network::{PodRequest, Refusal, Service, ServiceKey, Waited};
use wherry_runtime::{Image, ImageKind, PodNetwork, PodRef, Traffic};

use crate::config::files::DnsConfig;

/// Images on this node and in registries. An image is in use, and stays, as long as what [`get`](Self::get) or [`pull`](Self::pull)
/// gave out is held.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// The image, where it is on this node. Never the network.
    fn get(&self, reference: &str) -> Result<Option<Arc<Image>>, PullError>;

    /// The kind of what the registry holds by this name now, by its manifest; none where that cannot be known.
    async fn latest_kind(&self, reference: &str, secrets: &[Vec<u8>]) -> Option<ImageKind>;

    /// Asks the registry and fetches what is missing. `secrets` are Docker `config.json`s.
    async fn pull(&self, reference: &str, secrets: &[Vec<u8>]) -> Result<Arc<Image>, PullError>;

    /// Unpacks an image's files into a new directory, whose parent exists; nothing is done where it is there. Blocking.
    fn unpack(&self, image: &Image, dir: &Path) -> Result<(), PullError>;

    /// What `status.images` of the Node shows, largest first.
    fn list(&self) -> Vec<NodeImage>;

    /// Notes that what is in use is used now: what was used least lately is collected first.
    fn note_uses(&self);

    /// Removes images that are not in use and came at least `min_age` ago, until `bytes` are free. How many bytes that were.
    /// Blocking.
    fn collect(&self, bytes: u64, min_age: Duration) -> Result<u64, String>;

    /// The digests of the manifests, configs and layers of the images that are here. Blocking.
    fn blobs(&self) -> Result<HashSet<String>, String>;
}

/// Why an image could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PullError {
    /// `ErrImagePull`, `InvalidImageName`, `ImageInspectError`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// An image for `status.images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeImage {
    /// Its names.
    pub names: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// The digests of its layers.
    pub layers: Vec<String>,
}

/// What a node has of what it may run short of.
pub trait Supply: Send + Sync + 'static {
    /// What is left of it now.
    fn left(&self) -> Left;
}

/// What is left; none where that cannot be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Bytes of memory.
    pub memory: Option<Amount>,
    /// Bytes of the filesystem of Pods, logs and images.
    pub disk: Option<Amount>,
    /// Files that can be made there.
    pub inodes: Option<Amount>,
    /// Processes.
    pub pids: Option<Amount>,
}

/// Something limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// What is left.
    pub available: u64,
    /// What there is.
    pub capacity: u64,
}

/// The node's network, started.
#[async_trait]
pub trait NodeNet: Send + Sync + 'static {
    /// Gives a Pod its address; the same again where it has one.
    async fn add_pod(&self, pod: &PodRef, request: PodRequest) -> Result<Arc<dyn PodNetwork>, String>;

    /// The uids of all Pods of which there is anything, be it half made: before any is added, what an earlier life left.
    ///
    /// # Errors
    /// What the system says.
    fn left(&self) -> io::Result<HashSet<String>>;

    /// Takes a Pod's address back. Nothing happens where it has none.
    async fn remove_pod(&self, uid: &str) -> Result<(), String>;

    /// Sets or removes a Service.
    fn set_service(&self, key: ServiceKey, service: Option<Service>);

    /// Tells the way to another node's Pods, or forgets it.
    async fn set_peer(&self, pod_cidr: &str, via: Option<IpAddr>) -> Result<(), String>;

    /// Resolves when no Service sends to `ip` any more, on any node that can be known.
    async fn drained(&self, ip: IpAddr);

    /// What the networks of the Pods that have an interface of their own have carried, by uid.
    async fn traffic(&self) -> HashMap<String, Traffic>;

    /// How many connections each Service has had by clients on this node, since some moment; none where that cannot be known.
    async fn connections(&self) -> Option<HashMap<ServiceKey, u64>>;

    /// What becomes of connections to Services that sleep: for the first who asks; none where they are refused.
    fn waiting(&self) -> Option<Waiting>;

    /// Connects from the node.
    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream>;

    /// The node's addresses.
    fn node_ips(&self) -> Vec<IpAddr>;

    /// What goes into `/etc/resolv.conf`.
    fn dns(&self) -> DnsConfig;
}

/// Connections to Services that sleep.
#[derive(Debug)]
pub struct Waiting {
    /// For whom some are held or carried.
    pub waited: watch::Receiver<Waited>,
    /// Those that were not held to the end.
    pub refusals: mpsc::Receiver<(ServiceKey, Refusal)>,
}

/// Starts the node's network once its Pod CIDR is known.
#[async_trait]
pub trait NetworkStart: Send + Sync + 'static {
    /// The node's addresses, known before the network is up: the Node is registered with them.
    fn node_ips(&self) -> Vec<IpAddr>;

    /// Starts it with the node's `spec.podCIDR`.
    async fn start(&self, pod_cidr: &str) -> Result<Arc<dyn NodeNet>, String>;
}
