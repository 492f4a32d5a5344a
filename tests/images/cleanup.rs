//! What a Pod with a container leaves behind when it is deleted: nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use wherry_test::{Cluster, PATIENCE, echo_image, is_root, until};

use crate::containerd::ctr;
use crate::options;
use crate::pods::{ready, run};

#[test]
fn a_deleted_pod_leaves_nothing_on_the_node() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let mut cluster = Cluster::start(options())?;
    let kubectl = cluster.kubectl();
    let socket = cluster.data_dir().join("containerd/containerd/containerd.sock");
    cluster.load(&echo_image()?, "a.test/echo:1")?;
    let layers = {
        run(&kubectl, "first", "a.test/echo:1", "Never")?;
        ready(&kubectl, "first")?;
        kubectl.ok("delete pod first")?;
        ctr(&socket, "-n wherry-0 snapshots ls")?
    };
    run(&kubectl, "pod", "a.test/echo:1", "Never")?;
    ready(&kubectl, "pod")?;
    let uid = kubectl.ok("get pod pod -o jsonpath={.metadata.uid}")?;
    let ip = kubectl.ok("get pod pod -o jsonpath={.status.podIP}")?;
    let found = traces(&cluster, &uid, &ip)?;
    assert!(found.iter().any(|trace| trace.contains("cgroup")), "{found:?}");
    assert!(found.iter().any(|trace| trace.contains("/network/")), "{found:?}");
    assert!(found.iter().any(|trace| trace.starts_with("link")), "{found:?}");
    assert_eq!(ctr(&socket, "-n wherry-0 tasks ls -q")?.len(), 1);
    assert_eq!(ctr(&socket, "-n wherry-0 snapshots ls")?.len(), layers.len() + 1);

    kubectl.ok("delete pod pod")?;
    assert_eq!(traces(&cluster, &uid, &ip)?, Vec::<String>::new());
    for list in ["tasks ls -q", "containers ls -q"] {
        assert_eq!(ctr(&socket, &format!("-n wherry-0 {list}"))?, Vec::<String>::new());
    }
    assert_eq!(ctr(&socket, "-n wherry-0 snapshots ls")?, layers, "its layers are kept for the next, its own is not");
    // containerd removes the files of what is gone later, by itself.
    let kept = layers.len() - 1;
    until(PATIENCE, || match std::fs::read_dir(cluster.snapshots())?.count() {
        files if files == kept => Ok(Ok(())),
        files => Ok(Err(format!("files of {files} snapshots, not {kept}"))),
    })?;

    // A Pod that runs when the cluster is stopped goes with it.
    run(&kubectl, "last", "a.test/echo:1", "Never")?;
    ready(&kubectl, "last")?;
    let last = kubectl.ok("get pod last -o jsonpath={.metadata.uid}")?;
    cluster.stop()?;
    assert_eq!(cgroups(&last), Vec::<PathBuf>::new());
    // Its logs go once the API has forgotten it.
    let mut found = Vec::new();
    walk(&cluster.data_dir().join("nodes"), &uid, &mut found);
    assert_eq!(found, Vec::<String>::new());
    let dir = cluster.scratch().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&dir), "{mounts}");
    Ok(())
}

/// Files, cgroups and links of a Pod.
fn traces(cluster: &Cluster, uid: &str, ip: &str) -> anyhow::Result<Vec<String>> {
    let mut found: Vec<String> = cgroups(uid).into_iter().map(|path| path.display().to_string()).collect();
    walk(&cluster.data_dir().join("network"), uid, &mut found);
    walk(&cluster.data_dir().join("containerd"), uid, &mut found);
    let namespace = format!("--net={}", cluster.data_dir().join("network/nodes/wherry-0").display());
    let links = Command::new("nsenter").args([&namespace, "ip", "-o", "link"]).output()?;
    let name = format!("wp{:08x}", u32::from(ip.parse::<std::net::Ipv4Addr>()?));
    let links = String::from_utf8(links.stdout)?;
    assert!(links.contains("eth0"), "{links}");
    found.extend(links.lines().filter(|line| line.contains(&name)).map(|line| format!("link {line}")));
    Ok(found)
}

/// The Pod's cgroups: `.../wherry/pod<uid>` below the one mount of v2 or the several of v1.
fn cgroups(uid: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = controllers.chain([root.to_owned()]);
    places.map(|place| place.join("wherry").join(format!("pod{uid}"))).filter(|path| path.exists()).collect()
}

/// Paths below a directory whose name holds the text.
fn walk(dir: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(text) {
            found.push(path.display().to_string());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, text, found);
        }
    }
}
