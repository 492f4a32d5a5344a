//! The cluster's certificates and keys.
//!
//! A [`Pki`] is a directory (`DIR/pki`) that is filled on first use and read on every later start:
//!
//! | file | what |
//! |---|---|
//! | `ca.crt`, `ca.key` | the authority that all parts of the cluster trust |
//! | `apiserver.crt`, `.key` | what the API server shows |
//! | `NAME.crt`, `NAME.key` | client certificates: `admin`, `node-NAME` |
//! | `front-proxy-ca.crt`, `.key` | the authority that says who may speak for others to extension API servers |
//! | `front-proxy-client.crt`, `.key` | what the API server shows to those |
//! | `sa.key`, `sa.pub` | what service account tokens are signed with (ES256) |
//! | `sa-ANY.pub` | older keys whose tokens are still accepted: to rotate, rename `sa.pub` so and remove `sa.key` |
//!
//! Guarantees: the directory has mode 0700 and each file 0600; a file is replaced by rename, so a crash leaves
//! the old or the new one; a key is written before its certificate, and a pair that does not belong
//! together is issued anew. A certificate is renewed when a quarter of its life is left, when a name is missing,
//! or when another authority signed it. The authority itself is kept until it has expired.

mod files;
mod issue;
mod kubeconfig;
mod sign;
pub(crate) mod tls;

pub use kubeconfig::{Kubeconfig, default_path};

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wherry_api::certificates::Request;

use crate::{Keys, User};

/// A certificate (chain) with its private key, both as PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// The PKCS #8 private key.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// How extension API servers know their clients.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// Signs the certificates of users who come directly, PEM.
    pub client_ca: String,
    /// Signs the certificate of who may speak for users, PEM.
    pub authority: String,
    /// The API server's own: it speaks for users.
    pub client: Credentials,
}

impl FrontProxy {
    /// The common name of the API server's certificate.
    pub(crate) const NAME: &'static str = "front-proxy-client";
}

/// Why certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key could not be made.
    #[error("issue certificate {name:?}: {source}")]
    Issue {
        /// The certificate's file name without extension.
        name: String,
        /// What the generator said.
        source: rcgen::Error,
    },
    /// A file holds something else than it should.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A client certificate can name one group only.
    #[error("user {0:?} has more than one group; a client certificate carries one")]
    TooManyGroups(String),
    /// A certificate that was asked for could not be signed.
    #[error("sign a certificate: {0}")]
    Sign(String),
    /// The TLS library refused the material.
    #[error("TLS configuration: {0}")]
    Tls(String),
}

/// The names and addresses under which the API server is reached, beside the well-known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// What every API server is called: localhost, `kubernetes` in all its forms under `domain`, and `extra`.
    pub fn of_api_server(domain: &str, extra: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut dns: Vec<String> =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
        dns.push(format!("kubernetes.default.svc.{domain}"));
        let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        for address in extra {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Self { dns, addresses }
    }
}

/// The certificate directory of a cluster; see the [module](self).
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    ca: Credentials,
}

impl Pki {
    /// Opens `data_dir/pki`, making the directory, the authority and the service account keys where missing.
    pub fn open(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        files::make_dir(&dir)?;
        let ca = issue::authority(&dir, "ca", "kubernetes")?;
        issue::service_account_keys(&dir)?;
        Ok(Self { dir, ca })
    }

    /// The authority's certificate, PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.ca.certificate
    }

    /// The API server's certificate for `names`.
    pub fn serving(&self, names: &Names) -> Result<Credentials, PkiError> {
        issue::leaf(&self.dir, "apiserver", &self.ca, &issue::Purpose::Serving(names))
    }

    /// A serving certificate for something else than the API server, kept in `NAME.crt`.
    pub fn serving_named(&self, name: &str, names: &Names) -> Result<Credentials, PkiError> {
        issue::leaf(&self.dir, name, &self.ca, &issue::Purpose::Serving(names))
    }

    /// A client certificate for `user` (CN is the name, O the group), kept in `NAME.crt`.
    pub fn client(&self, name: &str, user: &User) -> Result<Credentials, PkiError> {
        issue::leaf(&self.dir, name, &self.ca, &issue::Purpose::Client(user))
    }

    /// Signs the certificate (PEM) that `request` asks for, good for `usages` and `seconds` from now. Whether it should be
    /// signed is the caller's to know.
    pub fn sign(&self, request: &Request, usages: &[&str], seconds: i64) -> Result<String, PkiError> {
        sign::certificate(&self.ca, request, usages, seconds, jiff::Timestamp::now().as_second())
    }

    /// The administrator's client certificate: kubernetes-admin of system:masters.
    pub fn admin(&self) -> Result<Credentials, PkiError> {
        self.client("admin", &User::admin())
    }

    /// What this cluster's extension API servers know their clients by.
    pub fn front_proxy(&self) -> Result<FrontProxy, PkiError> {
        // Not the cluster's authority: each user's certificate would let its owner speak for anybody.
        let authority = issue::authority(&self.dir, "front-proxy-ca", "front-proxy-ca")?;
        let client = User::new(FrontProxy::NAME, Vec::<String>::new());
        let client = issue::leaf(&self.dir, "front-proxy-client", &authority, &issue::Purpose::Client(&client))?;
        Ok(FrontProxy { client_ca: self.ca.certificate.clone(), authority: authority.certificate, client })
    }

    /// What signs service account tokens (`sa.key`), and what verifies them: its public half and those of the keys before
    /// it, which stay in other `sa*.pub` files for as long as their tokens should be good.
    pub fn service_account_keys(&self) -> Result<Keys, PkiError> {
        let path = self.dir.join("sa.key");
        let mut public = Vec::new();
        for name in files::names(&self.dir)? {
            if name.starts_with("sa") && name.ends_with(".pub") {
                public.push(files::read(&self.dir.join(name))?);
            }
        }
        Keys::from_pem(&files::read(&path)?, public.iter().map(String::as_str))
            .map_err(|error| PkiError::Malformed { path, reason: error.to_string() })
    }

    /// TLS for [`Server::serve`](crate::Server::serve): shows `credentials`, asks clients for a certificate of this
    /// authority and lets those without one in (they may hold a token), offers h2 and http/1.1.
    pub fn server_tls(&self, credentials: &Credentials) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        tls::server(credentials, &self.ca.certificate)
    }
}

#[cfg(test)]
mod tests;
