//! Ports of the node that lead to Pods: an nftables table of their own, written as a whole at each change.
//!
//! They are few, and a Pod shall not be Ready before its ports lead to it: unlike Services they are written at once, by who
//! makes the Pod.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::request::HostPort;

const TABLE: &str = "wherry-host-ports";

/// Every Pod's ports, by the Pod's identity.
#[derive(Debug, Default)]
pub(crate) struct HostPorts {
    pods: BTreeMap<String, (Ipv4Addr, Vec<HostPort>)>,
}

impl HostPorts {
    /// Sets a Pod's ports. The table to write; none where nothing changes.
    pub(crate) fn set(&mut self, uid: &str, pod: Ipv4Addr, ports: &[HostPort], node: Ipv4Addr) -> Option<String> {
        if ports.is_empty() {
            return self.remove(uid, node);
        }
        self.pods.insert(uid.to_owned(), (pod, ports.to_vec()));
        Some(self.script(node))
    }

    /// Takes a Pod's ports away. The table to write; none where it had none.
    pub(crate) fn remove(&mut self, uid: &str, node: Ipv4Addr) -> Option<String> {
        self.pods.remove(uid).map(|_| self.script(node))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The table as it shall be. The first of two Pods that ask for the same port has it: the scheduler puts none such here.
    fn script(&self, node: Ipv4Addr) -> String {
        let mut script = format!("add table ip {TABLE}\ndelete table ip {TABLE}\n");
        let mut elements = BTreeMap::new();
        for (pod, ports) in self.pods.values() {
            for port in ports {
                let own = [node, Ipv4Addr::LOCALHOST];
                let addresses = port.ip.as_ref().map_or(&own[..], std::slice::from_ref);
                for address in addresses {
                    elements
                        .entry((*address, port.protocol, port.port))
                        .or_insert_with(|| format!("{pod} . {}", port.target));
                }
            }
        }
        if elements.is_empty() {
            return script;
        }
        let elements: Vec<String> = elements
            .into_iter()
            .map(|((ip, protocol, port), target)| format!("{ip} . {} . {port} : {target}", protocol.as_str()))
            .collect();
        // Loopback is no address to come from in a Pod's network, and none to send to from outside.
        let _infallible = write!(
            script,
            "table ip {TABLE} {{
  map ports {{
    typeof ip daddr . meta l4proto . th dport : ip daddr . th dport
    elements = {{ {} }}
  }}
  chain guard {{
    type filter hook prerouting priority -300;
    iifname != \"lo\" ip daddr 127.0.0.0/8 drop
  }}
  chain lead {{
    meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @ports
  }}
  chain prerouting {{
    type nat hook prerouting priority -110;
    jump lead
  }}
  chain nat-output {{
    type nat hook output priority -110;
    jump lead
  }}
  chain postrouting {{
    type nat hook postrouting priority 90;
    ct status dnat ip saddr 127.0.0.0/8 oifname \"wp*\" masquerade
  }}
}}
",
            elements.join(", ")
        );
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn the_table_holds_what_pods_ask_for_and_goes_with_the_last() {
        let node = Ipv4Addr::new(172, 30, 0, 2);
        let mut ports = HostPorts::default();
        assert_eq!(ports.set("a", node, &[], node), None);
        let any = HostPort { protocol: Protocol::Tcp, ip: None, port: 80, target: 8080 };
        let one = HostPort { protocol: Protocol::Udp, ip: Some(Ipv4Addr::LOCALHOST), port: 53, target: 53 };
        let script = ports.set("a", Ipv4Addr::new(10, 0, 0, 5), &[any.clone(), one], node).unwrap_or_default();
        let elements = "127.0.0.1 . tcp . 80 : 10.0.0.5 . 8080, 127.0.0.1 . udp . 53 : 10.0.0.5 . 53, \
                        172.30.0.2 . tcp . 80 : 10.0.0.5 . 8080";
        assert!(script.contains(elements), "{script}");
        let both = ports.set("b", Ipv4Addr::new(10, 0, 0, 6), &[any], node).unwrap_or_default();
        assert!(both.contains("172.30.0.2 . tcp . 80 : 10.0.0.5 . 8080") && !both.contains("10.0.0.6"), "{both}");
        assert!(ports.remove("a", node).unwrap_or_default().contains("10.0.0.6 . 8080"));
        let last = ports.remove("b", node).unwrap_or_default();
        assert_eq!(last, "add table ip wherry-host-ports\ndelete table ip wherry-host-ports\n");
        assert_eq!(ports.remove("b", node), None);
    }
}
