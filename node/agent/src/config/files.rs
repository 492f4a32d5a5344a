//! The files that the agent writes for each Pod: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::request::host_network;

/// How names are resolved on this node.
#[derive(Clone, Debug, Default)]
pub struct DnsConfig {
    /// The cluster's DNS service.
    pub server: Option<std::net::IpAddr>,
    /// The cluster's domain.
    pub domain: String,
}

/// A Pod's host name: the node's own in the node's network.
pub(crate) fn hostname(pod: &Pod, node: &str) -> String {
    if host_network(pod) {
        return node.to_owned();
    }
    let spec = pod.spec.as_ref();
    let chosen = spec
        .and_then(|spec| spec.hostname_override.as_ref().or(spec.hostname.as_ref()))
        .filter(|name| !name.is_empty());
    let name = chosen.or(pod.metadata.name.as_ref()).map_or("", String::as_str);
    // A host name has at most 63 characters and does not end with a separator.
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// `/etc/hosts`; `machine` is the machine's own, which Pods in the node's network have.
pub(crate) fn hosts(pod: &Pod, machine: &str, ips: &[String], domain: &str) -> String {
    let mut text = if host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{}\n", machine.trim_end())
    } else {
        own_hosts(pod, ips, domain)
    };
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_ref());
    if aliases.is_some_and(|aliases| !aliases.is_empty()) {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases.into_iter().flatten() {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
    text
}

fn own_hosts(pod: &Pod, ips: &[String], domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod, "");
    let spec = pod.spec.as_ref();
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|name| !name.is_empty());
    for ip in ips {
        // Writing to a String cannot fail.
        let _infallible = match subdomain {
            Some(subdomain) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                writeln!(text, "{ip}\t{name}.{subdomain}.{namespace}.svc.{domain}\t{name}")
            }
            None => writeln!(text, "{ip}\t{name}"),
        };
    }
    text
}

/// `/etc/resolv.conf`, by the Pod's `dnsPolicy` and `dnsConfig`.
pub(crate) fn resolv_conf(pod: &Pod, dns: &DnsConfig) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    // In the node's network only who asks for the cluster's names has them.
    let policy = if policy == "ClusterFirst" && host_network(pod) { "Default" } else { policy };
    match (policy, dns.server) {
        ("None", _) => {}
        ("ClusterFirst" | "ClusterFirstWithHostNet", Some(server)) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            servers.push(server.to_string());
            searches =
                vec![format!("{namespace}.svc.{}", dns.domain), format!("svc.{}", dns.domain), dns.domain.clone()];
            options.push("ndots:5".to_owned());
        }
        _ => read_host(&mut servers, &mut searches, &mut options),
    }
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut servers, &config.nameservers);
        add(&mut searches, &config.searches);
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            options.retain(|known| known.split(':').next() != Some(&name));
            options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        let _infallible = writeln!(text, "search {}", searches.join(" "));
    }
    for server in servers.iter().take(3) {
        let _infallible = writeln!(text, "nameserver {server}");
    }
    if !options.is_empty() {
        let _infallible = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn read_host(servers: &mut Vec<String>, searches: &mut Vec<String>, options: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string("/etc/resolv.conf") else { return };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.map(str::to_owned)),
            Some("search") => *searches = words.map(str::to_owned).collect(),
            Some("options") => options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
}

/// Writes the three files into `dir`.
pub(crate) fn write(dir: &Path, pod: &Pod, node: &str, ips: &[String], dns: &DnsConfig) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let machine =
        if host_network(pod) { std::fs::read_to_string("/etc/hosts").unwrap_or_default() } else { String::new() };
    std::fs::write(dir.join("hosts"), hosts(pod, &machine, ips, &dns.domain))?;
    std::fs::write(dir.join("resolv.conf"), resolv_conf(pod, dns))?;
    std::fs::write(dir.join("hostname"), format!("{}\n", hostname(pod, node)))
}
