//! From one state of the Services to the next, as nftables commands. Pure.
//!
//! A port of a Service has a map `e<id>` from 0..n to its endpoints and a chain `p<id>` whose one rule sends a
//! new connection to a random slot of it, and counts it in `c<id>`. Cluster addresses and node ports are keys of two verdict maps that lead to
//! the chain, so a packet costs two look-ups however many Services there are. An endpoint that goes is replaced by
//! the last one: a change costs its own size, not the Service's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use super::{Protocol, Service, ServiceKey};
use crate::Cidr;
use crate::links::UPLINK;

/// What the rules need to know of the node.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) service_cidr: Cidr,
    /// Addresses in the Service range that are the node's own (DNS).
    pub(crate) local: Vec<Ipv4Addr>,
}

/// What the kernel has, or will have once the script so far is run.
#[derive(Debug)]
pub(crate) struct Rules {
    base: Base,
    ports: BTreeMap<ServiceKey, BTreeMap<(Protocol, u16), Port>>,
    next_id: u32,
    /// The Service whose connections each counter counts: whoever reads it has the one of their moment.
    counters: Arc<HashMap<u32, ServiceKey>>,
}

#[derive(Debug)]
struct Port {
    id: u32,
    cluster_ips: Vec<Ipv4Addr>,
    node_port: Option<u16>,
    slots: Vec<SocketAddrV4>,
}

impl Rules {
    pub(crate) fn new(base: Base) -> Self {
        Self { base, ports: BTreeMap::new(), next_id: 0, counters: Arc::default() }
    }

    pub(crate) fn into_base(self) -> Base {
        self.base
    }

    /// The table without Services; replaces whatever an earlier life left.
    pub(crate) fn base_script(&self) -> String {
        let Base { node_ip, service_cidr, local } = &self.base;
        let local = local.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!(
            "add table ip wherry
delete table ip wherry
table ip wherry {{
  map services {{
    type ipv4_addr . inet_proto . inet_service : verdict
  }}
  map nodeports {{
    type inet_proto . inet_service : verdict
  }}
  set own {{
    type ipv4_addr
    elements = {{ {local} }}
  }}
  chain dispatch {{
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr {node_ip} iifname \"{UPLINK}\" meta mark set 0x4000
    ip daddr {node_ip} meta l4proto . th dport vmap @nodeports
  }}
  chain prerouting {{
    type nat hook prerouting priority -100;
    jump dispatch
  }}
  chain nat-output {{
    type nat hook output priority -100;
    jump dispatch
  }}
  chain postrouting {{
    type nat hook postrouting priority 100;
    meta mark 0x4000 oifname \"{UPLINK}\" masquerade
    ct status dnat iifname \"wp*\" oifname \"wp*\" masquerade
  }}
  chain refuse {{
    ip daddr @own return
    ip daddr {service_cidr} meta l4proto tcp reject with tcp reset
    ip daddr {service_cidr} reject
  }}
  chain forward {{
    type filter hook forward priority 0;
    jump refuse
  }}
  chain filter-output {{
    type filter hook output priority 0;
    jump refuse
  }}
}}
"
        )
    }

    /// Adds to `script` what makes `key` become `service`.
    pub(crate) fn set(&mut self, key: &ServiceKey, service: Option<&Service>, script: &mut String) {
        let mut known = self.ports.remove(key).unwrap_or_default();
        let mut ports = BTreeMap::new();
        for wanted in service.iter().flat_map(|service| &service.ports) {
            let id = (wanted.protocol, wanted.port);
            if ports.contains_key(&id) {
                continue;
            }
            let cluster_ips = service.map(|service| v4(&service.cluster_ips)).unwrap_or_default();
            if cluster_ips.is_empty() && wanted.node_port.is_none() {
                continue;
            }
            let mut port = known.remove(&id).unwrap_or_else(|| self.add_port(key, script));
            move_endpoints(&mut port, id, &wanted.endpoints, script, &cluster_ips, wanted.node_port);
            ports.insert(id, port);
        }
        for (id, mut port) in known {
            move_endpoints(&mut port, id, &[], script, &[], None);
            Arc::make_mut(&mut self.counters).remove(&port.id);
            line(script, format_args!("flush chain ip wherry p{}", port.id));
            line(script, format_args!("delete chain ip wherry p{}", port.id));
            line(script, format_args!("delete map ip wherry e{}", port.id));
            line(script, format_args!("delete counter ip wherry c{}", port.id));
        }
        if !ports.is_empty() {
            self.ports.insert(key.clone(), ports);
        }
    }

