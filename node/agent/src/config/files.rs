//! The files that the agent writes for each Pod: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use wherry_network::PodDns;

use super::request::host_network;

/// How names are resolved on this node.
#[derive(Clone, Debug, Default)]
pub struct DnsConfig {
    /// The cluster's DNS service.
    pub server: Option<std::net::IpAddr>,
    /// The cluster's domain.
    pub domain: String,
}

/// What the network is to know of a Pod's names, so that look-ups without a resolver of their own (those of WebAssembly) find what
/// these files say.
pub(crate) fn names(pod: &Pod, node: &str, dns: &DnsConfig) -> PodDns {
    let name = hostname(pod, node);
    let full = domain_of(pod, &dns.domain).filter(|_| !host_network(pod)).map(|domain| format!("{name}.{domain}"));
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_ref());
    let alias = |alias: &HostAlias| {
        let ip = alias.ip.parse().ok();
        let names = alias.hostnames.clone().unwrap_or_default();
        names.into_iter().filter_map(move |name| Some((name.to_ascii_lowercase(), ip?)))
    };
    let resolution = Resolution::of(pod, dns);
    let ndots = resolution.options.iter().find_map(|option| option.strip_prefix("ndots:")?.parse().ok());
    PodDns {
        own: std::iter::once(name).chain(full).collect(),
        hosts: aliases.into_iter().flatten().flat_map(alias).collect(),
        cluster: dns.server.is_some_and(|server| resolution.servers.contains(&server.to_string())),
        search: resolution.searches,
        ndots: ndots.unwrap_or(1),
    }
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

/// The domain below which a Pod's host name is known: none without a subdomain, or where a name was given that overrides all.
fn domain_of(pod: &Pod, cluster: &str) -> Option<String> {
    let spec = pod.spec.as_ref().filter(|spec| spec.hostname_override.is_none())?;
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{subdomain}.{namespace}.svc.{cluster}"))
}

/// How long a host's name may be for the kernel, in characters.
const KERNEL_NAME: usize = 64;

/// What a Pod's containers are told as their host's name (by the kernel, in `/etc/hostname` and `HOSTNAME`): its host name, with
/// the domain where `setHostnameAsFQDN` says so.
///
/// # Errors
/// Of a name that is too long, as kubelet tells it.
pub(crate) fn kernel_name(pod: &Pod, node: &str, cluster: &str) -> Result<String, String> {
    let name = hostname(pod, node);
    let full = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true) && !host_network(pod);
    let Some(domain) = domain_of(pod, cluster).filter(|_| full) else { return Ok(name) };
    let full = format!("{name}.{domain}");
    if full.len() > KERNEL_NAME {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({KERNEL_NAME} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
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
    let (name, domain) = (hostname(pod, ""), domain_of(pod, domain));
    for ip in ips {
        // Writing to a String cannot fail.
        let _infallible = match &domain {
            Some(domain) => writeln!(text, "{ip}\t{name}.{domain}\t{name}"),
            None => writeln!(text, "{ip}\t{name}"),
        };
    }
    text
}

/// How a Pod's names are looked up, by its `dnsPolicy` and `dnsConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// The most servers that a resolver asks.
const SERVERS: usize = 3;

impl Resolution {
    pub(crate) fn of(pod: &Pod, dns: &DnsConfig) -> Self {
        let spec = pod.spec.as_ref();
        let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
        let mut found = Self::default();
        // In the node's network only who asks for the cluster's names has them.
        let policy = if policy == "ClusterFirst" && host_network(pod) { "Default" } else { policy };
        match (policy, dns.server) {
            ("None", _) => {}
            ("ClusterFirst" | "ClusterFirstWithHostNet", Some(server)) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                found.servers.push(server.to_string());
                found.searches =
                    vec![format!("{namespace}.svc.{}", dns.domain), format!("svc.{}", dns.domain), dns.domain.clone()];
                found.options.push("ndots:5".to_owned());
            }
            _ => found.read_host(),
        }
        if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
            let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
                for item in more.iter().flatten() {
                    if !list.contains(item) {
                        list.push(item.clone());
                    }
                }
            };
            add(&mut found.servers, &config.nameservers);
            add(&mut found.searches, &config.searches);
            for option in config.options.iter().flatten() {
                let name = option.name.clone().unwrap_or_default();
                found.options.retain(|known| known.split(':').next() != Some(&name));
                found.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
            }
        }
        found.servers.truncate(SERVERS);
        found
    }

    /// `/etc/resolv.conf`.
    fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _infallible = writeln!(text, "search {}", self.searches.join(" "));
        }
        for server in &self.servers {
            let _infallible = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _infallible = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }

    /// As the node's.
    fn read_host(&mut self) {
        let Ok(text) = std::fs::read_to_string("/etc/resolv.conf") else { return };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => self.servers.extend(words.map(str::to_owned)),
                Some("search") => self.searches = words.map(str::to_owned).collect(),
                Some("options") => self.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
    }
}

