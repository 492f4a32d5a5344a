//! Services on this node: one table, from which the kernel's maps and the DNS answers follow.
//!
//! [`Services::set`] only notes the wanted value; one task applies all that has gathered as one nftables
//! transaction (see [`delta`]), and rests a little after each. A burst of changes costs one transaction, and the gathering is
//! bounded by the number of Services.

mod counters;
mod delta;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::NetworkError;
use crate::place::Place;
pub(crate) use delta::Base;
use delta::Rules;

/// After a transaction so many times its duration passes before the next, and at most this: what changes meanwhile is written with one.
const REST: u32 = 2;
const LONGEST_REST: Duration = Duration::from_millis(200);

/// A Service's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// The transport of a Service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As nftables and DNS write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port of a Service and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `ports[].name`, empty where it has none.
    pub name: String,
    /// `ports[].protocol`.
    pub protocol: Protocol,
    /// `ports[].port`.
    pub port: u16,
    /// `ports[].nodePort`.
    pub node_port: Option<u16>,
    /// The endpoints that take traffic: ready ones, or the serving terminating ones where none is ready.
    pub endpoints: Vec<SocketAddr>,
}

/// An endpoint as DNS knows it (headless Services).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The endpoint's `hostname`, where it has one.
    pub hostname: Option<String>,
    /// Its address.
    pub ip: IpAddr,
}

/// A Service, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.clusterIPs`; empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Ready endpoints (all of them with `publishNotReadyAddresses`).
    pub hosts: Vec<Host>,
    /// `spec.externalName`.
    pub external_name: Option<String>,
    /// Its workload may be scaled to zero, and a connection wakes it: while a TCP port has no endpoint, the node holds connections
    /// to it.
    pub sleeps: bool,
}

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) service: ServiceKey,
    number: u16,
}

/// Where a connection to a port can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To one of these, in the order to be tried.
    To(Vec<SocketAddr>),
    /// Nowhere yet: its workload sleeps.
    Asleep,
    /// Nowhere.
    Nowhere,
}

/// The table. Many may read and set; one task writes to the kernel.
#[derive(Debug)]
pub struct Services {
    table: RwLock<HashMap<ServiceKey, Arc<Service>>>,
    waiting: Mutex<BTreeSet<ServiceKey>>,
    /// Addresses of Pods that are being stopped: no rule leads there, whatever late news of their endpoints says.
    withdrawn: Mutex<HashSet<IpAddr>>,
    /// Who takes connections to Services that sleep.
    waker: OnceLock<SocketAddrV4>,
    /// Whose turn it is among the endpoints of what woke.
    turn: AtomicUsize,
    changed: Notify,
    applied: watch::Sender<Arc<Applied>>,
}

/// What the kernel has.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    targets: HashMap<Ipv4Addr, usize>,
    /// The TCP node ports that lead anywhere.
    pub(crate) node_ports: BTreeSet<u16>,
    counters: Arc<HashMap<u32, ServiceKey>>,
}

