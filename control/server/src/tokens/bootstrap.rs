//! Bootstrap tokens: by them a node that has no certificate yet asks for one (upstream's bootstrap token authenticator).
//!
//! A token `ID.SECRET` is good while kube-system holds the Secret `bootstrap-token-ID` of type `bootstrap.kubernetes.io/token`
//! with that secret, unexpired and marked for authentication.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use wherry_api::meta;
use wherry_store::{Key, Store};

use crate::User;
use crate::layers::authenticate::{Authenticated, Refused, TokenAuthenticator};
use crate::objects;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group of all bootstrap tokens; those that a token adds begin so too.
const GROUP: &str = "system:bootstrappers";

/// The authenticator of bootstrap tokens.
pub(crate) struct BootstrapTokens {
    store: Arc<dyn Store>,
}

impl BootstrapTokens {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate(&self, token: &str, _audiences: &[String]) -> Result<Option<Authenticated>, Refused> {
        let Some((id, secret)) = parse(token) else { return Ok(None) };
        let key = Key::new("secrets", NAMESPACE, format!("bootstrap-token-{id}"));
        let Some(entry) = self.store.get(&key) else { return Ok(None) };
        let stored = objects::stored_tree(&entry).map_err(|error| Refused(error.message))?;
        let now = Timestamp::now();
        Ok(user(&stored, id, secret, now).map(|user| Authenticated { user, audiences: None }))
    }
}

/// Six and sixteen characters of `[a-z0-9]`.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// The user of the token `id`.`secret` by what the Secret says.
fn user(stored: &Value, id: &str, secret: &str, now: Timestamp) -> Option<User> {
    let data = |key: &str| decoded(&stored["data"][key]);
    let good = meta::deletion_timestamp(stored).is_none()
        && stored["type"] == TYPE
        // Compared by digest: how long that takes tells nothing of where they differ.
        && Sha256::digest(data("token-secret")) == Sha256::digest(secret)
        && data("token-id") == id
        && !has_expired(&data("expiration"), now)
        && data("usage-bootstrap-authentication") == "true";
    if !good {
        return None;
    }
    let extra = data("auth-extra-groups");
    let extra: Vec<&str> = extra.split(',').filter(|group| !group.is_empty()).collect();
    // One group that is none spoils all.
    if !extra.iter().all(|group| is_group(group)) {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in extra {
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    groups.sort();
    Some(User::new(format!("system:bootstrap:{id}"), groups))
}

fn decoded(value: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
    bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// An end that cannot be read has come.
fn has_expired(expiration: &str, now: Timestamp) -> bool {
    !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |end| end <= now)
}

fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    fn secret(change: &[(&str, &str)]) -> Value {
        let mut data = json!({});
        let whole =
            [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
        for (key, value) in whole.iter().chain(change) {
            data[*key] = STANDARD.encode(value).into();
        }
        json!({"metadata": {}, "type": TYPE, "data": data})
    }

    #[test]
    fn a_token_is_good_as_its_secret_says() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (change, groups) in [
            (vec![], Some(vec![GROUP])),
            (vec![("expiration", "2026-01-01T00:00:01Z")], Some(vec![GROUP])),
            (vec![("expiration", "2026-01-01T00:00:00Z")], None),
            (vec![("expiration", "soon")], None),
            (vec![("usage-bootstrap-authentication", "false")], None),
            (vec![("token-id", "fedcba")], None),
            (vec![("token-secret", "0123456789abcdeg")], None),
            (
                vec![("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a")],
                Some(vec![GROUP, "system:bootstrappers:a", "system:bootstrappers:b"]),
            ),
            (vec![("auth-extra-groups", "system:bootstrappers:a,system:masters")], None),
            (vec![("auth-extra-groups", "system:bootstrappers:")], None),
        ] {
            let found = user(&secret(&change), "abcdef", "0123456789abcdef", now);
            let expected = groups.map(|groups| User::new("system:bootstrap:abcdef", groups));
            assert_eq!(found, expected, "{change:?}");
        }
        let mut other = secret(&[]);
        other["type"] = "Opaque".into();
        assert_eq!(user(&other, "abcdef", "0123456789abcdef", now), None);
    }

    #[test]
    fn other_tokens_are_let_be() {
        for (token, good) in
            [("abcdef.0123456789abcdef", true), ("abcde.0123456789abcdef", false), ("ABCDEF.0123456789abcdef", false)]
        {
            assert_eq!(parse(token).is_some(), good, "{token}");
        }
    }
}
