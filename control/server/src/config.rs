//! What a server is made of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use wherry_api::resource::Registry;
use wherry_store::Store;

use crate::audit::Audit;
use crate::layers::authenticate::TokenAuthenticator;
use crate::metrics::Extra as ExtraMetrics;
use crate::nodes::{NoNodes, NodeConnector};
use crate::pki::FrontProxy;
use crate::serving::Patience;
use crate::tokens::Issuer;

/// The parts a [`Server`](crate::Server) is put together from.
#[derive(Clone)]
pub struct Config {
    /// Where objects live.
    pub store: Arc<dyn Store>,
    /// The resources that are served.
    pub registry: Arc<Registry>,
    /// The way to the agents.
    pub nodes: Arc<dyn NodeConnector>,
    /// How extension API servers know this one; without it, they have no reason to believe it who asks.
    pub front_proxy: Option<FrontProxy>,
    /// Who vouches for service accounts; without one, a key that is kept nowhere.
    pub issuer: Option<Arc<Issuer>>,
    /// Further recognisers of bearer tokens, asked in order after those of service accounts and bootstrap tokens.
    pub tokens: Vec<Arc<dyn TokenAuthenticator>>,
    /// Where it is noted who did what.
    pub audit: Option<Audit>,
    /// What else `/metrics` tells.
    pub metrics: Vec<ExtraMetrics>,
    /// The cluster's addresses.
    pub cluster: Cluster,
    /// How long clients may take.
    pub patience: Patience,
    /// How often a watch that allows them gets bookmarks.
    pub bookmark_interval: Duration,
    /// How long events are kept after they were last written.
    pub event_lifetime: Duration,
    /// How long lists can be read, and continued, as they were.
    pub history_lifetime: Duration,
}

impl Config {
    /// A server over `store` with the built-in resources, the default addresses and no agents.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            registry: Arc::new(Registry::builtin()),
            nodes: Arc::new(NoNodes),
            front_proxy: None,
            issuer: None,
            tokens: Vec::new(),
            audit: None,
            metrics: Vec::new(),
            cluster: Cluster::default(),
            patience: Patience::default(),
            bookmark_interval: Duration::from_secs(60),
            event_lifetime: Duration::from_secs(3600),
            history_lifetime: Duration::from_secs(300),
        }
    }
}

/// What selectors see of stored objects, for a store that reads them from its files
/// ([`wherry_store::Options`]).
pub fn describe(registry: Arc<Registry>) -> wherry_store::Describe {
    Arc::new(move |key, object| match registry.stored(&key.resource) {
        Some(resource) => resource.attributes(object),
        // Objects of a resource that is no longer served: nobody selects them.
        None => wherry_api::selector::Attributes::default(),
    })
}

/// Addresses and names of the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where cluster IPs come from.
    pub service_cidr: Ipv4Net,
    /// Where node ports come from.
    pub node_ports: RangeInclusive<u16>,
    /// The cluster IP of the Service `kubernetes`.
    pub api_ip: Ipv4Addr,
    /// The address of the cluster's DNS, kept free for it.
    pub dns_ip: Ipv4Addr,
    /// The DNS domain.
    pub domain: String,
    /// Where this API server can be reached from Pods: the endpoints of the Service `kubernetes`.
    pub api_endpoints: Vec<SocketAddr>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
            node_ports: 30000..=32767,
            api_ip: Ipv4Addr::new(10, 96, 0, 1),
            dns_ip: Ipv4Addr::new(10, 96, 0, 10),
            domain: "cluster.local".to_owned(),
            api_endpoints: Vec::new(),
        }
    }
}

impl Cluster {
    /// The names that the API server's certificate needs, given where else it listens.
    pub fn api_names(&self, extra: impl IntoIterator<Item = IpAddr>) -> crate::pki::Names {
        let known = std::iter::once(IpAddr::V4(self.api_ip)).chain(self.api_endpoints.iter().map(SocketAddr::ip));
        crate::pki::Names::of_api_server(&self.domain, known.chain(extra))
    }
}
