//! Bearer tokens: service accounts' own (signed here), bootstrap tokens (Secrets), and those of a file.
//!
//! ```text
//! serviceaccounts/token -> Issuer -> JWT -> Pod -> Authorization: Bearer ... -> ServiceAccounts -> User
//! ```
//!
//! Guarantees: a token is good only for the audiences it names, between its times, and as long as everything that it is bound to
//! (account; Pod, Secret or Node) is there with the uid it had. All of that is looked up in the store at each request:
//! nothing has to expire from a cache when an object goes.

mod bootstrap;
mod claims;
mod discovery;
mod keys;
mod service_accounts;
mod static_file;

use std::sync::Arc;

pub(crate) use bootstrap::BootstrapTokens;
pub(crate) use claims::{Claims, Kubernetes, LegacyClaims, Reference};
pub(crate) use discovery::{PATHS, router};
pub use keys::{KeyError, Keys};
pub(crate) use service_accounts::{NODE_NAME, ServiceAccounts};
pub use static_file::{StaticTokens, TokenFileError};

/// The issuer of tokens that lie in Secrets, whoever signs the others.
pub(crate) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// A service account's user name begins so; its namespace and name follow.
pub(crate) const USER_PREFIX: &str = "system:serviceaccount:";
/// The group of all service accounts.
pub(crate) const GROUP: &str = "system:serviceaccounts";

/// Who vouches for service accounts: an issuer's name (a URL), its keys, and the audiences that mean this API server.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    audiences: Arc<[String]>,
    keys: Keys,
}

impl Issuer {
    /// The issuer of the cluster whose DNS domain is `domain`: the API server as Pods reach it. Its URL is the one audience.
    pub fn of_cluster(domain: &str, keys: Keys) -> Self {
        let url = format!("https://kubernetes.default.svc.{domain}");
        Self { audiences: [url.clone()].into(), url, keys }
    }

    /// The audiences that mean this API server.
    pub(crate) fn audiences(&self) -> &Arc<[String]> {
        &self.audiences
    }

    /// Signs `claims` as this issuer.
    pub(crate) fn sign(&self, mut claims: Claims) -> Result<String, KeyError> {
        claims.iss.clone_from(&self.url);
        self.keys.sign(&claims)
    }

    /// A token without an end for the account `name` (of that `uid`) in `namespace`, to be kept in the Secret `secret`; it is
    /// good as long as the Secret holds it.
    pub fn legacy_token(&self, namespace: &str, name: &str, uid: &str, secret: &str) -> Result<String, KeyError> {
        self.keys.sign(&LegacyClaims {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: name.to_owned(),
            account_uid: uid.to_owned(),
            sub: username(namespace, name),
        })
    }
}

/// The user name of a service account.
pub(crate) fn username(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

/// The groups of the service accounts of a namespace.
pub(crate) fn groups(namespace: &str) -> [String; 2] {
    [GROUP.to_owned(), format!("{GROUP}:{namespace}")]
}
