//! Recognises service accounts by their tokens (upstream's `JWTTokenAuthenticator` with its two validators).
//!
//! Only signatures are remembered; times and bound objects are looked at for every request.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use wherry_api::meta;
use wherry_store::{Entry, Key, Store};

use super::claims::LEEWAY;
use super::{Claims, Issuer, LEGACY_ISSUER, LegacyClaims, Reference, groups, keys, username};
use crate::User;
use crate::layers::authenticate::{Authenticated, Refused, TokenAuthenticator, intersection};
use crate::objects;

/// How many verified signatures are remembered; then all are forgotten.
const REMEMBERED: usize = 4096;

/// A token whose signature is good.
enum Verified {
    Bound(Box<Claims>),
    Legacy(LegacyClaims),
}

/// The authenticator of service account tokens.
pub(crate) struct ServiceAccounts {
    issuer: Arc<Issuer>,
    store: Arc<dyn Store>,
    /// By the token's digest: the tokens themselves are not kept.
    verified: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
}

#[async_trait]
impl TokenAuthenticator for ServiceAccounts {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, Refused> {
        let claims = keys::peek(token);
        let issuer = claims.as_ref().and_then(|claims| claims["iss"].as_str()).unwrap_or_default();
        if issuer != self.issuer.url && issuer != LEGACY_ISSUER {
            return Ok(None);
        }
        let verified = self.verify(token, issuer == LEGACY_ISSUER)?;
        let own = self.issuer.audiences();
        let (user, named) = match verified.as_ref() {
            Verified::Bound(claims) => (self.bound(claims), &claims.aud[..]),
            Verified::Legacy(claims) => (self.legacy(claims, token), &own[..]),
        };
        let accepted = intersection(named, audiences);
        if accepted.is_empty() {
            let (named, wanted) = (quoted(named), quoted(audiences));
            return Err(Refused(format!("token audiences {named} is invalid for the target audiences {wanted}")));
        }
        Ok(Some(Authenticated { user: user?, audiences: Some(accepted) }))
    }
}

impl ServiceAccounts {
    pub(crate) fn new(issuer: Arc<Issuer>, store: Arc<dyn Store>) -> Self {
        Self { issuer, store, verified: Mutex::default() }
    }

