//! Feeds the node's network: Services with their EndpointSlices, and the ways to other nodes' Pods.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service as ApiService};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wherry_network::{Host, Protocol, Service, ServiceKey, ServicePort};
use wherry_reconcile::waking::SLEEPS;
use wherry_reconcile::{Informer, Informers, rest};

use crate::ports::NodeNet;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const INDEX: &str = "service";

/// Keeps the network's Services equal to the API's, until cancelled.
pub(crate) async fn services(informers: &Informers, network: Arc<dyn NodeNet>, cancel: CancellationToken) {
    let services = informers.get::<ApiService>();
    let slices = informers.get::<EndpointSlice>();
    slices.index(INDEX, |slice: &EndpointSlice| service_of(slice).map(|key| vec![index_key(&key)]).unwrap_or_default());
    if !(services.synced().await && slices.synced().await) {
        return;
    }
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    loop {
        let mut changed = HashSet::new();
        tokio::select! {
            () = cancel.cancelled() => return,
            change = service_changes.next() => match change {
                Some(change) => changed.extend(change.object().map(|service| key_of(&service.metadata))),
                None => return,
            },
            change = slice_changes.next() => match change {
                Some(change) => changed.extend(change.sides().filter_map(|slice| service_of(slice))),
                None => return,
            },
        }
        // What has gathered meanwhile is taken in one go.
        while let Some(change) = service_changes.try_next() {
            changed.extend(change.object().map(|service| key_of(&service.metadata)));
        }
        while let Some(change) = slice_changes.try_next() {
            changed.extend(change.sides().filter_map(|slice| service_of(slice)));
        }
        let begun = Instant::now();
        for key in changed {
            let service =
                services.get(&key.namespace, &key.name).map(|service| resolve(&service, &slices_of(&slices, &key)));
            network.set_service(key, service);
        }
        // A Service of many Pods is resolved whole.
        if cancel.run_until_cancelled(tokio::time::sleep(rest(begun.elapsed()))).await.is_none() {
            return;
        }
    }
}

fn slices_of(slices: &Informer<EndpointSlice>, key: &ServiceKey) -> Vec<Arc<EndpointSlice>> {
    slices.by_index(INDEX, &index_key(key))
}

fn index_key(key: &ServiceKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

fn key_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ServiceKey {
    ServiceKey { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
    Some(ServiceKey { namespace: slice.metadata.namespace.clone()?, name: name.clone() })
}

/// A Service with where its ports lead.
fn resolve(service: &ApiService, slices: &[Arc<EndpointSlice>]) -> Service {
    let Some(spec) = &service.spec else { return Service::default() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Service { external_name: spec.external_name.clone(), ..Service::default() };
    }
    let node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        let name = port.name.clone().unwrap_or_default();
        let number = |port: i32| u16::try_from(port).ok();
        Some(ServicePort {
            endpoints: endpoints(slices, &name),
            name,
            protocol,
            port: number(port.port)?,
            node_port: port.node_port.filter(|port| node_ports && *port > 0).and_then(number),
        })
    });
    let ips = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter());
    let mut cluster_ips: Vec<IpAddr> = Vec::new();
    for ip in ips.filter_map(|ip| ip.parse().ok()) {
        if !cluster_ips.contains(&ip) {
            cluster_ips.push(ip);
        }
    }
    let publish = spec.publish_not_ready_addresses == Some(true);
    let sleeps = slices.iter().any(|slice| slice.metadata.labels.as_ref().is_some_and(|all| all.contains_key(SLEEPS)));
    Service { cluster_ips, ports: ports.collect(), hosts: hosts(slices, publish), sleeps, ..Service::default() }
}

/// The ready endpoints of a port, or those that still serve while they end where none is ready.
fn endpoints(slices: &[Arc<EndpointSlice>], name: &str) -> Vec<SocketAddr> {
    let (mut ready, mut serving) = (Vec::new(), Vec::new());
    for slice in slices {
        let port = slice.ports.iter().flatten().find(|port| port.name.as_deref().unwrap_or_default() == name);
        let Some(port) = port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let target =
                endpoint.addresses.first().and_then(|ip| ip.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, port));
            if is_ready(endpoint) {
                ready.extend(target);
            } else if endpoint
                .conditions
                .as_ref()
                .is_some_and(|conditions| conditions.serving == Some(true) && conditions.terminating == Some(true))
            {
                serving.extend(target);
            }
        }
    }
    let mut chosen = if ready.is_empty() { serving } else { ready };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn hosts(slices: &[Arc<EndpointSlice>], publish_not_ready: bool) -> Vec<Host> {
    let all = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| publish_not_ready || is_ready(endpoint));
    let mut hosts: Vec<Host> = all
        .filter_map(|endpoint| {
            Some(Host { hostname: endpoint.hostname.clone(), ip: endpoint.addresses.first()?.parse().ok()? })
        })
        .collect();
    hosts.sort_by(|a, b| (a.ip, &a.hostname).cmp(&(b.ip, &b.hostname)));
    hosts.dedup();
    hosts
}

/// Keeps the ways to other nodes' Pods, until cancelled.
pub(crate) async fn peers(informers: &Informers, own: String, network: Arc<dyn NodeNet>, cancel: CancellationToken) {
    let mut changes = informers.get::<Node>().subscribe();
    let mut known: HashMap<String, (String, IpAddr)> = HashMap::new();
    loop {
        let change = tokio::select! {
            () = cancel.cancelled() => return,
            change = changes.next() => match change {
                Some(change) => change,
                None => return,
            },
        };
        let Some(name) = change.object().and_then(|node| node.metadata.name.clone()).filter(|name| *name != own) else {
            continue;
        };
        let way = change.new.as_deref().and_then(way);
        if known.get(&name) == way.as_ref() {
            continue;
        }
        let old = known.remove(&name);
        if let Some((cidr, _)) = old.filter(|(cidr, _)| way.as_ref().is_none_or(|(new, _)| new != cidr)) {
            tell(&*network, &name, &cidr, None).await;
        }
        if let Some((cidr, via)) = way {
            tell(&*network, &name, &cidr, Some(via)).await;
            known.insert(name, (cidr, via));
        }
    }
}

async fn tell(network: &dyn NodeNet, node: &str, cidr: &str, via: Option<IpAddr>) {
    if let Err(error) = network.set_peer(cidr, via).await {
        tracing::warn!(node, cidr, error, "cannot route to another node's Pods");
    }
}

fn way(node: &Node) -> Option<(String, IpAddr)> {
    let cidr = node.spec.as_ref()?.pod_cidr.clone()?;
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let via = addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()?;
    Some((cidr, via))
}
