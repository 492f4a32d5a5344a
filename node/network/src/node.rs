//! A node's network: its place, its Pods, its Services, its DNS.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rtnetlink::Handle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use wherry_runtime::{PodNetwork, PodRef, SocketFamily, SocketKind, Traffic};

use crate::activate::{self, Refusal, Reports, Waited};
use crate::cluster::{Cluster, Tables};
use crate::dns::{self, Zone};
use crate::gate::Gate;
use crate::host_ports::HostPorts;
use crate::links::{
    NodeLinks, attach_pod, configure_node, connection_in, detach_pod, pod_address, route_peer, traffic,
};
use crate::netns::Netns;
use crate::place::{Place, connect, listen};
use crate::pod::{Pod, Seen, View};
use crate::processes::PodProcesses;
use crate::request::{HostPort, PodRequest, Sharing};
use crate::services::{Base, ServiceKey, Services};
use crate::{Cidr, Ipam, NetworkError, ipc, netns, publish, sysctls};

const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// What distinguishes a node's network from its neighbours'.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// Its place among the nodes of this process, from 0.
    pub index: u16,
    /// `spec.podCIDR`.
    pub pod_cidr: Cidr,
}

/// The network of one node. Its tasks end when it is dropped; its namespaces stay until
/// [`Cluster::remove`](crate::Cluster::remove).
pub struct NodeNetwork {
    config: NodeConfig,
    ip: Ipv4Addr,
    place: Arc<Place>,
    /// Where served Pods that have an address alone are reached; none where each has a listener.
    gate: Option<Arc<Gate>>,
    /// Into the node's namespace; none where a helper holds it, which configured all that is needed.
    netlink: Option<Handle>,
    pods_dir: PathBuf,
    shared_dir: PathBuf,
    state: Mutex<State>,
    services: Arc<Services>,
    reports: Arc<Reports>,
    host_ports: tokio::sync::Mutex<HostPorts>,
    tables: Arc<Tables>,
    zone: Zone,
    dns_ip: Ipv4Addr,
    _tasks: DropGuard,
}

struct State {
    ipam: Ipam,
    pods: HashMap<String, Arc<Pod>>,
    /// Pods of an earlier life that nobody has asked for yet, and the address that each has in its namespace: nobody may have
    /// been told of it.
    left: HashMap<String, Ipv4Addr>,
}

impl State {
    /// The address for a Pod: the one that is asked for, else the one it has had, else any.
    fn take(&mut self, uid: &str, asked: Option<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
        match (self.left.remove(uid), asked) {
            (Some(had), None) => Ok(had),
            (Some(had), Some(asked)) if had == asked => Ok(had),
            (had, asked) => {
                had.into_iter().for_each(|had| self.ipam.free(had));
                match asked {
                    Some(ip) => self.ipam.claim(ip).map(|()| ip),
                    None => self.ipam.take(),
                }
            }
        }
    }

    /// Only what was taken from the range goes back to it.
    fn free(&mut self, ip: Ipv4Addr, host_network: bool) {
        if !host_network {
            self.ipam.free(ip);
        }
    }
}