    fn add_port(&mut self, key: &ServiceKey, script: &mut String) -> Port {
        let id = self.next_id;
        self.next_id += 1;
        Arc::make_mut(&mut self.counters).insert(id, key.clone());
        line(
            script,
            format_args!("add map ip wherry e{id} {{ typeof numgen random mod 65536 : ip daddr . tcp dport; }}"),
        );
        line(script, format_args!("add counter ip wherry c{id}"));
        line(script, format_args!("add chain ip wherry p{id}"));
        Port { id, cluster_ips: Vec::new(), node_port: None, slots: Vec::new() }
    }

    /// How many slots lead to each address.
    pub(crate) fn targets(&self) -> HashMap<Ipv4Addr, usize> {
        let mut targets = HashMap::new();
        for slot in self.ports.values().flat_map(BTreeMap::values).flat_map(|port| &port.slots) {
            *targets.entry(*slot.ip()).or_default() += 1;
        }
        targets
    }

    /// The Service whose connections each counter counts.
    pub(crate) fn counters(&self) -> Arc<HashMap<u32, ServiceKey>> {
        Arc::clone(&self.counters)
    }

    /// The TCP node ports of all Services.
    pub(crate) fn node_ports(&self) -> BTreeSet<u16> {
        let ports = self.ports.values().flatten();
        ports.filter(|((protocol, _), _)| *protocol == Protocol::Tcp).filter_map(|(_, port)| port.node_port).collect()
    }
}

/// Brings one port to its wanted endpoints and front ends. A port without endpoints has no front ends: what is left of
/// the Service range is refused.
fn move_endpoints(
    port: &mut Port,
    (protocol, number): (Protocol, u16),
    endpoints: &[SocketAddr],
    script: &mut String,
    cluster_ips: &[Ipv4Addr],
    node_port: Option<u16>,
) {
    let id = port.id;
    let proto = protocol.as_str();
    let wanted: BTreeSet<SocketAddrV4> = endpoints
        .iter()
        .filter_map(|endpoint| match endpoint {
            SocketAddr::V4(endpoint) => Some(*endpoint),
            SocketAddr::V6(_) => None,
        })
        .collect();

    let (cluster_ips, node_port) = if wanted.is_empty() { (&[][..], None) } else { (cluster_ips, node_port) };
    for ip in port.cluster_ips.iter().filter(|ip| !cluster_ips.contains(ip)) {
        line(script, format_args!("delete element ip wherry services {{ {ip} . {proto} . {number} }}"));
    }
    if let Some(old) = port.node_port.filter(|_| port.node_port != node_port) {
        line(script, format_args!("delete element ip wherry nodeports {{ {proto} . {old} }}"));
    }

    let before = port.slots.len();
    let slots = next_slots(&port.slots, &wanted);
    for (n, old) in port.slots.iter().enumerate().filter(|(n, old)| slots.get(*n) != Some(old)) {
        line(script, format_args!("delete element ip wherry e{id} {{ {n} : {} . {} }}", old.ip(), old.port()));
    }
    for (n, new) in slots.iter().enumerate().filter(|(n, new)| port.slots.get(*n) != Some(new)) {
        line(script, format_args!("add element ip wherry e{id} {{ {n} : {} . {} }}", new.ip(), new.port()));
    }
    if slots.len() != before {
        line(script, format_args!("flush chain ip wherry p{id}"));
        if !slots.is_empty() {
            let count = slots.len();
            line(
                script,
                format_args!(
                    "add rule ip wherry p{id} meta l4proto {proto} counter name c{id} dnat ip to numgen random mod {count} map @e{id}"
                ),
            );
        }
    }

    for ip in cluster_ips.iter().filter(|ip| !port.cluster_ips.contains(ip)) {
        line(script, format_args!("add element ip wherry services {{ {ip} . {proto} . {number} : goto p{id} }}"));
    }
    if let Some(new) = node_port.filter(|_| port.node_port != node_port) {
        line(script, format_args!("add element ip wherry nodeports {{ {proto} . {new} : goto p{id} }}"));
    }
    port.cluster_ips = cluster_ips.to_vec();
    port.node_port = node_port;
    port.slots = slots;
}

/// The slots that hold exactly `wanted`, as much as may be where they were: holes are filled by newcomers, then
/// by the last slots.
fn next_slots(current: &[SocketAddrV4], wanted: &BTreeSet<SocketAddrV4>) -> Vec<SocketAddrV4> {
    let held: BTreeSet<_> = current.iter().copied().collect();
    let mut newcomers = wanted.difference(&held).copied();
    let mut slots: Vec<Option<SocketAddrV4>> =
        current.iter().map(|slot| if wanted.contains(slot) { Some(*slot) } else { newcomers.next() }).collect();
    slots.extend(newcomers.map(Some));
    let mut n = 0;
    while n < slots.len() {
        if slots[n].is_none() {
            slots.swap_remove(n);
        } else {
            n += 1;
        }
    }
    slots.into_iter().flatten().collect()
}

