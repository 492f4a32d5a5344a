//! `registries.yaml`, in the form that k3s made common: mirrors by registry, credentials and TLS by host.
//!
//! ```yaml
//! mirrors:
//!   docker.io:
//!     endpoint: ["https://mirror.example:5000"]
//! configs:
//!   "mirror.example:5000":
//!     auth: {username: me, password: secret}
//!     tls: {ca_file: /etc/ssl/mirror.pem}
//! ```
//! An endpoint is tried in order, then the registry itself. `*` stands for every registry without its own entry.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::AuthEntry;
use crate::{Auth, ImageError};

/// Docker Hub's API is not at the name that its images carry.
const HUB_API: &str = "registry-1.docker.io";

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, Config>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mirror {
    #[serde(alias = "endpoints")]
    endpoint: Vec<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    auth: Option<AuthEntry>,
    tls: Option<Tls>,
}

/// How to speak TLS with one host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) insecure_skip_verify: bool,
}

/// One place to ask.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `https://host/v2`, without a slash at its end.
    pub(crate) base: String,
    /// The host, for messages and look-ups.
    pub(crate) host: String,
    /// At a mirror: the registry that it stands for.
    pub(crate) mirror_of: Option<String>,
    pub(crate) auth: Option<Auth>,
    pub(crate) tls: Option<Tls>,
}

impl Registries {
    pub(crate) fn read(path: &Path) -> Result<Self, ImageError> {
        let text = std::fs::read_to_string(path).map_err(|e| ImageError::io("read", path, e))?;
        let bad = |problem| ImageError::Registries { path: path.to_owned(), problem };
        let registries: Option<Self> = serde_yaml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let registries = registries.unwrap_or_default();
        let endpoints = registries.mirrors.values().flat_map(|mirror| &mirror.endpoint);
        for endpoint in endpoints {
            split_endpoint(endpoint)
                .ok_or_else(|| bad(format!("the endpoint {endpoint:?} is not a URL like https://host:port")))?;
        }
        Ok(registries)
    }

    /// The places to ask for images of `registry`, best first; the registry itself is the last.
    pub(crate) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        let mirrors =
            mirror.into_iter().flat_map(|mirror| &mirror.endpoint).filter_map(|endpoint| split_endpoint(endpoint));
        let api = if registry == "docker.io" { HUB_API } else { registry };
        let mut endpoints: Vec<_> = mirrors
            .filter(|(_, host, _)| *host != api)
            .map(|(scheme, host, path)| {
                let path = path.trim_end_matches('/');
                let path = if path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
                let base = format!("{scheme}://{host}{path}");
                Endpoint {
                    base,
                    host: host.to_owned(),
                    mirror_of: Some(registry.to_owned()),
                    auth: self.auth(host),
                    tls: self.tls(host),
                }
            })
            .collect();
        let own_scheme = mirror
            .and_then(|mirror| {
                mirror.endpoint.iter().filter_map(|endpoint| split_endpoint(endpoint)).find(|(_, host, _)| *host == api)
            })
            .map(|(scheme, _, _)| scheme.to_owned());
        let tls = self.tls(api).or_else(|| self.tls(registry));
        let scheme =
            own_scheme.unwrap_or_else(|| if is_loopback(api) && tls.is_none() { "http" } else { "https" }.to_owned());
        endpoints.push(Endpoint {
            base: format!("{scheme}://{api}/v2"),
            host: registry.to_owned(),
            mirror_of: None,
            auth: self.auth(registry).or_else(|| self.auth(api)),
            tls,
        });
        endpoints
    }

    fn auth(&self, host: &str) -> Option<Auth> {
        self.configs.get(host)?.auth.as_ref()?.resolve()
    }

    fn tls(&self, host: &str) -> Option<Tls> {
        self.configs.get(host)?.tls.clone()
    }
}

/// A URL as scheme, host with port, and path.
fn split_endpoint(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let fine = matches!(scheme, "http" | "https") && !host.is_empty() && !url.contains(['?', '#', '@', ' ']);
    fine.then_some((scheme, host, path))
}

/// Registries on this machine speak plain HTTP, as every tool supposes.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Registries, ImageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.yaml");
        std::fs::write(&path, text).unwrap();
        Registries::read(&path)
    }

    fn bases(registries: &Registries, registry: &str) -> Vec<String> {
        registries.endpoints(registry).into_iter().map(|endpoint| endpoint.base).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_registry_last() {
        let registries = parse(
            "mirrors:\n  docker.io:\n    endpoint: [\"http://m.example:5000\", \"https://n.example/hub/v2/\"]\n  \"*\":\n    endpoint: [\"https://all.example\"]\n\
             configs:\n  m.example:5000:\n    auth: {username: u, password: p}\n",
        )
        .unwrap();
        assert_eq!(
            bases(&registries, "docker.io"),
            ["http://m.example:5000/v2", "https://n.example/hub/v2", "https://registry-1.docker.io/v2"]
        );
        assert_eq!(bases(&registries, "ghcr.io"), ["https://all.example/v2", "https://ghcr.io/v2"]);
        let endpoints = registries.endpoints("docker.io");
        assert!(
            endpoints[0].auth.is_some()
                && endpoints[0].mirror_of.as_deref() == Some("docker.io")
                && endpoints[2].auth.is_none()
        );
    }

    #[test]
    fn plain_http_is_for_loopback_or_by_order() {
        let none = Registries::default();
        for host in ["localhost:5000", "127.0.0.1:5000", "127.8.0.1", "[::1]:5000"] {
            assert!(bases(&none, host)[0].starts_with("http://"), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1:5000", "r.example"] {
            assert!(bases(&none, host)[0].starts_with("https://"), "{host}");
        }
        let own = parse("mirrors: {\"10.0.0.1:5000\": {endpoint: [\"http://10.0.0.1:5000\"]}}").unwrap();
        assert_eq!(bases(&own, "10.0.0.1:5000"), ["http://10.0.0.1:5000/v2"]);
        let tls = parse("configs: {\"localhost:5000\": {tls: {insecure_skip_verify: true}}}").unwrap();
        assert_eq!(bases(&tls, "localhost:5000"), ["https://localhost:5000/v2"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("").is_ok());
        assert!(parse("mirors: {}").is_err_and(|e| e.to_string().contains("mirors")));
        assert!(parse("mirrors: {a: {endpoint: [\"m.example\"]}}").is_err_and(|e| e.to_string().contains("m.example")));
    }
}
