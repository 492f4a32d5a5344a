//! The network of a node: addresses on loopback.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use wherry_agent::DnsConfig;
use wherry_agent::ports::{NetworkStart, NodeNet};
use wherry_network::{PodRequest, Service, ServiceKey};
use wherry_runtime::{PodNetwork, PodRef, SocketFamily, SocketKind};

/// Pods get real loopback addresses, so that probes find what a test listens with.
pub struct Network {
    pods: Mutex<HashMap<String, (IpAddr, bool)>>,
    next: Mutex<u8>,
    pub services: Mutex<BTreeMap<ServiceKey, Service>>,
    changed: tokio::sync::Notify,
    subnet: u8,
}

struct PodNet {
    ips: [IpAddr; 1],
    namespace: Option<PathBuf>,
}

#[async_trait]
impl PodNetwork for PodNet {
    fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    fn namespace(&self) -> Option<&Path> {
        self.namespace.as_deref()
    }

    fn socket(&self, _family: SocketFamily, _kind: SocketKind) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        Ok(addr)
    }

    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        Ok(addr)
    }

    async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Network {
    pub fn new(subnet: u8) -> Arc<Self> {
        Arc::new(Self {
            pods: Mutex::default(),
            next: Mutex::new(1),
            services: Mutex::default(),
            changed: tokio::sync::Notify::new(),
            subnet,
        })
    }

    /// Has it that an earlier life made the network of a Pod.
    pub fn leave(&self, uid: &str) {
        self.pods.lock().insert(uid.to_owned(), (Ipv4Addr::new(127, 77, self.subnet, 200).into(), true));
    }

    /// Waits until a Service is as `wanted` says.
    pub async fn service(&self, name: &str, wanted: impl Fn(Option<&Service>) -> bool) {
        loop {
            let changed = self.changed.notified();
            let key = ServiceKey { namespace: "default".to_owned(), name: name.to_owned() };
            if wanted(self.services.lock().get(&key)) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until so many Pods have an address.
    pub async fn pods(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.pods.lock().len() == count {
                return;
            }
            changed.await;
        }
    }

    /// Waits until no Pod has an address. A Pod that had ended leaves the API before the agent has cleared up after it.
    pub async fn emptied(&self) {
        let empty = async {
            loop {
                let changed = self.changed.notified();
                if self.pods.lock().is_empty() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), empty).await.expect("a Pod's address is not given back");
    }
}

/// The network, as it is handed to an agent.
pub struct Shared(pub Arc<Network>);

#[async_trait]
impl NodeNet for Shared {
    async fn add_pod(&self, pod: &PodRef, request: PodRequest) -> Result<Arc<dyn PodNetwork>, String> {
        let PodRequest { namespaced, ip, .. } = request;
        let network = &self.0;
        let (ip, namespaced) = *network.pods.lock().entry(pod.uid.clone()).or_insert_with(|| {
            let mut next = network.next.lock();
            *next = next.wrapping_add(1);
            (ip.unwrap_or(Ipv4Addr::new(127, 77, network.subnet, *next).into()), namespaced)
        });
        Ok(Arc::new(PodNet { ips: [ip], namespace: namespaced.then(|| PathBuf::from("/proc/self/ns/net")) }))
    }

    fn left(&self) -> io::Result<HashSet<String>> {
        Ok(self.0.pods.lock().keys().cloned().collect())
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), String> {
        self.0.pods.lock().remove(uid);
        self.0.changed.notify_waiters();
        Ok(())
    }

    fn set_service(&self, key: ServiceKey, service: Option<Service>) {
        match service {
            Some(service) => self.0.services.lock().insert(key, service),
            None => self.0.services.lock().remove(&key),
        };
        self.0.changed.notify_waiters();
    }

    async fn set_peer(&self, _pod_cidr: &str, _via: Option<IpAddr>) -> Result<(), String> {
        Ok(())
    }

    async fn traffic(&self) -> std::collections::HashMap<String, wherry_runtime::Traffic> {
        std::collections::HashMap::new()
    }

    async fn drained(&self, _ip: IpAddr) {}

    async fn connections(&self) -> Option<std::collections::HashMap<ServiceKey, u64>> {
        None
    }

    fn waiting(&self) -> Option<wherry_agent::ports::Waiting> {
        None
    }

    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(to).await
    }

    fn node_ips(&self) -> Vec<IpAddr> {
        vec![Ipv4Addr::LOCALHOST.into()]
    }

    fn dns(&self) -> DnsConfig {
        DnsConfig { server: Some(Ipv4Addr::new(10, 96, 0, 10).into()), domain: "cluster.local".to_owned() }
    }
}

#[async_trait]
impl NetworkStart for Shared {
    fn node_ips(&self) -> Vec<IpAddr> {
        NodeNet::node_ips(self)
    }

    async fn start(&self, pod_cidr: &str) -> Result<Arc<dyn NodeNet>, String> {
        assert_eq!(pod_cidr, "10.128.0.0/18");
        Ok(Arc::new(Self(self.0.clone())))
    }
}
