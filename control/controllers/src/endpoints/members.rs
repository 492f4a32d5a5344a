//! The members of a Service: which Pods stand behind it, at which addresses and ports, and in what state. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::pods;

/// A port of a Service as one Pod serves it: a named target port may be a different number in each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) number: i32,
    pub(super) app_protocol: Option<String>,
}

/// The IP versions, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(super) fn of(address: &str) -> Self {
        if address.contains(':') { Self::V6 } else { Self::V4 }
    }
}

/// One Pod behind a Service, in one address family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) address: String,
    pub(super) ports: Vec<Port>,
    /// Takes new connections.
    pub(super) ready: bool,
    /// Would answer a connection, even if it is about to end.
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) hostname: Option<String>,
    pub(super) node: Option<String>,
    pub(super) target: ObjectReference,
}

/// The families that a Service has addresses in.
pub(super) fn families(service: &Service) -> Vec<Family> {
    let named = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    let mut families: Vec<Family> =
        named.map(|family| if family == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    if families.is_empty() {
        let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
        families.push(Family::of(address));
    }
    families
}

/// The selector of a Service for which endpoints are computed; ExternalName Services and those without a selector have none.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether the Service selects the Pod.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector(service).is_some_and(|selector| {
        selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}

pub(super) fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(address, None | Some("" | "None"))
}

pub(super) fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The members of a Service in one family, in the order of the Pods.
pub(super) fn members(service: &Service, pods: &[Arc<Pod>], family: Family) -> Vec<Member> {
    pods.iter()
        .filter(|pod| !pods::is_terminal(pod) && selects(service, pod))
        .filter_map(|pod| member(service, pod, family))
        .collect()
}

fn member(service: &Service, pod: &Pod, family: Family) -> Option<Member> {
    let address = addresses(pod).find(|address| Family::of(address) == family)?;
    let serving = pods::is_ready(pod);
    let terminating = pods::is_deleting(pod);
    Some(Member {
        address: address.to_owned(),
        ports: ports(service, pod),
        ready: publishes_unready(service) || (serving && !terminating),
        serving,
        terminating,
        hostname: hostname(service, pod),
        node: pods::node_of(pod).map(str::to_owned),
        target: ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        },
    })
}

pub(super) fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| status.pod_ips.iter().flatten());
    let first = status.and_then(|status| status.pod_ip.as_deref());
    let all = all.map(|address| address.ip.as_str());
    all.chain(first).filter(|address| !address.is_empty())
}

/// A Pod's own name within a headless Service that is its subdomain.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain == service.metadata.name).then(|| hostname.clone())
}

/// The Service's ports that this Pod has, sorted.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let declared = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<Port> = declared
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port.protocol.as_deref()).to_owned(),
                number: target_port(port, pod)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => containers(pod)
            .flat_map(|container| container.ports.iter().flatten())
            .find(|candidate| {
                candidate.name.as_deref() == Some(name)
                    && protocol(candidate.protocol.as_deref()) == protocol(port.protocol.as_deref())
            })
            .map(|found| found.container_port),
    }
}

/// The containers, and the init containers that go on running beside them.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars)
    })
}

fn protocol(named: Option<&str>) -> &str {
    named.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

/// Everything about a Pod that its members are made of: where two agree, no endpoint changes.
pub(super) fn is_relevant(old: &Pod, new: &Pod) -> bool {
    let spec = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.map(|spec| (spec.node_name.clone(), spec.hostname.clone(), spec.subdomain.clone()))
    };
    old.metadata.uid != new.metadata.uid
        || old.metadata.labels != new.metadata.labels
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_deleting(old) != pods::is_deleting(new)
        || pods::is_terminal(old) != pods::is_terminal(new)
        || !addresses(old).eq(addresses(new))
        || spec(old) != spec(new)
}

#[cfg(test)]
#[path = "members_tests.rs"]
pub(super) mod tests;
