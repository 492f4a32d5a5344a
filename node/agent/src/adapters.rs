//! The real network and images behind the agent's [`ports`](crate::ports).

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use wherry_images::{Auth, ImageError, Images, Reference, Silent};
use wherry_network::{Cluster, NodeConfig, NodeNetwork, PodRequest, Service, ServiceKey};
use wherry_runtime::{Image, ImageKind, PodNetwork, PodRef, Traffic};

use crate::config::files::DnsConfig;
use crate::ports::{ImageSource, NetworkStart, NodeImage, NodeNet, PullError, Waiting};

/// Starts one node's network in the cluster of this process.
pub struct ClusterNetwork {
    cluster: Arc<Cluster>,
    name: String,
    index: u16,
}

impl ClusterNetwork {
    /// The network of the node of this name, the `index`th of the process.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, name: impl Into<String>, index: u16) -> Arc<Self> {
        Arc::new(Self { cluster, name: name.into(), index })
    }
}

#[async_trait]
impl NetworkStart for ClusterNetwork {
    fn node_ips(&self) -> Vec<IpAddr> {
        vec![self.cluster.node_ip(self.index).into()]
    }

    async fn start(&self, pod_cidr: &str) -> Result<Arc<dyn NodeNet>, String> {
        let pod_cidr = pod_cidr.parse().map_err(|error| format!("spec.podCIDR {pod_cidr:?}: {error}"))?;
        let config = NodeConfig { name: self.name.clone(), index: self.index, pod_cidr };
        let network = NodeNetwork::start(&self.cluster, config).await.map_err(|error| error.to_string())?;
        Ok(Arc::new(Started(network)))
    }
}

/// A network that was started by someone else.
#[async_trait]
impl NetworkStart for Started {
    fn node_ips(&self) -> Vec<IpAddr> {
        vec![self.0.ip()]
    }

    async fn start(&self, _pod_cidr: &str) -> Result<Arc<dyn NodeNet>, String> {
        Ok(Arc::new(Self(self.0.clone())))
    }
}

/// A started network of this process.
pub struct Started(pub Arc<NodeNetwork>);

#[async_trait]
impl NodeNet for Started {
    async fn add_pod(&self, pod: &PodRef, request: PodRequest) -> Result<Arc<dyn PodNetwork>, String> {
        self.0.add_pod(pod, request).await.map_err(|error| error.to_string())
    }

    fn left(&self) -> io::Result<HashSet<String>> {
        self.0.left()
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), String> {
        self.0.remove_pod(uid).await.map_err(|error| error.to_string())
    }

    fn set_service(&self, key: ServiceKey, service: Option<Service>) {
        self.0.services().set(key, service);
    }

    async fn set_peer(&self, pod_cidr: &str, via: Option<IpAddr>) -> Result<(), String> {
        let cidr = pod_cidr.parse().map_err(|error| format!("{error}"))?;
        let via = match via {
            Some(IpAddr::V4(via)) => Some(via),
            Some(IpAddr::V6(via)) => return Err(format!("{via}: IPv6 between nodes is not supported")),
            None => None,
        };
        self.0.set_peer(cidr, via).await.map_err(|error| error.to_string())
    }

    async fn traffic(&self) -> HashMap<String, Traffic> {
        self.0.traffic().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the Pods' network counters");
            HashMap::new()
        })
    }

    async fn drained(&self, ip: IpAddr) {
        self.0.drained(ip).await;
    }

    async fn connections(&self) -> Option<HashMap<ServiceKey, u64>> {
        let counted = self.0.connections().await;
        counted.inspect_err(|error| tracing::warn!(%error, "cannot read the counters of Services")).ok()
    }

    fn waiting(&self) -> Option<Waiting> {
        Some(Waiting { waited: self.0.waited(), refusals: self.0.refusals()? })
    }

    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.0.dial(to).await
    }

    fn node_ips(&self) -> Vec<IpAddr> {
        vec![self.0.ip()]
    }

    fn dns(&self) -> DnsConfig {
        DnsConfig { server: Some(self.0.dns_ip()), domain: self.0.domain().to_owned() }
    }
}

#[async_trait]
impl ImageSource for Images {
    fn get(&self, reference: &str) -> Result<Option<Arc<Image>>, PullError> {
        Self::get(self, reference).map_err(pull_error)
    }

    async fn latest_kind(&self, reference: &str, secrets: &[Vec<u8>]) -> Option<ImageKind> {
        let auth = auth(reference, secrets).ok()?;
        Self::latest_kind(self, reference, auth).await.ok()
    }

    async fn pull(&self, reference: &str, secrets: &[Vec<u8>]) -> Result<Arc<Image>, PullError> {
        let auth = auth(reference, secrets).map_err(pull_error)?;
        Self::pull(self, reference, auth, Arc::new(Silent)).await.map_err(pull_error)
    }

    fn unpack(&self, image: &Image, dir: &Path) -> Result<(), PullError> {
        Self::unpack(self, image, dir).map_err(pull_error)
    }

    fn list(&self) -> Vec<NodeImage> {
        let images = Self::list(self).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the node's images");
            Vec::new()
        });
        let mut images: Vec<_> = images
            .into_iter()
            .map(|image| NodeImage {
                names: std::iter::once(image.id).chain(image.references).collect(),
                size: image.size,
                layers: image.layers,
            })
            .collect();
        images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.names.cmp(&b.names)));
        images
    }

    fn note_uses(&self) {
        Self::note_uses(self);
    }

    fn collect(&self, bytes: u64, min_age: Duration) -> Result<u64, String> {
        Self::collect(self, bytes, min_age).map_err(|error| error.to_string())
    }

    fn blobs(&self) -> Result<HashSet<String>, String> {
        self.named().map_err(|error| error.to_string())
    }
}

/// The first of the Docker configurations that knows the image's registry.
fn auth(reference: &str, secrets: &[Vec<u8>]) -> Result<Option<Auth>, ImageError> {
    let reference: Reference = reference.parse()?;
    for config in secrets {
        if let Some(auth) = Auth::from_docker_config(config, &reference)? {
            return Ok(Some(auth));
        }
    }
    Ok(None)
}

fn pull_error(error: ImageError) -> PullError {
    PullError { reason: error.reason(), message: error.to_string() }
}
