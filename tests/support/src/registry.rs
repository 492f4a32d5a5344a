//! A real registry on loopback: Debian's docker-registry.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{Child, PATIENCE};

/// What a registry asks of its clients.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// A name and a password, without which it refuses.
    pub user: Option<(String, String)>,
    /// Speak TLS, with a certificate for 127.0.0.1 of an authority of its own.
    pub tls: bool,
}

/// A registry, with a directory of its own and a port that stays the same.
pub struct Registry {
    port: u16,
    process: Option<Child>,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Starts an open registry without TLS and waits until it listens.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&RegistryOptions::default())
    }

    /// Starts a registry and waits until it listens.
    pub fn start_with(options: &RegistryOptions) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // Free now; taken by the registry a moment later.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = dir.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        if options.tls {
            let (certificate, key) = certify(dir.path())?;
            writeln!(config, "  tls: {{certificate: {}, key: {}}}", certificate.display(), key.display())?;
        }
        if let Some((name, password)) = &options.user {
            let made = Command::new("htpasswd")
                .args(["-Bbn", name, password])
                .output()
                .context("start htpasswd (package apache2-utils)")?;
            ensure!(made.status.success(), "htpasswd: {}", String::from_utf8_lossy(&made.stderr));
            let users = dir.path().join("htpasswd");
            std::fs::write(&users, made.stdout)?;
            writeln!(config, "auth:\n  htpasswd: {{realm: tests, path: {}}}", users.display())?;
        }
        std::fs::write(dir.path().join("config.yml"), config)?;
        let mut registry = Self { port, process: None, dir };
        registry.resume()?;
        Ok(registry)
    }

    /// Starts it again, with what it held.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("docker-registry");
        let mut process =
            Child::start("docker-registry", command.arg("serve").arg(self.dir.path().join("config.yml")))?;
        process.wait_for_line(PATIENCE, |line| line.contains("listening on"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops it; nobody listens on its port until it is resumed.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A reference of an image in this registry.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// The certificate of the authority that a TLS registry's own comes from.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

/// An authority and a certificate for 127.0.0.1, in `dir`.
fn certify(dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let authority_key = rcgen::KeyPair::generate()?;
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
    std::fs::write(dir.join("ca.pem"), authority.self_signed(&authority_key)?.pem())?;
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    let paths = (dir.join("registry.pem"), dir.join("registry.key"));
    std::fs::write(&paths.0, certificate.pem())?;
    std::fs::write(&paths.1, key.serialize_pem())?;
    Ok(paths)
}