impl NodeNetwork {
    /// Sets the node's network up, or takes it up again where an earlier life left it.
    ///
    /// # Errors
    /// When the kernel refuses a part of it, with that part's name.
    pub async fn start(cluster: &Cluster, config: NodeConfig) -> Result<Arc<Self>, NetworkError> {
        let ip = cluster.node_ip(config.index);
        let place = cluster.node_place(&config).await?;
        let settings = cluster.config();
        let netlink = match &*place {
            Place::Entered(netns) => {
                let handle = connection_in(netns)?;
                let links = NodeLinks {
                    loopback: vec![settings.dns_ip],
                    node_ip: ip,
                    pod_cidr: config.pod_cidr.to_string(),
                    service_cidr: settings.service_cidr.to_string(),
                };
                configure_node(&handle, &links).await?;
                netns
                    .enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
                    .map_err(NetworkError::io("turn on ip_forward"))?;
                Some(handle)
            }
            Place::Held(_) => None,
        };
        let pods_dir = cluster.pods_dir(&config.name);
        let mut ipam = Ipam::new(config.pod_cidr);
        let mut left = left(&pods_dir).await?;
        left.retain(|uid, ip| {
            let claimed = ipam.claim(*ip);
            if let Err(error) = &claimed {
                tracing::warn!(uid, %error, "a Pod of an earlier life cannot keep its address");
            }
            claimed.is_ok()
        });
        let services = Services::new();
        cluster.tables().add(&services);
        let zone = Zone { domain: settings.domain.clone(), services: services.clone() };
        let cancel = CancellationToken::new();
        let base = Base { node_ip: ip, service_cidr: settings.service_cidr, local: vec![settings.dns_ip] };
        let reports = Reports::new();
        let gate = match cluster.shares_listener() {
            true => Some(Gate::open(&place, cancel.clone()).await?),
            false => None,
        };
        let waker = activate::open(&place, ip, &services)
            .map_err(NetworkError::io(format!("listen on {ip} for Services that sleep")))?;
        tokio::spawn(activate::run(waker, place.clone(), services.clone(), reports.clone(), cancel.clone()));
        tokio::spawn(services.clone().run(place.clone(), base, cancel.clone()));
        let dns = dns::serve(&place, settings.dns_ip.into(), zone.clone(), cancel.clone())
            .await
            .map_err(NetworkError::io(format!("listen on {}:53", settings.dns_ip)))?;
        tokio::spawn(dns);
        if settings.publish && config.index == 0 {
            tokio::spawn(publish::run(place.clone(), ip, services.clone(), cancel.clone()));
        }
        Ok(Arc::new(Self {
            ip,
            netlink,
            place,
            gate,
            pods_dir,
            shared_dir: cluster.shared_dir(&config.name),
            state: Mutex::new(State { ipam, pods: HashMap::new(), left }),
            services,
            reports,
            host_ports: tokio::sync::Mutex::default(),
            tables: cluster.tables().clone(),
            zone,
            dns_ip: settings.dns_ip,
            config,
            _tasks: cancel.drop_guard(),
        }))
    }

    /// The node's own address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    /// The cluster's DNS address, for resolv.conf.
    #[must_use]
    pub fn dns_ip(&self) -> IpAddr {
        self.dns_ip.into()
    }