/// The three files of a Pod.
pub(crate) struct Etc {
    hosts: String,
    resolution: String,
    hostname: String,
}

impl Etc {
    /// What they say. `name`: as [`kernel_name`] has it.
    pub(crate) fn of(pod: &Pod, name: &str, ips: &[String], dns: &DnsConfig) -> Self {
        let machine =
            if host_network(pod) { std::fs::read_to_string("/etc/hosts").unwrap_or_default() } else { String::new() };
        Self {
            hosts: hosts(pod, &machine, ips, &dns.domain),
            resolution: Resolution::of(pod, dns).text(),
            hostname: format!("{name}\n"),
        }
    }

    /// Writes them into `dir`.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("hosts"), &self.hosts)?;
        std::fs::write(dir.join("resolv.conf"), &self.resolution)?;
        std::fs::write(dir.join("hostname"), &self.hostname)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": spec })).unwrap()
    }

    fn dns() -> DnsConfig {
        DnsConfig { server: Some(std::net::Ipv4Addr::new(10, 96, 0, 10).into()), domain: "cluster.local".to_owned() }
    }

    #[test]
    fn the_full_name_is_the_host_s_where_asked_for_and_short_enough() {
        let name = |spec| kernel_name(&of(spec), "node", "cluster.local");
        let plain = json!({ "containers": [], "subdomain": "s" });
        assert_eq!(name(plain).unwrap(), "p");
        let full = |subdomain: &str| json!({ "containers": [], "setHostnameAsFQDN": true, "subdomain": subdomain });
        assert_eq!(name(full("s")).unwrap(), "p.s.n.svc.cluster.local");
        assert_eq!(name(full("")).unwrap(), "p");
        // 64 characters fit.
        assert_eq!(name(full(&"s".repeat(42))).unwrap().len(), 64);
        let subdomain = "s".repeat(43);
        assert_eq!(
            name(full(&subdomain)).unwrap_err(),
            format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN p.{subdomain}.n.svc.cluster.local is too long (64 characters is the max, 65 characters requested)"
            )
        );
        let mut host = full(&subdomain);
        host["hostNetwork"] = json!(true);
        assert_eq!(name(host).unwrap(), "node");
    }

    #[test]
    fn look_ups_without_a_resolver_know_what_the_files_say() {
        let pod = of(json!({
            "containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["One", "two"] }],
            "dnsConfig": { "searches": ["more"], "options": [{ "name": "ndots", "value": "2" }] },
        }));
        let names = names(&pod, "node", &dns());
        assert_eq!(names.own, ["h", "h.s.n.svc.cluster.local"]);
        let ip: std::net::IpAddr = "10.1.2.3".parse().unwrap();
        assert_eq!(names.hosts, [("one".to_owned(), ip), ("two".to_owned(), ip)]);
        assert_eq!(names.search, ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "more"]);
        assert_eq!((names.ndots, names.cluster), (2, true));
        assert_eq!(
            Resolution::of(&pod, &dns()).text(),
            "search n.svc.cluster.local svc.cluster.local cluster.local more\nnameserver 10.96.0.10\noptions ndots:2\n"
        );
        let none = of(json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": { "nameservers": ["10.9.9.9"] } }));
        let names = super::names(&none, "node", &dns());
        assert_eq!((names.cluster, names.search.len(), names.ndots), (false, 0, 1));
    }
}
