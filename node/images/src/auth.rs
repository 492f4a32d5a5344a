//! Credentials for a registry.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::{ImageError, Reference};

/// Who to be at a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Auth {
    /// A name and a password (or an access token used as one).
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token, exchanged for access tokens (`identitytoken`).
    Identity(String),
    /// A bearer token, sent as it is (`registrytoken`).
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Auth::Basic(..)",
            Self::Identity(_) => "Auth::Identity(..)",
            Self::Bearer(_) => "Auth::Bearer(..)",
        })
    }
}

/// One entry of `auths` in a `.dockerconfigjson`, and of `configs` in `registries.yaml`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthEntry {
    username: Option<String>,
    password: Option<String>,
    /// base64 of `username:password`.
    auth: Option<String>,
    #[serde(alias = "identityToken", alias = "identity_token")]
    identitytoken: Option<String>,
    #[serde(alias = "registryToken", alias = "registry_token", alias = "token")]
    registrytoken: Option<String>,
}

impl AuthEntry {
    pub(crate) fn resolve(&self) -> Option<Auth> {
        let filled = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Some(Auth::Identity(token));
        }
        if let Some(token) = filled(&self.registrytoken) {
            return Some(Auth::Bearer(token));
        }
        if let (Some(username), Some(password)) = (filled(&self.username), filled(&self.password)) {
            return Some(Auth::Basic { username, password });
        }
        let pair = STANDARD.decode(filled(&self.auth)?.trim()).ok()?;
        let (username, password) =
            String::from_utf8(pair).ok()?.split_once(':').map(|(name, word)| (name.to_owned(), word.to_owned()))?;
        Some(Auth::Basic { username, password: password.trim_end_matches('\0').to_owned() })
    }
}

impl Auth {
    /// The credentials for `reference` in a Docker `config.json`: the content of a Secret of type
    /// `kubernetes.io/dockerconfigjson` (or of the older `kubernetes.io/dockercfg`). The entry with the longest
    /// path that is a prefix of the image's repository is taken. None where no entry is for its registry.
    pub fn from_docker_config(config: &[u8], reference: &Reference) -> Result<Option<Self>, ImageError> {
        let bad = |problem: &dyn fmt::Display| {
            ImageError::malformed(
                "the credentials for registries",
                format!("they are not a Docker config.json: {problem}"),
            )
        };
        let mut file: BTreeMap<String, Value> = serde_json::from_slice(config).map_err(|e| bad(&e))?;
        let auths: BTreeMap<String, AuthEntry> = match file.remove("auths") {
            Some(auths) => serde_json::from_value(auths).map_err(|e| bad(&e))?,
            // The older form is the map itself. A newer file may have other settings alone.
            None => {
                file.into_iter().filter_map(|(key, entry)| Some((key, serde_json::from_value(entry).ok()?))).collect()
            }
        };
        let repository = format!("{}/", reference.repository());
        let found = auths
            .iter()
            .filter_map(|(key, entry)| {
                let (host, path) = split_key(key);
                let fits = host == reference.registry() && repository.starts_with(&path);
                fits.then_some((path.len(), entry))
            })
            .max_by_key(|(length, _)| *length);
        Ok(found.and_then(|(_, entry)| entry.resolve()))
    }
}

/// A key of `auths` as registry and path prefix (`""` or `team/`). Docker Hub has several spellings.
fn split_key(key: &str) -> (String, String) {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let hub = matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let path = path.trim_end_matches('/');
    // `https://index.docker.io/v1/`: a version of an API, not a repository.
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let host = if hub { "docker.io" } else { host };
    (host.to_owned(), if path.is_empty() { String::new() } else { format!("{path}/") })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Option<Auth> {
        Some(Auth::Basic { username: username.into(), password: password.into() })
    }

    #[test]
    fn the_longest_matching_entry_wins() {
        let config = br#"{"auths": {
            "r.example": {"username": "all", "password": "1"},
            "r.example/team": {"username": "team", "password": "2"},
            "https://index.docker.io/v1/": {"auth": "aHViOnA6dw=="}}}"#;
        let of = |image: &str| Auth::from_docker_config(config, &image.parse().unwrap()).unwrap();
        assert_eq!(of("r.example/x"), basic("all", "1"));
        assert_eq!(of("r.example/team/x"), basic("team", "2"));
        assert_eq!(of("r.example/teams/x"), basic("all", "1"));
        assert_eq!(of("busybox"), basic("hub", "p:w"));
        assert_eq!(of("other.example/x"), None);
    }

    #[test]
    fn the_old_form_and_tokens_are_read_and_never_printed() {
        let config = br#"{"r.example": {"identitytoken": "secret"}}"#;
        let auth = Auth::from_docker_config(config, &"r.example/x".parse().unwrap()).unwrap().unwrap();
        assert_eq!(auth, Auth::Identity("secret".into()));
        assert!(!format!("{auth:?}").contains("secret"));
        let settings = br#"{"credsStore": "desktop", "detachKeys": "ctrl-q"}"#;
        assert_eq!(Auth::from_docker_config(settings, &"r.example/x".parse().unwrap()).unwrap(), None);
        assert!(Auth::from_docker_config(b"nonsense", &"x".parse().unwrap()).is_err());
    }
}