    /// The cluster's domain, without a final dot.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.zone.domain
    }

    /// How many Pods can have an address here.
    #[must_use]
    pub fn pod_capacity(&self) -> u64 {
        self.state.lock().ipam.capacity()
    }

    /// Whether Pods can have a namespace of their own (containers need one).
    #[must_use]
    pub fn has_namespaces(&self) -> bool {
        self.netlink.is_some()
    }

    /// Gives a Pod its network. A Pod that has one already gets the same.
    ///
    /// # Errors
    /// [`NetworkError::Exhausted`], [`NetworkError::Address`] for an address that cannot be kept,
    /// [`NetworkError::NoNamespaces`] without root, and what the kernel refuses.
    pub async fn add_pod(&self, pod: &PodRef, request: PodRequest) -> Result<Arc<dyn PodNetwork>, NetworkError> {
        if request.namespaced && self.netlink.is_none() {
            return Err(NetworkError::NoNamespaces);
        }
        let (ip, namespaced) = {
            let mut state = self.state.lock();
            if let Some(known) = state.pods.get(&pod.uid) {
                return Ok(known.clone());
            }
            // Containers of an earlier life may be in the one that is there.
            let namespaced = request.namespaced || (self.netlink.is_some() && self.pods_dir.join(&pod.uid).exists());
            let asked = request.ip.and_then(|ip| match ip {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            });
            let ip = if request.host_network { self.ip } else { state.take(&pod.uid, asked)? };
            (ip, namespaced)
        };
        let host_network = request.host_network;
        let made = match self.make(pod, namespaced, ip, &request).await {
            Ok(made) if host_network => Ok(made),
            Ok(made) => self.lead(&pod.uid, Some((ip, &request.host_ports))).await.map(|()| made),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => {
                let made = Arc::new(made);
                self.state.lock().pods.insert(pod.uid.clone(), made.clone());
                Ok(made)
            }
            Err(error) => {
                self.state.lock().free(ip, host_network);
                Err(error)
            }
        }
    }

    async fn make(
        &self,
        pod: &PodRef,
        namespaced: bool,
        ip: Ipv4Addr,
        request: &PodRequest,
    ) -> Result<Pod, NetworkError> {
        let shared_dir = self.shared_dir.join(&pod.uid);
        let (mut shared, mut processes) = (None, Seen::Container);
        let mut view = if request.host_network { View::Node } else { View::Address(self.gate.clone()) };
        if let (Some(handle), Place::Entered(node)) = (&self.netlink, &*self.place)
            && namespaced
        {
            let ipc = if request.host_ipc { ipc::of_the_machine() } else { ipc::open_or_create(&shared_dir)? };
            processes = match request.processes {
                Sharing::Container => Seen::Container,
                Sharing::Pod => Seen::Pod(PodProcesses::new(shared_dir)),
                Sharing::Node => Seen::Node,
            };
            if !request.host_network {
                let (netns, _) = Netns::open_or_create(&self.pods_dir.join(&pod.uid))?;
                attach_pod((handle, node), &netns, ip).await?;
                sysctls::apply(&netns, ipc.namespace.as_deref(), &request.sysctls)?;
                view = View::Own(netns);
            } else if let Some(ipc) = &ipc.namespace {
                sysctls::apply_to_ipc(ipc, &request.sysctls)?;
            }
            shared = Some(ipc);
        }
        let (node, zone, dns) = (self.place.clone(), self.zone.clone(), request.dns.clone());
        Ok(Pod { ips: [ip.into()], ip, view, shared, processes, node, zone, dns })
    }

    /// Leads ports of the node to a Pod, or no longer.
    async fn lead(&self, uid: &str, to: Option<(Ipv4Addr, &[HostPort])>) -> Result<(), NetworkError> {
        // One at a time: each writes the whole table.
        let mut ports = self.host_ports.lock().await;
        let script = match to {
            Some((pod, wanted)) => ports.set(uid, pod, wanted, self.ip),
            None => ports.remove(uid, self.ip),
        };
        let Some(script) = script else { return Ok(()) };
        let (place, from_loopback) = (self.place.clone(), if ports.is_empty() { "0" } else { "1" });
        let write = move || {
            place.nft(&script)?;
            // Without it nothing leaves 127.0.0.1 for a Pod's namespace. The table guards the other way.
            match &*place {
                Place::Entered(netns) => netns.enter(|| std::fs::write(ROUTE_LOCALNET, from_loopback)),
                Place::Held(_) => Ok(()),
            }
            .map_err(NetworkError::io("set route_localnet"))
        };
        tokio::task::spawn_blocking(write).await.map_err(|error| NetworkError::Nft(error.to_string()))?
    }

    /// The uids of all Pods of which files are kept, those among them that are only half made.
    ///
    /// # Errors
    /// What the system says of a directory that is there.
    pub fn left(&self) -> io::Result<HashSet<String>> {
        let mut uids = HashSet::new();
        for dir in [&self.pods_dir, &self.shared_dir] {
            match std::fs::read_dir(dir) {
                Ok(entries) => uids.extend(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(uids)
    }

    /// Takes a Pod's network away. Idempotent; also clears what an earlier life left of the Pod.
    ///
    /// # Errors
    /// What the kernel refuses; the address is not given out again before it succeeds.
    pub async fn remove_pod(&self, uid: &str) -> Result<(), NetworkError> {
        // Taken out at once: whoever comes second must not free an address that is another's by then.
        let (known, left) = {
            let mut state = self.state.lock();
            (state.pods.remove(uid), state.left.remove(uid))
        };
        let done = self.take_down(uid, known.as_deref(), left).await;
        let mut state = self.state.lock();
        match (&done, known) {
            (Ok(()), Some(pod)) => state.free(pod.ip, matches!(pod.view, View::Node)),
            (Err(_), Some(pod)) => {
                state.pods.insert(uid.to_owned(), pod);
            }
            (_, None) => {}
        }
        match (&done, left) {
            (Ok(()), Some(ip)) => state.ipam.free(ip),
            (Err(_), Some(ip)) => {
                state.left.insert(uid.to_owned(), ip);
            }
            (_, None) => {}
        }
        done
    }

    async fn take_down(&self, uid: &str, known: Option<&Pod>, left: Option<Ipv4Addr>) -> Result<(), NetworkError> {
        let path = self.pods_dir.join(uid);
        self.lead(uid, None).await?;
        let own = known.filter(|pod| matches!(pod.view, View::Own(_))).map(|pod| pod.ip).or(left);
        if let (Some(handle), Some(ip)) = (&self.netlink, own) {
            detach_pod(handle, ip).await?;
        }
        netns::remove(&path).map_err(NetworkError::io(format!("remove {}", path.display())))?;
        let path = self.shared_dir.join(uid);
        ipc::clear(&path).map_err(NetworkError::io(format!("remove {}", path.display())))?;
        let Some(pod) = known else { return Ok(()) };
        if let Seen::Pod(processes) = &pod.processes {
            processes.reap();
        }
        if !matches!(pod.view, View::Node) {
            for table in self.tables.all() {
                table.restore(pod.ip.into());
            }
        }
        Ok(())
    }

    /// What the network of each Pod that has an interface of its own has carried, by the Pod's uid.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn traffic(&self) -> Result<HashMap<String, Traffic>, NetworkError> {
        let Some(handle) = &self.netlink else { return Ok(HashMap::new()) };
        let mut carried = traffic(handle).await?;
        let state = self.state.lock();
        let of_pods = state.pods.iter().filter_map(|(uid, pod)| Some((uid.clone(), carried.remove(&pod.ip)?)));
        Ok(of_pods.collect())
    }

    /// How many connections each Service has had by clients on this node, since its rules were made.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn connections(&self) -> Result<HashMap<ServiceKey, u64>, NetworkError> {
        self.services.connections(&self.place).await
    }

    /// The Services that sleep and for which connections are held here, or carried to whoever woke.
    #[must_use]
    pub fn waited(&self) -> watch::Receiver<Waited> {
        self.reports.waited()
    }

    /// The connections that were not held to the end: for the first who asks.
    #[must_use]
    pub fn refusals(&self) -> Option<mpsc::Receiver<(ServiceKey, Refusal)>> {
        self.reports.refusals()
    }

    /// The node's Services.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Resolves when no node of this process sends new connections for a Service to the Pod that has `ip`. From then on none
    /// will, until the Pod is removed.
    pub async fn drained(&self, ip: IpAddr) {
        // The node's own is that of many Pods: what stays of the others goes on.
        if ip == IpAddr::from(self.ip) {
            return;
        }
        let tables = self.tables.all();
        futures::future::join_all(tables.iter().map(|table| table.drained(ip))).await;
    }

    /// Tells the way to another node's Pods, or forgets it.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn set_peer(&self, pods: Cidr, via: Option<Ipv4Addr>) -> Result<(), NetworkError> {
        match &self.netlink {
            Some(handle) if pods != self.config.pod_cidr => route_peer(handle, pods, via).await,
            _ => Ok(()),
        }
    }

    /// Connects from the node to a Pod or Service (probes, forwarding).
    ///
    /// # Errors
    /// As `connect(2)`.
    pub async fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        connect(self.place.socket(SocketFamily::V4, SocketKind::Tcp)?, addr).await
    }

    /// Listens on an address of the node.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn listen(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        listen(self.place.socket(SocketFamily::V4, SocketKind::Tcp)?, addr)
    }

    /// The node's network namespace, for tools (`nsenter --net=PATH`); none where a helper holds it.
    #[must_use]
    pub fn namespace(&self) -> Option<&Path> {
        match &*self.place {
            Place::Entered(netns) => Some(netns.path()),
            Place::Held(_) => None,
        }
    }
}

/// The Pods whose namespaces an earlier life left, and their addresses.
async fn left(dir: &Path) -> Result<HashMap<String, Ipv4Addr>, NetworkError> {
    let mut found = HashMap::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(NetworkError::io(format!("list {}", dir.display()))(error)),
    };
    for entry in entries.flatten() {
        // After a reboot the files are empty.
        if let (Ok(uid), Ok(Some(netns))) = (entry.file_name().into_string(), Netns::open(&entry.path()))
            && let Some(ip) = pod_address(&netns).await?
        {
            found.insert(uid, ip);
        }
    }
    Ok(found)
}
