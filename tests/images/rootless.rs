//! Clusters that run WebAssembly only: without root, and without containerd.

use wherry_test::{Cluster, Options, PATIENCE, Registry, RegistryOptions, echo_image, get, is_root, sample};

use crate::options;
use crate::pods::{event, push, ready, run, run_with, waits};

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// What an ordinary user of Debian has: neither `nft` nor `runc` is in it.
const USERS_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Wasm runs, is found by its Service's name, and answers on this machine; a container Pod waits and says why.
fn runs_wasm_only(options: Options, note: &str) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(options)?;
    let (kubectl, registry) = (cluster.kubectl(), Registry::start()?);
    let output = cluster.process().map(wherry_test::Child::output).unwrap_or_default();
    assert!(output.contains(note) && output.contains("(1 node, WebAssembly)"), "{output}");
    assert_eq!(kubectl.ok("get nodes -l wherry.dev/containers=false,wherry.dev/wasm=true -o name")?, "node/wherry-0\n");

    let (wasm, container) = (registry.reference("echo:wasm"), registry.reference("echo:container"));
    push(&cluster, &sample("echo"), &wasm)?;
    push(&cluster, &echo_image()?, &container)?;
    cluster.load(&sample("guestbook"), "samples.wherry.dev/guestbook:1")?;
    run(&kubectl, "waits", &container, "Always")?;
    let manifest = std::fs::read_to_string(wherry_test::root().join("samples/echo/wasm.yaml"))?;
    kubectl.apply(&manifest.replace("samples.wherry.dev/echo:wasm", &wasm))?;
    kubectl.wait("--for=condition=Available deployment/echo-wasm", PATIENCE)?;
    let answer = get(&cluster.open_url("echo-wasm")?, "/")?;
    assert!(answer.status == 200 && answer.body.ends_with(" wasm\n"), "{answer:?}");

    // The guestbook finds echo by name where it looks for redis; what answers there is no redis.
    kubectl.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guest", "labels": {"app": "guest"}}, "spec": {"containers": [
            {"name": "c", "image": "samples.wherry.dev/guestbook:1", "env": [{"name": "REDIS", "value": "echo-wasm.default.svc:80"}]}]}}"#,
    )?;
    kubectl.ok("expose pod guest --type=NodePort --port=80 --target-port=8080")?;
    ready(&kubectl, "guest")?;
    let answer = get(&cluster.open_url("guest")?, "/")?;
    assert!(
        answer.status == 502 && answer.body.contains("redis: ") && !answer.body.contains("no such name"),
        "{answer:?}"
    );

    event(
        &kubectl,
        "waits",
        &["FailedScheduling", "0/1 nodes are available: 1 node(s) can't run containers (no containerd or no root)."],
    )?;
    assert_eq!(kubectl.ok("get pod waits -o jsonpath={.status.phase}")?, "Pending");

    // What the scheduler cannot know, for want of the password, the node says.
    let private =
        Registry::start_with(&RegistryOptions { user: Some(("jane".to_owned(), "s3cret".to_owned())), tls: false })?;
    let docker =
        format!("{{\"auths\": {{{:?}: {{\"username\": \"jane\", \"password\": \"s3cret\"}}}}}}", private.host());
    std::fs::write(cluster.scratch().join("config.json"), docker)?;
    let (image, tar) = (private.reference("echo:1"), cluster.within_reach(&echo_image()?)?);
    let pushed =
        cluster.wherry(&["image", "push"]).arg(tar).arg(&image).env("DOCKER_CONFIG", cluster.scratch()).output()?;
    assert!(pushed.status.success(), "{pushed:?}");
    kubectl.ok(&format!(
        "create secret docker-registry jane --docker-server={} --docker-username=jane --docker-password=s3cret",
        private.host()
    ))?;
    run_with(&kubectl, "private", &image, "Always", &["jane"])?;
    let message = waits(&kubectl, "private", "CreateContainerError")?;
    assert!(message.contains("containerd"), "{message}");
    kubectl.ok("delete pod private")?;

    // A second life takes up the same cluster.
    cluster.stop()?;
    assert!(left_of(&cluster).is_empty(), "{:?}", left_of(&cluster));
    cluster.resume()?;
    kubectl.wait("--for=condition=Available deployment/echo-wasm", PATIENCE)?;
    ready(&cluster.kubectl(), "guest")?;
    let helper = children(&cluster);
    cluster.kill()?;
    for pid in helper {
        gone(pid)?;
    }
    assert!(left_of(&cluster).is_empty(), "{:?}", left_of(&cluster));
    Ok(())
}

/// Processes whose command line names the cluster's directory, and mounts below it.
fn left_of(cluster: &Cluster) -> Vec<String> {
    let dir = cluster.scratch().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&dir).then_some(line)
    });
    mounts.chain(processes).collect()
}

/// The helper processes of the cluster.
fn children(cluster: &Cluster) -> Vec<u32> {
    let Some(parent) = cluster.process().map(wherry_test::Child::id) else { return Vec::new() };
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Waits until a process that is not ours to wait for has ended.
fn gone(pid: u32) -> anyhow::Result<()> {
    let mut command = std::process::Command::new("timeout");
    let status =
        command.args(["20", "tail", "--sleep-interval=0.1", "-f", "/dev/null", &format!("--pid={pid}")]).status()?;
    anyhow::ensure!(status.success(), "process {pid} outlived the cluster");
    Ok(())
}

#[test]
fn a_user_without_root_runs_webassembly() -> anyhow::Result<()> {
    if !is_root("becoming another user") {
        return Ok(());
    }
    let mut options = options();
    options.user = Some(NOBODY);
    options.environment = vec![("PATH".to_owned(), USERS_PATH.to_owned())];
    runs_wasm_only(options, "note: without root this cluster runs WebAssembly only")
}

#[test]
fn root_without_containerd_runs_webassembly() -> anyhow::Result<()> {
    if !is_root("a cluster in namespaces") {
        return Ok(());
    }
    // In mounts of its own, where nothing lies at containerd's place.
    let dir = tempfile::tempdir()?;
    let hidden = dir.path().join("wherry");
    let mut options = options();
    let inside = "mount --bind /dev/null \"$(command -v containerd)\" && exec \"$@\"";
    std::fs::write(
        &hidden,
        format!("#!/bin/sh\nexec unshare --mount sh -c '{inside}' sh {} \"$@\"\n", options.binary.display()),
    )?;
    std::fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    options.binary = hidden;
    runs_wasm_only(options, "note: this cluster runs WebAssembly only: containerd is not installed")
}

#[test]
fn more_nodes_need_root() -> anyhow::Result<()> {
    if !is_root("becoming another user") {
        return Ok(());
    }
    let mut options = options();
    options.user = Some(NOBODY);
    options.nodes = 2;
    let Err(error) = Cluster::start(options) else { anyhow::bail!("it started") };
    let text = format!("{error:#}");
    assert!(text.contains("error: --nodes 2: without root there can be 1 only"), "{text}");
    Ok(())
}
