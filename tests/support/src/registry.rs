//! A real registry on loopback: Debian's docker-registry.

use std::net::TcpListener;
use std::process::Command;

use crate::{Child, PATIENCE};

/// A running registry, with a directory of its own.
pub struct Registry {
    port: u16,
    _process: Child,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry and waits until it listens.
    pub fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // Free now; taken by the registry a moment later.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.path().join("config.yml");
        let root = dir.path().join("data");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                root.display()
            ),
        )?;
        let mut process = Child::start("docker-registry", Command::new("docker-registry").arg("serve").arg(&config))?;
        process.wait_for_line(PATIENCE, |line| line.contains("listening on"))?;
        Ok(Self { port, _process: process, _dir: dir })
    }

    /// A reference of an image in this registry.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}