fn v4(ips: &[IpAddr]) -> Vec<Ipv4Addr> {
    ips.iter()
        .filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        })
        .collect()
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(script, "{text}"); // writing to a String cannot fail
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::ServicePort;
    use super::*;

    fn rules() -> Rules {
        Rules::new(Base {
            node_ip: Ipv4Addr::new(172, 30, 0, 2),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            local: vec![Ipv4Addr::new(10, 96, 0, 10)],
        })
    }

    fn service(endpoints: &[u8], node_port: Option<u16>) -> Service {
        Service {
            cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 7).into()],
            ports: vec![ServicePort {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port,
                endpoints: endpoints.iter().map(|n| SocketAddr::from(([10, 128, 0, *n], 8080))).collect(),
            }],
            ..Service::default()
        }
    }

    fn key() -> ServiceKey {
        ServiceKey { namespace: "default".into(), name: "web".into() }
    }

    #[test]
    fn an_endpoint_costs_its_own_size() {
        let mut rules = rules();
        let mut script = String::new();
        rules.set(&key(), Some(&service(&(10..110).collect::<Vec<_>>(), None)), &mut script);
        script.clear();
        rules.set(&key(), Some(&service(&(11..110).collect::<Vec<_>>(), None)), &mut script);
        assert_eq!(
            script.lines().collect::<Vec<_>>(),
            [
                "delete element ip wherry e0 { 0 : 10.128.0.10 . 8080 }",
                "delete element ip wherry e0 { 99 : 10.128.0.109 . 8080 }",
                "add element ip wherry e0 { 0 : 10.128.0.109 . 8080 }",
                "flush chain ip wherry p0",
                "add rule ip wherry p0 meta l4proto tcp counter name c0 dnat ip to numgen random mod 99 map @e0",
            ]
        );
    }

    #[test]
    fn without_endpoints_there_is_no_front_end() {
        let mut rules = rules();
        let mut script = String::new();
        rules.set(&key(), Some(&service(&[5], Some(30080))), &mut script);
        assert!(script.contains("add element ip wherry services { 10.96.0.7 . tcp . 80 : goto p0 }"));
        assert!(rules.node_ports().contains(&30080));
        script.clear();
        rules.set(&key(), Some(&service(&[], Some(30080))), &mut script);
        assert!(script.contains("delete element ip wherry services { 10.96.0.7 . tcp . 80 }"));
        assert!(script.contains("delete element ip wherry nodeports { tcp . 30080 }"));
        assert!(rules.targets().is_empty() && rules.node_ports().is_empty());
        assert_eq!(*rules.counters(), HashMap::from([(0, key())]));
        script.clear();
        rules.set(&key(), None, &mut script);
        assert!(rules.counters().is_empty());
        assert!(script.ends_with("delete map ip wherry e0\ndelete counter ip wherry c0\n"), "{script}");
    }

    proptest! {
        /// Interprets the element commands and compares with what was wanted.
        #[test]
        fn the_maps_hold_exactly_the_endpoints(steps in prop::collection::vec(prop::collection::vec(1u8..30, 0..12), 1..20)) {
            let mut rules = rules();
            let mut map: BTreeMap<usize, String> = BTreeMap::new();
            for endpoints in steps {
                let mut script = String::new();
                rules.set(&key(), Some(&service(&endpoints, None)), &mut script);
                for line in script.lines() {
                    let Some((command, rest)) = line.split_once(" element ip wherry e0 { ") else { continue };
                    let (n, value) = rest.trim_end_matches(" }").split_once(" : ").unwrap();
                    let n = n.parse().unwrap();
                    if command == "add" {
                        prop_assert!(map.insert(n, value.to_owned()).is_none(), "slot {n} added twice");
                    } else {
                        let removed = map.remove(&n);
                        prop_assert_eq!(removed.as_deref(), Some(value));
                    }
                }
                let wanted: BTreeSet<String> = endpoints.iter().map(|n| format!("10.128.0.{n} . 8080")).collect();
                prop_assert_eq!(map.values().cloned().collect::<BTreeSet<_>>(), wanted.clone());
                prop_assert_eq!(map.keys().copied().collect::<Vec<_>>(), (0..wanted.len()).collect::<Vec<_>>());
            }
        }
    }
}
