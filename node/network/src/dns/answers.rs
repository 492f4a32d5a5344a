//! What a name means. Pure but for reading the Service table.
//!
//! Source: the DNS-Based Service Discovery specification of Kubernetes, schema version 1.1.0.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::request::PodDns;
use crate::services::{Protocol, Service, ServiceKey, Services};

/// The cluster's zone.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// `cluster.local`, lower case, without a final dot.
    pub(crate) domain: String,
    pub(crate) services: Arc<Services>,
}

/// An SRV record's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Srv {
    pub(crate) port: u16,
    /// Without a final dot.
    pub(crate) target: String,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not a name of this zone.
    Foreign,
    /// The zone has no such name (NXDOMAIN).
    NoName,
    /// The name exists; each list may be empty (NODATA).
    Records { addresses: Vec<IpAddr>, services: Vec<Srv>, alias: Option<String>, pointer: Option<String> },
}

impl Answer {
    fn addresses(addresses: Vec<IpAddr>) -> Self {
        Self::Records { addresses, services: Vec::new(), alias: None, pointer: None }
    }
}

impl Zone {
    /// Everything about `name` (any case, with or without a final dot).
    pub(crate) fn answer(&self, name: &str) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(ip) = reverse_address(&name) {
            return self.pointer(ip);
        }
        let Some(rest) = name.strip_suffix(&self.domain) else { return Answer::Foreign };
        let labels: Vec<&str> = match rest.strip_suffix('.') {
            Some(rest) => rest.split('.').rev().collect(),
            None if rest.is_empty() => return Answer::addresses(Vec::new()),
            None => return Answer::Foreign,
        };
        match labels.as_slice() {
            ["svc"] | ["pod"] => Answer::addresses(Vec::new()),
            ["svc", namespace] if self.services.has_namespace(namespace) => Answer::addresses(Vec::new()),
            ["svc", namespace, service, rest @ ..] => self.service(namespace, service, rest),
            ["pod", _namespace, address] => pod_address(address),
            _ => Answer::NoName,
        }
    }

    /// The addresses of a full name, through one alias of this zone; none where there are none.
    pub(crate) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let direct = self.answer(name);
        let answer = match &direct {
            Answer::Records { alias: Some(alias), .. } => self.answer(alias),
            _ => direct,
        };
        match answer {
            Answer::Records { addresses, .. } if !addresses.is_empty() => Some(addresses),
            _ => None,
        }
    }

    fn service(&self, namespace: &str, name: &str, rest: &[&str]) -> Answer {
        let key = ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() };
        let Some(service) = self.services.get(&key) else { return Answer::NoName };
        let base = format!("{name}.{namespace}.svc.{}", self.domain);
        match rest {
            [] => match &service.external_name {
                Some(alias) => Answer::Records {
                    addresses: Vec::new(),
                    services: Vec::new(),
                    alias: Some(alias.trim_end_matches('.').to_owned()),
                    pointer: None,
                },
                None => Answer::Records {
                    addresses: addresses(&service),
                    services: service.ports.iter().flat_map(|port| targets(&service, port.port, &base)).collect(),
                    alias: None,
                    pointer: None,
                },
            },
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                let found = service
                    .ports
                    .iter()
                    .find(|candidate| candidate.name == port[1..] && protocol_label(candidate.protocol) == *protocol);
                match found {
                    Some(port) => Answer::Records {
                        addresses: Vec::new(),
                        services: targets(&service, port.port, &base),
                        alias: None,
                        pointer: None,
                    },
                    None => Answer::NoName,
                }
            }
            [host] if service.cluster_ips.is_empty() => {
                let found: Vec<IpAddr> =
                    service.hosts.iter().filter(|known| host_label(known) == *host).map(|known| known.ip).collect();
                if found.is_empty() { Answer::NoName } else { Answer::addresses(found) }
            }
            _ => Answer::NoName,
        }
    }

    fn pointer(&self, ip: IpAddr) -> Answer {
        match self.services.find_ip(ip) {
            Some((key, host)) => {
                let base = format!("{}.{}.svc.{}", key.name, key.namespace, self.domain);
                let pointer = Some(host.map_or(base.clone(), |host| format!("{host}.{base}")));
                Answer::Records { addresses: Vec::new(), services: Vec::new(), alias: None, pointer }
            }
            None => Answer::Foreign,
        }
    }
}

/// The names to try for `name`, in order: the search path first for names of few dots, the name itself first otherwise.
pub(crate) fn candidates(name: &str, dns: &PodDns) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let searched = dns.search.iter().map(|suffix| format!("{name}.{suffix}"));
    if name.matches('.').count() < dns.ndots {
        searched.chain([name.to_owned()]).collect()
    } else {
        [name.to_owned()].into_iter().chain(searched).collect()
    }
}

