//! What a request asks for, read once from its method, path and query.
//!
//! Resource requests have one of the forms
//!
//! ```text
//! /api/v1/...                 /apis/GROUP/VERSION/...
//!   RESOURCE                    RESOURCE/NAME[/SUBRESOURCE[/...]]
//!   namespaces/NS/RESOURCE      namespaces/NS/RESOURCE/NAME[/SUBRESOURCE[/...]]
//!   watch/...                   (the deprecated way to ask for a watch)
//! ```
//!
//! and all else is a non-resource request, of which only the path and the lower-case method count.

use std::fmt;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

/// What is to be done; authorization and the engine speak of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Kubernetes' own verbs")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A method without a verb of its own (HEAD, OPTIONS, POST outside of resources, ...), in lower case.
    Other(&'static str),
}

impl Verb {
    /// The verb's name as in RBAC rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Other(method) => method,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request as authentication, authorization and the engine see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the request is about API objects.
    pub is_resource: bool,
    /// What is to be done.
    pub verb: Verb,
    /// The decoded path.
    pub path: String,
    /// The API group, empty for the core group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The resource's plural name.
    pub resource: String,
    /// The namespace; for requests about one Namespace object that namespace.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: Option<String>,
    /// `status`, `scale`, `log`, ...
    pub subresource: Option<String>,
    /// Path segments after the subresource.
    pub rest: Vec<String>,
    /// The field selector of a list, watch or deletecollection, as text; mostly empty.
    pub fields: String,
}

/// Subresources of Namespace: what follows `namespaces/NS/` and is no resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads a request's line.
    pub fn parse(method: &Method, uri: &Uri) -> Self {
        let decoded = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
        let mut info = Self {
            is_resource: false,
            verb: plain_verb(method),
            path: decoded(uri.path()),
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            namespace: None,
            name: None,
            subresource: None,
            rest: Vec::new(),
            fields: String::new(),
        };
        // Segments are split before they are decoded: a name may hold an encoded slash.
        let mut segments = uri.path().split('/').filter(|s| !s.is_empty()).map(decoded);
        match segments.next().as_deref() {
            Some("api") => {}
            Some("apis") => match segments.next() {
                Some(group) => info.group = group,
                None => return info,
            },
            _ => return info,
        }
        let Some(version) = segments.next() else {
            return info;
        };
        info.version = version;
        let mut parts: Vec<String> = segments.collect();
        if parts.is_empty() {
            return info;
        }
        info.is_resource = true;
        let forced_watch = parts.len() > 1 && parts[0] == "watch";
        if forced_watch {
            parts.remove(0);
        }
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        let mut rest: Vec<String> = parts.collect();
        if first == "namespaces" && !rest.is_empty() {
            info.namespace = Some(rest[0].clone());
            if rest.len() > 1 && !NAMESPACE_SUBRESOURCES.contains(&rest[1].as_str()) {
                rest.remove(0);
                info.resource = rest.remove(0);
            } else {
                info.resource = first;
            }
        } else {
            info.resource = first;
        }
        let mut rest = rest.into_iter();
        info.name = rest.next();
        info.subresource = rest.next();
        info.rest = rest.collect();
        info.verb = resource_verb(method, info.name.is_some());
        let query = uri.query().unwrap_or_default();
        if matches!(info.verb, Verb::List | Verb::DeleteCollection) {
            info.fields = field_selector(query);
        }
        if info.verb == Verb::List {
            if forced_watch || asks_to_watch(query) {
                info.verb = Verb::Watch;
            }
            // A list of one name is authorized like that name.
            info.name = single_name(&info.fields);
        } else if forced_watch && info.verb == Verb::Get {
            info.verb = Verb::Watch;
        }
        info
    }

    /// `GROUP/VERSION`, or the version alone in the core group.
    pub fn group_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether the answer goes on for as long as the client listens.
    pub fn is_long_running(&self) -> bool {
        self.verb == Verb::Watch
            || matches!(self.subresource.as_deref(), Some("log" | "exec" | "attach" | "portforward" | "proxy"))
    }
}

fn plain_verb(method: &Method) -> Verb {
    match method.as_str() {
        "GET" => Verb::Get,
        "PUT" => Verb::Other("put"),
        "POST" => Verb::Other("post"),
        "PATCH" => Verb::Patch,
        "DELETE" => Verb::Delete,
        "HEAD" => Verb::Other("head"),
        _ => Verb::Other("options"),
    }
}

