//! The node's network, where Pods and Services have their addresses.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use wherry_test::Cluster;

/// wrk's connections.
pub(crate) const CONNECTIONS: u32 = 32;

fn namespace(cluster: &Cluster) -> std::path::PathBuf {
    cluster.data_dir().join("network/nodes/wherry-0")
}

/// Does `work` on a thread whose sockets are the node's.
pub(crate) async fn inside<T: Send + 'static>(
    cluster: &Cluster,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let path = namespace(cluster);
    let (send, outcome) = tokio::sync::oneshot::channel();
    // A thread that ends with the work: none goes back to a pool in another network than it came from.
    std::thread::spawn(move || {
        let entered = File::open(&path)
            .map_err(anyhow::Error::from)
            .and_then(|namespace| Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?))
            .with_context(|| format!("enter {}", path.display()));
        drop(send.send(entered.and_then(|()| work())));
    });
    outcome.await.map_err(|_| anyhow!("the thread in the node's network ended early"))?
}

/// Has wrk send requests for some seconds, from inside the node's network; its report.
pub(crate) async fn wrk(cluster: &Cluster, url: &str, seconds: u64) -> anyhow::Result<String> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace(cluster).display())).arg("wrk");
    report_of(command, url, seconds).await
}

/// The same from this machine's network.
pub(crate) async fn wrk_here(url: &str, seconds: u64) -> anyhow::Result<String> {
    report_of(Command::new("wrk"), url, seconds).await
}

async fn report_of(mut command: Command, url: &str, seconds: u64) -> anyhow::Result<String> {
    command.args(["--latency", "-t1"]).args([format!("-c{CONNECTIONS}"), format!("-d{seconds}s"), url.to_owned()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("start wrk")?;
    ensure!(output.status.success(), "wrk: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