impl Services {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            table: RwLock::default(),
            waiting: Mutex::default(),
            withdrawn: Mutex::default(),
            waker: OnceLock::new(),
            turn: AtomicUsize::new(0),
            changed: Notify::new(),
            applied: watch::Sender::default(),
        })
    }

    /// Sets or removes a Service. Returns at once; DNS answers follow at once, the kernel's rules within one
    /// transaction.
    pub fn set(&self, key: ServiceKey, service: Option<Service>) {
        {
            let mut table = self.table.write();
            let unchanged = match &service {
                Some(service) => table.get(&key).is_some_and(|known| **known == *service),
                None => !table.contains_key(&key),
            };
            if unchanged {
                return;
            }
            match service {
                Some(service) => table.insert(key.clone(), Arc::new(service)),
                None => table.remove(&key),
            };
        }
        self.waiting.lock().insert(key);
        self.changed.notify_one();
    }

    /// The Service of that name.
    #[must_use]
    pub fn get(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.table.read().get(key).cloned()
    }

    /// Whether a namespace has any Service (a DNS name that exists without records).
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.table.read().keys().any(|key| key.namespace == namespace)
    }

    /// The Service that has this cluster address, or an endpoint of a headless one (reverse look-ups).
    pub(crate) fn find_ip(&self, ip: IpAddr) -> Option<(ServiceKey, Option<String>)> {
        self.table.read().iter().find_map(|(key, service)| {
            if service.cluster_ips.contains(&ip) {
                return Some((key.clone(), None));
            }
            let host = service.hosts.iter().find(|host| service.cluster_ips.is_empty() && host.ip == ip)?;
            host.hostname.clone().map(|name| (key.clone(), Some(name)))
        })
    }

    /// Resolves when no rule of this node sends new connections to `ip`; at once where none does. From then on none will,
    /// until [`restore`](Self::restore).
    pub async fn drained(&self, ip: IpAddr) {
        self.untargeted(ip).await;
        // News that the Pod had become ready may be later than its end.
        self.withdrawn.lock().insert(ip);
        self.revise(ip);
        self.untargeted(ip).await;
    }

    /// The address may have another Pod: what is said of it counts again.
    pub(crate) fn restore(&self, ip: IpAddr) {
        if self.withdrawn.lock().remove(&ip) {
            self.revise(ip);
        }
    }

    async fn untargeted(&self, ip: IpAddr) {
        let IpAddr::V4(ip) = ip else { return };
        let mut applied = self.applied.subscribe();
        // An error means that the table is gone, and its rules with it.
        drop(applied.wait_for(|applied| !applied.targets.contains_key(&ip)).await);
    }

    /// Has the rules of every Service that names `ip` looked at again.
    fn revise(&self, ip: IpAddr) {
        let leads = |service: &Service| {
            service.ports.iter().flat_map(|port| &port.endpoints).any(|endpoint| endpoint.ip() == ip)
        };
        let keys: Vec<_> =
            self.table.read().iter().filter(|(_, service)| leads(service)).map(|(key, _)| key.clone()).collect();
        if !keys.is_empty() {
            self.waiting.lock().extend(keys);
            self.changed.notify_one();
        }
    }

    /// Has connections to Services that sleep come to this address. Once, before any is set.
    pub(crate) fn wake_at(&self, address: SocketAddrV4) {
        let _first = self.waker.set(address);
    }

    /// The TCP port of a Service at a cluster address, or that of the node port where it is none.
    pub(crate) fn behind(&self, to: SocketAddrV4) -> Option<Port> {
        self.table.read().iter().find_map(|(key, service)| {
            let at_cluster_ip = service.cluster_ips.contains(&IpAddr::V4(*to.ip()));
            let leads = |port: &&ServicePort| {
                let front = if at_cluster_ip { port.port } else { port.node_port.unwrap_or(0) };
                port.protocol == Protocol::Tcp && front == to.port()
            };
            let port = service.ports.iter().find(leads)?;
            Some(Port { service: key.clone(), number: port.port })
        })
    }

    /// Where a connection to a port can go now.
    pub(crate) fn way(&self, port: &Port) -> Way {
        let Some(service) = self.present(&port.service) else { return Way::Nowhere };
        let mut ports = service.ports.iter();
        let found = ports.find(|known| known.protocol == Protocol::Tcp && known.port == port.number);
        match found.map(|found| found.endpoints.clone()) {
            Some(mut endpoints) if !endpoints.is_empty() => {
                let first = self.turn.fetch_add(1, Ordering::Relaxed) % endpoints.len();
                endpoints.rotate_left(first);
                Way::To(endpoints)
            }
            Some(_) if service.sleeps => Way::Asleep,
            _ => Way::Nowhere,
        }
    }

    /// The Service as the kernel shall have it.
    fn wanted(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        let mut service = self.present(key)?;
        let asleep = |port: &ServicePort| port.protocol == Protocol::Tcp && port.endpoints.is_empty();
        if let Some(waker) = self.waker.get().filter(|_| service.sleeps && service.ports.iter().any(asleep)) {
            for port in Arc::make_mut(&mut service).ports.iter_mut().filter(|port| asleep(port)) {
                port.endpoints.push(SocketAddr::V4(*waker));
            }
        }
        Some(service)
    }

    /// The Service, without endpoints that are being stopped.
    fn present(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        let mut service = self.get(key)?;
        let withdrawn = self.withdrawn.lock();
        let leads_there = |port: &ServicePort| port.endpoints.iter().any(|endpoint| withdrawn.contains(&endpoint.ip()));
        if !withdrawn.is_empty() && service.ports.iter().any(leads_there) {
            for port in &mut Arc::make_mut(&mut service).ports {
                port.endpoints.retain(|endpoint| !withdrawn.contains(&endpoint.ip()));
            }
        }
        Some(service)
    }

    /// Resolves when a rule of this node sends new connections to `ip`.
    pub async fn targeted(&self, ip: IpAddr) {
        let IpAddr::V4(ip) = ip else { return };
        let mut applied = self.applied.subscribe();
        drop(applied.wait_for(|applied| applied.targets.contains_key(&ip)).await);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Applied>> {
        self.applied.subscribe()
    }

    /// How many connections each Service has had since its rules were made, by this node's clients.
    pub(crate) async fn connections(&self, place: &Arc<Place>) -> Result<HashMap<ServiceKey, u64>, NetworkError> {
        let of = self.applied.borrow().clone();
        let printed = apply(place, counters::SCRIPT.to_owned()).await?;
        Ok(counters::read(&printed, &of.counters))
    }

    /// Writes the table to `place` until cancelled. A transaction that the kernel refuses is logged with its text and
    /// the whole table written anew.
    pub(crate) async fn run(self: Arc<Self>, place: Arc<Place>, base: Base, cancel: CancellationToken) {
        let mut rules = Rules::new(base);
        let mut script = rules.base_script();
        loop {
            let begun = Instant::now();
            let keys = std::mem::take(&mut *self.waiting.lock());
            for key in &keys {
                let service = self.wanted(key);
                rules.set(key, service.as_deref(), &mut script);
            }
            if !script.is_empty() {
                if let Err(error) = apply(&place, std::mem::take(&mut script)).await {
                    tracing::error!(%error, "the Service rules were refused; writing all of them anew");
                    rules = self.rebuild(&place, rules.into_base()).await;
                }
                self.applied.send_replace(Arc::new(Applied {
                    targets: rules.targets(),
                    node_ports: rules.node_ports(),
                    counters: rules.counters(),
                }));
                let rest = (begun.elapsed() * REST).min(LONGEST_REST);
                if cancel.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                    return;
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn rebuild(&self, place: &Arc<Place>, base: Base) -> Rules {
        let mut rules = Rules::new(base);
        let mut script = rules.base_script();
        let keys: Vec<_> = self.table.read().keys().cloned().collect();
        for key in keys {
            rules.set(&key, self.wanted(&key).as_deref(), &mut script);
        }
        if let Err(error) = apply(place, script).await {
            tracing::error!(%error, "the Service rules cannot be written");
        }
        rules
    }
}

/// Runs a script, and returns what it printed.
async fn apply(place: &Arc<Place>, script: String) -> Result<String, NetworkError> {
    let place = place.clone();
    tokio::task::spawn_blocking(move || place.nft(&script))
        .await
        .map_err(|error| NetworkError::Nft(error.to_string()))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// News that a Pod had become ready may come after its end was decided: no rule may lead there any more.
    #[tokio::test]
    async fn a_drained_address_stays_so_until_it_is_restored() {
        let services = Services::new();
        let key = ServiceKey { namespace: "default".into(), name: "web".into() };
        let (ending, other): (IpAddr, IpAddr) = ([10, 128, 0, 5].into(), [10, 128, 0, 6].into());
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            endpoints: vec![SocketAddr::new(ending, 8080), SocketAddr::new(other, 8080)],
        };
        let wanted =
            || services.wanted(&key).unwrap().ports[0].endpoints.iter().map(SocketAddr::ip).collect::<Vec<_>>();

        services.drained(ending).await;
        services.set(key.clone(), Some(Service { ports: vec![port], ..Service::default() }));
        assert_eq!(wanted(), [other]);
        services.waiting.lock().clear();
        services.restore(ending);
        assert_eq!(wanted(), [ending, other]);
        assert!(services.waiting.lock().contains(&key), "its rules are written again");
    }

    #[tokio::test]
    async fn a_service_that_sleeps_leads_to_who_wakes_it() {
        let services = Services::new();
        let key = ServiceKey { namespace: "default".into(), name: "web".into() };
        let waker = SocketAddrV4::new(Ipv4Addr::new(172, 30, 0, 2), 4000);
        let (first, second) = (SocketAddr::from(([10, 128, 0, 5], 8080)), SocketAddr::from(([10, 128, 0, 6], 8080)));
        services.wake_at(waker);
        let set = |sleeps, endpoints: &[SocketAddr]| {
            let port = |protocol, port, node_port| ServicePort {
                name: String::new(),
                protocol,
                port,
                node_port,
                endpoints: endpoints.to_vec(),
            };
            let ports = vec![port(Protocol::Udp, 53, None), port(Protocol::Tcp, 80, Some(30080))];
            let cluster_ips = vec![IpAddr::from([10, 96, 0, 7])];
            services.set(key.clone(), Some(Service { cluster_ips, ports, sleeps, ..Service::default() }));
        };
        let leads =
            || services.wanted(&key).unwrap().ports.iter().map(|port| port.endpoints.clone()).collect::<Vec<_>>();
        let way = || services.way(&services.behind("10.96.0.7:80".parse().unwrap()).unwrap());

        set(false, &[]);
        assert_eq!((leads(), way()), (vec![vec![], vec![]], Way::Nowhere));
        set(true, &[]);
        assert_eq!((leads(), way()), (vec![vec![], vec![waker.into()]], Way::Asleep), "UDP is not held");
        set(true, &[first, second]);
        assert_eq!(leads(), [vec![first, second], vec![first, second]]);
        assert_eq!((way(), way()), (Way::To(vec![first, second]), Way::To(vec![second, first])), "by turns");
        services.withdrawn.lock().extend([first.ip(), second.ip()]);
        assert_eq!((leads(), way()), (vec![vec![], vec![waker.into()]], Way::Asleep), "they are being stopped");

        let by_node_port = services.behind("172.30.0.2:30080".parse().unwrap());
        assert_eq!(by_node_port, services.behind("10.96.0.7:80".parse().unwrap()));
        for nobody in ["10.96.0.7:53", "10.96.0.7:30080", "172.30.0.2:80", "172.30.0.2:4000"] {
            assert_eq!(services.behind(nobody.parse().unwrap()), None, "{nobody}");
        }
        let port = by_node_port.unwrap();
        services.set(key.clone(), None);
        assert_eq!(services.way(&port), Way::Nowhere);
    }
}