    fn verify(&self, token: &str, legacy: bool) -> Result<Arc<Verified>, Refused> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.verified.lock().get(&digest) {
            return Ok(Arc::clone(known));
        }
        let claims = self.issuer.keys.verify(token).map_err(Refused)?;
        let unreadable = |e: serde_json::Error| Refused(format!("service account token claims: {e}"));
        let verified = Arc::new(if legacy {
            Verified::Legacy(serde_json::from_slice(&claims).map_err(unreadable)?)
        } else {
            Verified::Bound(Box::new(serde_json::from_slice(&claims).map_err(unreadable)?))
        });
        let mut known = self.verified.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(digest, Arc::clone(&verified));
        Ok(verified)
    }

    /// The user of a bound token, if all that it is bound to is still there.
    fn bound(&self, claims: &Claims) -> Result<User, Refused> {
        let now = Timestamp::now();
        claims.check_times(now.as_second()).map_err(|why| Refused(why.to_owned()))?;
        let kubernetes = &claims.kubernetes;
        let (namespace, account) = (kubernetes.namespace.as_str(), &kubernetes.serviceaccount);
        let found = self.identity("serviceaccounts", namespace, &account.name);
        let found = found.ok_or_else(|| Refused(format!("serviceaccounts {:?} not found", account.name)))?;
        if found.uid != account.uid {
            return Err(Refused(format!("service account UID ({}) does not match claim ({})", found.uid, account.uid)));
        }
        if found.is_deleted(now) {
            return Err(Refused(format!("service account {namespace}/{} has been deleted", account.name)));
        }
        let check = |resource: &str, namespace: &str, reference: &Option<Reference>| match reference {
            Some(reference) => self.check_bound(resource, namespace, reference, now),
            None => Ok(()),
        };
        check("secrets", namespace, &kubernetes.secret)?;
        check("pods", namespace, &kubernetes.pod)?;
        // The node of a Pod is told, not checked: the Pod goes with it.
        if kubernetes.pod.is_none() {
            check("nodes", "", &kubernetes.node)?;
        }
        let mut user = service_account(namespace, account);
        if let Some(pod) = &kubernetes.pod {
            user = user.with_extra(POD_NAME, &pod.name).with_extra(POD_UID, &pod.uid);
        }
        if let Some(node) = kubernetes.node.as_ref().filter(|node| !node.name.is_empty()) {
            user = user.with_extra(NODE_NAME, &node.name);
            if !node.uid.is_empty() {
                user = user.with_extra(NODE_UID, &node.uid);
            }
        }
        if !claims.jti.is_empty() {
            user = user.with_extra(crate::user::CREDENTIAL_ID, &format!("JTI={}", claims.jti));
        }
        Ok(user)
    }

    fn check_bound(
        &self,
        resource: &str,
        namespace: &str,
        reference: &Reference,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let invalidated = || Refused("service account token has been invalidated".to_owned());
        let found = self.identity(resource, namespace, &reference.name).ok_or_else(invalidated)?;
        if found.uid != reference.uid {
            let (kind, uid) = (resource.trim_end_matches('s'), &reference.uid);
            let title = if kind == "pod" { "Pod" } else { kind };
            let found = found.uid;
            return Err(Refused(format!(
                "{title} UID ({found}) does not match service account {kind} ref claim ({uid})"
            )));
        }
        if found.is_deleted(now) { Err(invalidated()) } else { Ok(()) }
    }

    /// The user of a token in a Secret, if the Secret still holds it.
    fn legacy(&self, claims: &LegacyClaims, token: &str) -> Result<User, Refused> {
        let LegacyClaims { namespace, secret, account, account_uid, sub, .. } = claims;
        for (value, name) in [
            (sub, "sub"),
            (namespace, "namespace"),
            (secret, "secretName"),
            (account, "serviceAccountName"),
            (account_uid, "serviceAccountUID"),
        ] {
            if value.is_empty() {
                return Err(Refused(format!("{name} claim is missing")));
            }
        }
        if *sub != username(namespace, account) {
            return Err(Refused("sub claim is invalid".to_owned()));
        }
        let invalidated = || Refused("Token has been invalidated".to_owned());
        let entry = self.entry("secrets", namespace, secret).ok_or_else(invalidated)?;
        let stored = objects::stored_tree(&entry).map_err(|e| Refused(e.message))?;
        if meta::deletion_timestamp(&stored).is_some() {
            return Err(invalidated());
        }
        if !holds(&stored, token) {
            return Err(Refused("Token does not match server's copy".to_owned()));
        }
        let found = self.identity("serviceaccounts", namespace, account);
        let found = found.ok_or_else(|| Refused(format!("serviceaccounts {account:?} not found")))?;
        if found.deleted.is_some() {
            return Err(Refused(format!("ServiceAccount {namespace}/{account} has been deleted")));
        }
        if found.uid != *account_uid {
            let found = found.uid;
            return Err(Refused(format!("ServiceAccount UID ({found}) does not match claim ({account_uid})")));
        }
        if meta::label(&stored, INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            return Err(Refused(format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            )));
        }
        Ok(service_account(namespace, &Reference { name: account.clone(), uid: account_uid.clone() }))
    }

    fn entry(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.store.get(&Key::new(resource, namespace, name))
    }

    fn identity(&self, resource: &str, namespace: &str, name: &str) -> Option<Identity> {
        let entry = self.entry(resource, namespace, name)?;
        serde_json::from_str(objects::raw_metadata(&entry).ok()?.get()).ok()
    }
}

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
pub(crate) const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
/// The label by which the cleaner of legacy tokens takes one out of use.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

fn service_account(namespace: &str, account: &Reference) -> User {
    let mut user = User::new(username(namespace, &account.name), groups(namespace));
    user.uid.clone_from(&account.uid);
    user
}

/// Whether a Secret holds `token`; compared without telling where the difference is.
fn holds(secret: &serde_json::Value, token: &str) -> bool {
    use base64::Engine as _;
    let encoded = secret["data"]["token"].as_str().unwrap_or_default();
    let stored = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    Sha256::digest(&stored) == Sha256::digest(token)
}

/// What of an object's metadata counts here.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    uid: String,
    #[serde(rename = "deletionTimestamp")]
    deleted: Option<String>,
}

impl Identity {
    /// Whether the object should have gone a while ago.
    fn is_deleted(&self, now: Timestamp) -> bool {
        let deleted = self.deleted.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        deleted.is_some_and(|at| at.as_second() < now.as_second() - LEEWAY)
    }
}

/// A list of strings as Go prints it with `%q`.
fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}
