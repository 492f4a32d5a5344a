//! What a Pod asks of its node's network and namespaces.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use wherry_network::{HostPort, PodRequest, Protocol, Sharing};

use super::files::{self, DnsConfig};

/// Whether the node's network is the Pod's own.
pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// The Pod's manifest as a request. `with_containers`: not all of it is Wasm. `ip`: the address it had before.
pub(crate) fn request(pod: &Pod, node: &str, dns: &DnsConfig, with_containers: bool, ip: Option<IpAddr>) -> PodRequest {
    let spec = pod.spec.as_ref();
    let on = |value: Option<bool>| value == Some(true);
    let processes = match spec {
        Some(spec) if on(spec.host_pid) => Sharing::Node,
        Some(spec) if on(spec.share_process_namespace) => Sharing::Pod,
        _ => Sharing::Container,
    };
    let sysctls: Vec<_> = spec
        .and_then(|spec| spec.security_context.as_ref()?.sysctls.as_ref())
        .into_iter()
        .flatten()
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
    let host_network = host_network(pod);
    let containers = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    PodRequest {
        // Settings are a namespace's.
        namespaced: with_containers || !sysctls.is_empty(),
        ip,
        dns: files::names(pod, node, dns),
        host_network,
        host_ipc: spec.is_some_and(|spec| on(spec.host_ipc)),
        processes,
        sysctls,
        // In the node's network they are the container's own.
        host_ports: if host_network { Vec::new() } else { ports.filter_map(host_port).collect() },
    }
}

/// SCTP is no protocol of this node's network.
fn host_port(port: &ContainerPort) -> Option<HostPort> {
    let protocol = match port.protocol.as_deref() {
        None | Some("" | "TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
    let ip = port.host_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()).filter(|ip| !ip.is_unspecified());
    Some(HostPort { protocol, ip, port: number(port.host_port?)?, target: number(port.container_port)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> PodRequest {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": spec })).unwrap();
        request(&pod, "node-1", &DnsConfig::default(), false, None)
    }

    #[test]
    fn the_manifest_says_what_is_shared() {
        let plain = of(json!({ "containers": [] }));
        assert!(!plain.namespaced && !plain.host_network && !plain.host_ipc && plain.dns.own == ["p"]);
        let sharing = |field: &str| of(json!({ "containers": [], field: true })).processes;
        assert_eq!((sharing("hostPID"), sharing("shareProcessNamespace")), (Sharing::Node, Sharing::Pod));
        let host = of(json!({
            "hostNetwork": true, "hostIPC": true,
            "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }]
        }));
        assert!(host.host_network && host.host_ipc && host.host_ports.is_empty());
        assert_eq!(host.dns.own, ["node-1"]);
        let set = of(
            json!({ "containers": [], "securityContext": { "sysctls": [{ "name": "net.core.somaxconn", "value": "1" }] } }),
        );
        assert!(set.namespaced && set.sysctls == [("net.core.somaxconn".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn host_ports_are_those_that_are_asked_for() {
        let ports = json!([
            { "containerPort": 1 },
            { "containerPort": 2, "hostPort": 20, "hostIP": "0.0.0.0" },
            { "containerPort": 3, "hostPort": 30, "hostIP": "127.0.0.1", "protocol": "UDP" },
            { "containerPort": 4, "hostPort": 40, "protocol": "SCTP" },
        ]);
        let found = of(json!({ "containers": [{ "name": "c", "ports": ports }] })).host_ports;
        let any = HostPort { protocol: Protocol::Tcp, ip: None, port: 20, target: 2 };
        let one = HostPort { protocol: Protocol::Udp, ip: Some(Ipv4Addr::LOCALHOST), port: 30, target: 3 };
        assert_eq!(found, [any, one]);
    }
}
