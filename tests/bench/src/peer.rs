//! Kubernetes' own control plane, each part a process of its own, on loopback and in a directory of its own.
//!
//! The parts speak protobuf, have no limit of requests per second (their defaults, 20 to 50, are no property of the programs), and are
//! otherwise as they come. Pods get no tokens of service accounts on either side.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;
use wherry_test::{Child, PATIENCE};

/// A part that can be there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Scheduler,
    ControllerManager,
}

impl Part {
    /// The name of its program.
    pub(crate) fn binary(self) -> &'static str {
        match self {
            Self::Scheduler => "kube-scheduler",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// A running control plane. What was started last ends first.
pub(crate) struct Peer {
    children: Vec<(&'static str, Child)>,
    dir: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        while self.children.pop().is_some() {}
    }
}

impl Peer {
    /// Starts etcd, kube-apiserver and these parts from the programs in `bin`, and waits until the API answers.
    pub(crate) async fn start(bin: &Path, parts: &[Part]) -> anyhow::Result<Self> {
        let mut peer = Self { children: Vec::new(), dir: tempfile::Builder::new().prefix("peer").tempdir()? };
        peer.serve(bin)?;
        peer.ready().await?;
        for part in parts {
            let arguments = match part {
                Part::Scheduler => peer.scheduler()?,
                Part::ControllerManager => peer.controller_manager(),
            };
            peer.child(bin, part.binary(), &arguments)?;
        }
        Ok(peer)
    }

    pub(crate) fn processes(&self) -> Vec<(&'static str, u32)> {
        self.children.iter().map(|(name, child)| (*name, child.id())).collect()
    }

    /// The administrator's client.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// Where the administrator's kubeconfig is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    fn serve(&mut self, bin: &Path) -> anyhow::Result<()> {
        let [clients, peers, port] = [free_port()?, free_port()?, free_port()?];
        let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
        let etcd = [
            ("data-dir", self.path("etcd")),
            ("log-level", "error".into()),
            ("listen-client-urls", clients.clone()),
            ("advertise-client-urls", clients.clone()),
            ("listen-peer-urls", peers.clone()),
            ("initial-advertise-peer-urls", peers.clone()),
            ("initial-cluster", format!("default={peers}")),
        ];
        self.child(bin, "etcd", &etcd)?;
        let key = self.path("key.pem");
        let made = Command::new("openssl").args(["genrsa", "-traditional", "-out", &key, "2048"]).output();
        ensure!(made.context("start openssl")?.status.success(), "openssl makes no key");
        std::fs::write(self.path("tokens.csv"), "bench,bench,bench,system:masters\n")?;
        std::fs::write(self.kubeconfig(), kubeconfig(port))?;
        let apiserver = [
            ("etcd-servers", clients),
            ("secure-port", port.to_string()),
            ("bind-address", "127.0.0.1".into()),
            ("cert-dir", self.path("certs")),
            ("authorization-mode", "Node,RBAC".into()),
            ("token-auth-file", self.path("tokens.csv")),
            ("service-account-issuer", "https://kubernetes.default.svc".into()),
            ("service-account-key-file", key.clone()),
            ("service-account-signing-key-file", key),
            ("service-cluster-ip-range", "10.96.0.0/12".into()),
            // What these add to objects is for kubelets and the node controller to take away again.
            ("disable-admission-plugins", "ServiceAccount,TaintNodesByCondition".into()),
        ];
        self.child(bin, "kube-apiserver", &apiserver)
    }

    fn scheduler(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let config = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nleaderElection: {{leaderElect: false}}\n\
             clientConnection: {{kubeconfig: {:?}, qps: 100000, burst: 100000, contentType: application/vnd.kubernetes.protobuf}}\n",
            self.kubeconfig()
        );
        std::fs::write(self.path("scheduler.yaml"), config)?;
        Ok(vec![("config", self.path("scheduler.yaml")), ("secure-port", "0".into())])
    }

    fn controller_manager(&self) -> Vec<(&'static str, String)> {
        vec![
            ("kubeconfig", self.path("kubeconfig")),
            ("leader-elect", "false".into()),
            ("secure-port", "0".into()),
            ("kube-api-qps", "100000".into()),
            ("kube-api-burst", "100000".into()),
            ("kube-api-content-type", "application/vnd.kubernetes.protobuf".into()),
        ]
    }

    fn child(&mut self, bin: &Path, name: &'static str, flags: &[(&str, String)]) -> anyhow::Result<()> {
        let mut command = mortal(&bin.join(name));
        command.args(flags.iter().map(|(flag, value)| format!("--{flag}={value}"))).current_dir(self.dir.path());
        self.children.push((name, Child::start(name, &mut command)?));
        Ok(())
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        while let Err(error) = namespaces.get("default").await {
            let said = || self.children.iter().map(|(_, child)| child.output()).collect::<Vec<_>>().join("\n");
            ensure!(begun.elapsed() < PATIENCE, "kube-apiserver is not ready: {error}\n{}", said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// A command of a program that ends with this one, however that ends.
pub(crate) fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
         clusters: [{{name: bench, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: bench, user: {{token: bench}}}}]\ncontexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]\n"
    )
}

/// A port of this machine that nobody listens on now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
