//! What the containers of a Pod have in common.

use std::process::Command;

use anyhow::ensure;
use wherry_test::{Cluster, PATIENCE, is_root, root};

use crate::options;

#[test]
fn containers_of_a_pod_share_memory_ipc_and_localhost() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(options())?;
    let kubectl = cluster.kubectl();
    let tar = cluster.scratch().join("busybox.tar");
    let made = Command::new(root().join("samples/image.sh"))
        .arg(&tar)
        .args(["/bin/busybox", "/bin/busybox=/bin/busybox"])
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    cluster.load(&tar, "a.test/busybox:1")?;
    let container = |name: &str, script: &str| {
        let script = format!("b=/bin/busybox; {script}");
        serde_json::json!({"name": name, "image": "a.test/busybox:1", "command": ["/bin/busybox", "sh", "-c", script]})
    };
    // The pipe is known to both once the first has made it; an open waits for the other side.
    let ids = "$b readlink /proc/self/ns/ipc; $b readlink /proc/self/ns/net; $b readlink /proc/self/ns/uts";
    let writer =
        container("writer", &format!("$b mkfifo /dev/shm/pipe; {ids}; echo over shared memory > /dev/shm/pipe"));
    let reader = container(
        "reader",
        &format!("until [ -p /dev/shm/pipe ]; do $b usleep 20000; done; {ids}; $b cat /dev/shm/pipe; $b df /dev/shm"),
    );
    let spec = serde_json::json!({"restartPolicy": "Never", "containers": [writer, reader]});
    kubectl.apply(
        &serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pair"}, "spec": spec}).to_string(),
    )?;
    kubectl.wait("--for=jsonpath={.status.phase}=Succeeded pod/pair", PATIENCE)?;
    let lines = |name: &str| -> anyhow::Result<Vec<String>> {
        Ok(kubectl.ok(&format!("logs pair -c {name}"))?.lines().map(str::to_owned).collect())
    };
    let (writer, reader) = (lines("writer")?, lines("reader")?);
    assert_eq!(writer[..2], reader[..2]);
    let own = std::fs::read_link("/proc/self/ns/ipc")?;
    assert_ne!(writer[0], own.display().to_string(), "the Pod's, not the node's");
    assert_eq!(reader[3], "over shared memory");
    assert!(reader.last().is_some_and(|line| line.contains("65536")), "{reader:?}");
    Ok(())
}
