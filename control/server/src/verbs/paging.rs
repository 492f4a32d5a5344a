//! Continue tokens: where a page ended and at which revision.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use wherry_api::status::Status;
use wherry_store::Entry;

const VERSION: &str = "meta.k8s.io/v1";

/// Where the next page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Continue {
    v: String,
    /// The revision of the first page; negative for the newest state, which makes an inconsistent list.
    pub(crate) rv: i64,
    /// `namespace/name` (the namespace empty for cluster-scoped objects) of the last object.
    start: String,
}

impl Continue {
    pub(crate) fn after(entry: &Entry, revision: i64) -> Self {
        let start = format!("{}/{}", entry.key.namespace, entry.key.name);
        Self { v: VERSION.to_owned(), rv: revision, start }
    }

    /// The same place in the newest state.
    pub(crate) fn inconsistent(&self) -> Self {
        Self { rv: -1, ..self.clone() }
    }

    pub(crate) fn encode(&self) -> String {
        serde_json::to_vec(self).map(|json| URL_SAFE_NO_PAD.encode(json)).unwrap_or_default()
    }

    pub(crate) fn decode(token: &str) -> Result<Self, Status> {
        let invalid =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD.decode(token).map_err(|e| invalid(&e.to_string()))?;
        let found: Self = serde_json::from_slice(&json).map_err(|e| invalid(&e.to_string()))?;
        if found.v != VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {}", found.v)));
        }
        if found.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if found.start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        let (namespace, name) = found.start();
        let foreign = |part: &str| matches!(part, "." | "..") || part.contains('/');
        if !found.start.contains('/') || name.is_empty() || foreign(namespace) || foreign(name) {
            return Err(invalid(&found.start));
        }
        Ok(found)
    }

    /// Namespace and name of the last object of the page before.
    pub(crate) fn start(&self) -> (&str, &str) {
        self.start.split_once('/').unwrap_or(("", &self.start))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn tokens_survive_the_way_and_forgeries_do_not() {
        let token = Continue { v: VERSION.to_owned(), rv: 7, start: "ns/a".to_owned() };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        assert_eq!(token.start(), ("ns", "a"));
        assert_eq!(token.inconsistent().rv, -1);
        assert_eq!(Continue::decode(&token.inconsistent().encode()).unwrap().rv, -1);
        for (json, text) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{}", "server does not recognize this encoded version "),
            (r#"{"v":"x","rv":1,"start":"/a"}"#, "server does not recognize this encoded version x"),
            (
                r#"{"v":"meta.k8s.io/v1","rv":0,"start":"/a"}"#,
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (r#"{"v":"meta.k8s.io/v1","rv":1}"#, "encoded start key empty (version meta.k8s.io/v1)"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a"}"#, "a"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a/../b"}"#, "a/../b"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../b"}"#, "../b"),
        ] {
            let refused = Continue::decode(&URL_SAFE_NO_PAD.encode(json)).unwrap_err();
            let expected = format!("invalid continue token: continue key is not valid: {text}");
            assert_eq!((refused.code, refused.message), (400, expected), "{json}");
        }
        assert_eq!(Continue::decode("!").unwrap_err().code, 400);
    }
}
