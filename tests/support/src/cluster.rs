//! A cluster: `wherry up` in a directory of its own.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::{Child, Kubectl, PATIENCE, until};

/// How to start a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary: `env!("CARGO_BIN_EXE_wherry")` in a test of the root package.
    pub binary: PathBuf,
    /// `--nodes`.
    pub nodes: u16,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Environment variables beside the test's own.
    pub environment: Vec<(String, String)>,
    /// Files that lie in the data directory before the first start, by their names there.
    pub files: Vec<(String, String)>,
    /// The user and group id to run as; else the test's own.
    pub user: Option<u32>,
}

impl Options {
    /// One node.
    #[must_use]
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            nodes: 1,
            arguments: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
            user: None,
        }
    }
}

/// A running (or stopped) cluster and its directory, which goes with it.
pub struct Cluster {
    options: Options,
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl Cluster {
    /// Starts a cluster in a new directory and waits until it is ready.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let mut cluster = Self::create(options)?;
        cluster.resume()?;
        Ok(cluster)
    }

    /// A cluster in a new directory, not started yet.
    pub fn create(options: Options) -> anyhow::Result<Self> {
        // Short: paths of sockets below it are limited to 108 bytes.
        let dir = tempfile::Builder::new().prefix("wh").tempdir()?;
        let mut cluster = Self { options, dir, process: None };
        cluster.prepare()?;
        Ok(cluster)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        std::fs::create_dir(self.data_dir())?;
        self.options.binary = self.within_reach(&self.options.binary)?;
        for (name, content) in &self.options.files {
            std::fs::write(self.data_dir().join(name), content)?;
        }
        for path in [self.scratch(), &self.data_dir()] {
            std::os::unix::fs::chown(path, self.options.user, self.options.user)?;
        }
        Ok(())
    }

    /// A command of the binary, for this cluster, as its user and with its environment.
    #[must_use]
    pub fn wherry(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.args(arguments).env("WHERRY_DATA_DIR", self.data_dir()).envs(self.options.environment.iter().cloned());
        if let Some(user) = self.options.user {
            // With a new user id, the supplementary groups go as well.
            command.uid(user).gid(user).env("HOME", self.scratch()).current_dir(self.scratch());
        }
        command
    }

    /// A file that the cluster's user can read: `file`, or a link or copy where another user may not be let into its directory.
    pub fn within_reach(&self, file: &Path) -> anyhow::Result<PathBuf> {
        let Some(name) = file.file_name().filter(|_| self.options.user.is_some()) else { return Ok(file.to_owned()) };
        let within = self.scratch().join(name);
        // A copy over an earlier link would be one over the file itself.
        drop(std::fs::remove_file(&within));
        std::fs::hard_link(file, &within)
            .or_else(|_| std::fs::copy(file, &within).map(drop))
            .with_context(|| format!("copy {}", file.display()))?;
        Ok(within)
    }

    /// Where its containerd keeps the files of snapshots, a directory each.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.data_dir().join("containerd/containerd/root/io.containerd.snapshotter.v1.overlayfs/snapshots")
    }

    /// The command that [`resume`](Self::resume) starts.
    #[must_use]
    pub fn up(&self) -> Command {
        let mut command = self.wherry(&["up"]);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(["--api-port", "0", "--nodes", &self.options.nodes.to_string()])
            .args(&self.options.arguments);
        command
    }

    /// Starts it (again), in the same directory.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut process = Child::start("wherry up", &mut self.up())?;
        process.wait_for_line(PATIENCE, |line| line.starts_with("ready"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops it in order, by SIGTERM; its output.
    pub fn stop(&mut self) -> anyhow::Result<String> {
        let mut process = self.process.take().context("the cluster does not run")?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait()?;
        anyhow::ensure!(status.success(), "wherry up ended with {status}:\n{}", process.output());
        Ok(process.output())
    }

    /// kill -9.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the cluster does not run")?.kill()
    }

    /// The process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Child> {
        self.process.as_ref()
    }

    /// Where its state lies.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("d")
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A directory for the test's own files.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The newest kubectl of the tests.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        let binary = Kubectl::binaries().pop().unwrap_or_else(|| "kubectl".into());
        Kubectl::new(binary, &self.kubeconfig())
    }

    /// One kubectl for each version.
    #[must_use]
    pub fn kubectls(&self) -> Vec<Kubectl> {
        Kubectl::binaries().into_iter().map(|binary| Kubectl::new(binary, &self.kubeconfig())).collect()
    }

    /// A kube-rs client.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        // An error means that it was chosen already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// `wherry image load`.
    pub fn load(&self, file: &Path, reference: &str) -> anyhow::Result<()> {
        let file = self.within_reach(file)?;
        let output =
            self.wherry(&["image", "load"]).arg(file).arg(reference).output().context("start wherry image load")?;
        anyhow::ensure!(output.status.success(), "image load: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The URL of a Service's (first) node port on this machine.
    pub fn url(&self, service: &str) -> anyhow::Result<String> {
        let service = self.kubectl().json(&format!("get service {service}"))?;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("the Service has no node port")?;
        Ok(format!("127.0.0.1:{port}"))
    }

    /// The same, once somebody listens there: endpoints, the node's rules and the port follow a Pod that is Ready, and nothing tells when.
    pub fn open_url(&self, service: &str) -> anyhow::Result<String> {
        let url = self.url(service)?;
        until(PATIENCE, || {
            let connected = TcpStream::connect(&url);
            Ok(connected.map(|_| url.clone()).map_err(|error| format!("{service} at {url}: {error}")))
        })
    }

    /// Waits until a Service leads nowhere: its endpoints are gone somewhat later than its last Pod.
    pub fn without_endpoints(&self, service: &str) -> anyhow::Result<()> {
        until(PATIENCE, || {
            let left = self.kubectl().ok(&format!("get endpoints {service} -o jsonpath={{.subsets}}"))?;
            Ok(if matches!(&*left, "" | "[]") { Ok(()) } else { Err(format!("{service} has {left}")) })
        })
    }
}

impl Drop for Cluster {
    /// Stops what still runs. Its last words are shown where a test has failed.
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            let output = process.output();
            let lines: Vec<&str> = output.lines().collect();
            eprintln!("wherry up said last:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        if self.process.is_some()
            && let Err(error) = self.stop()
        {
            eprintln!("{error:#}");
        }
    }
}