fn addresses(service: &Service) -> Vec<IpAddr> {
    if !service.cluster_ips.is_empty() {
        return service.cluster_ips.clone();
    }
    let mut addresses: Vec<IpAddr> = service.hosts.iter().map(|host| host.ip).collect();
    addresses.dedup();
    addresses
}

fn targets(service: &Service, port: u16, base: &str) -> Vec<Srv> {
    if !service.cluster_ips.is_empty() {
        return vec![Srv { port, target: base.to_owned() }];
    }
    service.hosts.iter().map(|host| Srv { port, target: format!("{}.{base}", host_label(host)) }).collect()
}

/// An endpoint's label: its hostname, or its address with dashes.
fn host_label(host: &crate::services::Host) -> String {
    host.hostname.clone().unwrap_or_else(|| host.ip.to_string().replace(['.', ':'], "-"))
}

fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "_tcp",
        Protocol::Udp => "_udp",
    }
}

fn pod_address(label: &str) -> Answer {
    match label.replace('-', ".").parse::<Ipv4Addr>() {
        Ok(ip) => Answer::addresses(vec![ip.into()]),
        Err(_) => Answer::NoName,
    }
}

fn reverse_address(name: &str) -> Option<IpAddr> {
    let labels = name.strip_suffix(".in-addr.arpa")?;
    let forward: Vec<&str> = labels.split('.').rev().collect();
    forward.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::services::{Host, ServicePort};

    fn zone() -> Zone {
        let services = Services::new();
        let port =
            ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None, endpoints: vec![] };
        let ip = |n| IpAddr::from([10, 128, 0, n]);
        let key = |name: &str| ServiceKey { namespace: "default".into(), name: name.into() };
        services.set(
            key("web"),
            Some(Service {
                cluster_ips: vec![IpAddr::from([10, 96, 0, 7])],
                ports: vec![port.clone()],
                ..Service::default()
            }),
        );
        let hosts = vec![Host { hostname: Some("db-0".into()), ip: ip(5) }, Host { hostname: None, ip: ip(6) }];
        services.set(key("db"), Some(Service { ports: vec![port], hosts, ..Service::default() }));
        services.set(key("out"), Some(Service { external_name: Some("example.org.".into()), ..Service::default() }));
        Zone { domain: "cluster.local".into(), services }
    }

    fn ips(answer: Answer) -> Vec<String> {
        match answer {
            Answer::Records { addresses, .. } => addresses.iter().map(ToString::to_string).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn answers_by_the_specification() {
        let zone = zone();
        for (name, wanted) in [
            ("web.default.svc.cluster.local", vec!["10.96.0.7"]),
            ("WEB.default.svc.cluster.LOCAL.", vec!["10.96.0.7"]),
            ("db.default.svc.cluster.local", vec!["10.128.0.5", "10.128.0.6"]),
            ("db-0.db.default.svc.cluster.local", vec!["10.128.0.5"]),
            ("10-128-0-6.db.default.svc.cluster.local", vec!["10.128.0.6"]),
            ("10-1-2-3.default.pod.cluster.local", vec!["10.1.2.3"]),
            ("default.svc.cluster.local", vec![]),
            ("cluster.local", vec![]),
            ("none.default.svc.cluster.local", vec!["NoName"]),
            ("x.web.default.svc.cluster.local", vec!["NoName"]),
            ("nowhere.svc.cluster.local", vec!["NoName"]),
            ("example.org", vec!["Foreign"]),
            ("notcluster.local", vec!["Foreign"]),
        ] {
            assert_eq!(ips(zone.answer(name)), wanted, "{name}");
        }
    }

    #[test]
    fn finds_ports_aliases_and_pointers() {
        let zone = zone();
        let Answer::Records { services, .. } = zone.answer("_http._tcp.db.default.svc.cluster.local") else { panic!() };
        assert_eq!(services[0], Srv { port: 80, target: "db-0.db.default.svc.cluster.local".into() });
        assert_eq!(services.len(), 2);
        assert_eq!(zone.answer("_http._udp.db.default.svc.cluster.local"), Answer::NoName);
        let Answer::Records { alias, .. } = zone.answer("out.default.svc.cluster.local") else { panic!() };
        assert_eq!(alias.as_deref(), Some("example.org"));
        let Answer::Records { pointer, .. } = zone.answer("7.0.96.10.in-addr.arpa") else { panic!() };
        assert_eq!(pointer.as_deref(), Some("web.default.svc.cluster.local"));
    }

    #[test]
    fn tries_the_search_path() {
        let search = vec!["a.svc.c.l".to_owned(), "c.l".to_owned()];
        let dns = PodDns { search, ndots: 5, ..PodDns::default() };
        assert_eq!(candidates("web", &dns), ["web.a.svc.c.l", "web.c.l", "web"]);
        assert_eq!(candidates("web.", &dns), ["web"]);
        assert_eq!(candidates("a.b.c.d.e.f", &dns)[0], "a.b.c.d.e.f");
    }
}
