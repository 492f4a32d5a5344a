//! A containerd that is not ours: used with `--containerd`, and left as it was.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use wherry_test::{Child, Cluster, PATIENCE, echo_image, is_root, sample};

use crate::options;
use crate::pods::{ready, run};

struct External {
    dir: tempfile::TempDir,
    process: Child,
}

impl External {
    fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("cd").tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let config = "version = 2\noom_score = 0\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";
        std::fs::write(at("config.toml"), config)?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(at("config.toml")).arg("--root").arg(at("root")).arg("--state").arg(at("state"));
        let mut process = Child::start("containerd", command.arg("--address").arg(at("c.sock")))?;
        process.wait_for_line(PATIENCE, |line| line.contains("containerd successfully booted"))?;
        Ok(Self { dir, process })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }
}

/// The words that `ctr` prints for a list, without its header.
pub(crate) fn ctr(socket: &Path, line: &str) -> anyhow::Result<Vec<String>> {
    let output =
        Command::new("ctr").arg("--address").arg(socket).args(line.split_whitespace()).output().context("start ctr")?;
    ensure!(output.status.success(), "ctr {line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

#[test]
fn an_external_containerd_is_used_and_left_as_it_was() -> anyhow::Result<()> {
    if !is_root("containerd") {
        return Ok(());
    }
    let mut external = External::start()?;
    let socket = external.socket();
    let mut options = options();
    options.arguments = vec!["--containerd".to_owned(), socket.display().to_string()];
    let mut cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    cluster.load(&echo_image()?, "a.test/echo:container")?;
    cluster.load(&sample("echo"), "a.test/echo:wasm")?;
    for kind in ["wasm", "container"] {
        run(&kubectl, kind, &format!("a.test/echo:{kind}"), "Never")?;
        ready(&kubectl, kind)?;
    }
    let namespaces = ctr(&socket, "namespaces ls -q")?;
    let [namespace] = &*namespaces else { anyhow::bail!("{namespaces:?}") };
    assert!(namespace.starts_with("wherry-0-"), "{namespace}");
    assert_eq!(ctr(&socket, &format!("-n {namespace} tasks ls -q"))?.len(), 1);
    assert!(!cluster.data_dir().join("containerd").exists(), "a containerd of our own beside it");

    cluster.stop()?;
    assert!(ctr(&socket, "version").is_ok(), "it is left running: {}", external.process.output());
    assert_eq!(ctr(&socket, "namespaces ls -q")?, Vec::<String>::new());
    assert_eq!(
        std::fs::read_dir(external.dir.path().join("state/io.containerd.runtime.v2.task"))?
            .flatten()
            .flat_map(|dir| std::fs::read_dir(dir.path()))
            .flatten()
            .count(),
        0
    );
    external.process.signal(nix::sys::signal::Signal::SIGTERM)?;
    external.process.wait()?;
    Ok(())
}

#[test]
fn a_socket_where_no_containerd_is_stops_the_start() -> anyhow::Result<()> {
    if !is_root("containerd") {
        return Ok(());
    }
    let mut options = options();
    options.arguments = vec!["--containerd".to_owned(), "/nowhere/c.sock".to_owned()];
    let Err(error) = Cluster::start(options) else { anyhow::bail!("it started") };
    let text = format!("{error:#}");
    assert!(text.contains("error: containerd at /nowhere/c.sock: "), "{text}");
    Ok(())
}