fn resource_verb(method: &Method, named: bool) -> Verb {
    match method.as_str() {
        "GET" | "HEAD" if named => Verb::Get,
        "GET" | "HEAD" => Verb::List,
        "POST" => Verb::Create,
        "PUT" => Verb::Update,
        "PATCH" => Verb::Patch,
        "DELETE" if named => Verb::Delete,
        "DELETE" => Verb::DeleteCollection,
        _ => Verb::Other("options"),
    }
}

fn asks_to_watch(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .find(|(k, _)| k == "watch")
        .is_some_and(|(_, v)| !matches!(v.as_ref(), "0" | "false" | "False" | "FALSE"))
}

fn field_selector(query: &str) -> String {
    let found = form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == "fieldSelector");
    found.map(|(_, selector)| selector.into_owned()).unwrap_or_default()
}

fn single_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let name = term.strip_prefix("metadata.name=")?;
        let name = name.strip_prefix('=').unwrap_or(name);
        (!name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parse(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::parse(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn resource_requests() {
        // method, uri, verb, group, version, namespace, resource, name, subresource
        let table = [
            ("GET", "/api/v1/pods", "list", "", "v1", "-", "pods", "-", "-"),
            ("GET", "/api/v1/pods?watch=1", "watch", "", "v1", "-", "pods", "-", "-"),
            ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "-", "pods", "-", "-"),
            ("GET", "/api/v1/watch/pods", "watch", "", "v1", "-", "pods", "-", "-"),
            ("GET", "/api/v1/watch/namespaces/a/pods/b", "watch", "", "v1", "a", "pods", "b", "-"),
            ("GET", "/api/v1/namespaces", "list", "", "v1", "-", "namespaces", "-", "-"),
            ("GET", "/api/v1/namespaces/a", "get", "", "v1", "a", "namespaces", "a", "-"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update", "", "v1", "a", "namespaces", "a", "finalize"),
            ("PATCH", "/api/v1/namespaces/a/status", "patch", "", "v1", "a", "namespaces", "a", "status"),
            ("GET", "/api/v1/namespaces/a/pods", "list", "", "v1", "a", "pods", "-", "-"),
            ("POST", "/api/v1/namespaces/a/pods/p/binding", "create", "", "v1", "a", "pods", "p", "binding"),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection",
                "apps",
                "v1",
                "a",
                "deployments",
                "-",
                "-",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments/d",
                "delete",
                "apps",
                "v1",
                "a",
                "deployments",
                "d",
                "-",
            ),
            ("GET", "/api/v1/nodes/n%2Fx", "get", "", "v1", "-", "nodes", "n/x", "-"),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get",
                "rbac.authorization.k8s.io",
                "v1",
                "-",
                "clusterroles",
                "system:node",
                "-",
            ),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list", "", "v1", "-", "pods", "x", "-"),
        ];
        for (method, uri, verb, group, version, namespace, resource, name, sub) in table {
            let info = parse(method, uri);
            let dash = |o: &Option<String>| o.clone().unwrap_or("-".to_owned());
            assert!(info.is_resource, "{uri}");
            assert_eq!(
                (info.verb.as_str(), info.group.as_str(), info.version.as_str(), info.resource.as_str()),
                (verb, group, version, resource),
                "{uri}"
            );
            assert_eq!(
                (dash(&info.namespace), dash(&info.name), dash(&info.subresource)),
                (namespace.to_owned(), name.to_owned(), sub.to_owned()),
                "{uri}"
            );
        }
    }

    #[test]
    fn other_requests() {
        for uri in ["/", "/api", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1", "/version", "/healthz/ping"] {
            let info = parse("GET", uri);
            assert!(!info.is_resource, "{uri}");
            assert_eq!(info.verb, Verb::Get);
        }
        assert_eq!(parse("POST", "/version").verb.as_str(), "post");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(path in "(/[a-z%0-9A-F]{0,8}){0,9}", method in "(GET|PUT|POST|HEAD|PATCH|DELETE|X)") {
            if let Ok(uri) = path.parse::<Uri>() {
                let _ = RequestInfo::parse(&method.parse().unwrap(), &uri);
            }
        }
    }
}
