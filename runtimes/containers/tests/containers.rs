//! What containers do beyond the conformance suite, with a real containerd, runc, cgroups and namespaces.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal as UnixSignal, kill};
use nix::unistd::Pid;
use wherry_runtime::{
    ContainerId, ContainerSpec, ContainerState, Limits, Mount, Runtime, RuntimeError, Security, Signal, collect,
};

use support::{Lines, Namespace, Node};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn a_container_sees_what_its_spec_says() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let (volume, file) = (node.dir.join("volume"), node.dir.join("hosts"));
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("in"), "from the node").unwrap();
    fs::write(&file, "10.0.0.1 pod\n").unwrap();
    let script = "hostname; pwd; cat /volume/in /etc/hosts; echo $FROM_IMAGE $FROM_SPEC; id -u; id -g; id -G; \
                  echo back > /volume/out; touch /read-only 2>/dev/null || echo refused; { echo x > /etc/hosts; } 2>/dev/null || echo refused; \
                  cat /proc/1/oom_score_adj; ls /sys/fs/cgroup > /dev/null && echo cgroups";
    let mount = |source: &Path, target: &str, read_only| Mount {
        source: source.into(),
        target: target.into(),
        read_only,
        ..Mount::default()
    };
    let spec = ContainerSpec {
        env: vec![("FROM_SPEC".into(), "also".into())],
        mounts: vec![mount(&volume, "/volume", false), mount(&file, "/etc/hosts", true)],
        security: Security { read_only_root: true, supplemental_groups: vec![7], ..Security::default() },
        hostname: "pod-0".into(),
        ..node.shell(script).await
    };
    let (code, stdout, stderr) = node.run(spec).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "pod-0",
            "/data",
            "from the node10.0.0.1 pod",
            "yes also",
            "0",
            "0",
            "0 7",
            "refused",
            "refused",
            "1000",
            "cgroups"
        ]
    );
    assert_eq!(fs::read_to_string(volume.join("out")).unwrap(), "back\n");
}

#[tokio::test]
async fn users_come_from_the_image_and_capabilities_from_the_spec() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let status = "id -u; id -g; id -G; while read name value; do case $name in CapEff:|CapBnd:) echo $value;; esac; done < /proc/self/status";
    let mut spec = node.shell(status).await;
    let mut image = (*spec.image).clone();
    image.user = Some("app".into());
    spec.image = Arc::new(image);
    spec.security.drop_capabilities = words(&["ALL"]);
    spec.security.add_capabilities = words(&["NET_BIND_SERVICE"]);
    let (_, stdout, _) = node.run(spec).await;
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines, ["1000", "1001", "1001 50", "0000000000000000", "0000000000000400"]);
}

#[tokio::test]
async fn a_container_is_in_its_pods_network_namespace() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let namespace = Namespace::new();
    let spec = ContainerSpec { network: namespace.clone(), ..node.shell("cat /proc/net/dev").await };
    let (_, stdout, _) = node.run(spec).await;
    assert!(stdout.contains("pod0:"), "the Pod's interface is not there: {stdout}");
    let (_, stdout, _) = node.run(node.shell("cat /proc/net/dev").await).await;
    assert!(!stdout.contains("pod0:"));
}

#[tokio::test]
async fn limits_reach_the_kernel_and_nothing_stays_behind() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let runtime = node.runtime();
    let limits = Limits { cpu_millis: Some(200), cpu_request_millis: Some(100), memory_bytes: Some(64 << 20) };
    let spec = ContainerSpec { limits, ..node.shell("echo up; while :; do :; done").await };
    let (id, output) = (spec.id.clone(), Lines::new());
    let group = format!("{}/{id}", spec.cgroup_parent.trim_start_matches('/'));
    let parent = spec.cgroup_parent.trim_start_matches('/').to_owned();
    runtime.create(spec, output.clone()).await.unwrap();
    runtime.start(&id).await.unwrap();
    output.says("up").await;
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let root = |controller: &str| if v2 { "/sys/fs/cgroup".into() } else { format!("/sys/fs/cgroup/{controller}") };
    let read = |controller: &str, file: &str| {
        fs::read_to_string(format!("{}/{group}/{file}", root(controller))).unwrap().trim().to_owned()
    };
    if v2 {
        assert_eq!((read("", "memory.max"), read("", "cpu.max")), ("67108864".into(), "20000 100000".into()));
    } else {
        assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!((read("cpu", "cpu.cfs_quota_us"), read("cpu", "cpu.shares")), ("20000".into(), "102".into()));
    }
    let used = runtime.stats(&id).await.unwrap();
    assert!(used.cpu_nanos > 0 && used.memory.working_set > 0, "{used:?}");

    runtime.kill(&id, Signal::Kill).await.unwrap();
    runtime.wait(&id).await.unwrap();
    assert!(runtime.stats(&id).await.is_err());
    runtime.remove(&id).await.unwrap();
    for controller in ["memory", "cpu"] {
        assert!(!Path::new(&root(controller)).join(&parent).exists(), "the Pod's {controller} group stays");
    }
    assert!(!node.dir.join("data/state").join(&id.0).exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id.0), "a mount stays");
}

#[tokio::test]
async fn commands_run_beside_a_container() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let runtime = node.runtime();
    let spec = ContainerSpec { env: vec![("NAME".into(), "value".into())], ..node.shell("echo up; sleep 3600").await };
    let (id, output) = (spec.id.clone(), Lines::new());
    runtime.create(spec, output.clone()).await.unwrap();
    assert!(matches!(collect(&*runtime, &id, &words(&["/bin/sh"]), 10).await, Err(RuntimeError::WrongState { .. })));
    runtime.start(&id).await.unwrap();
    output.says("up").await;

    let run = |script: &'static str, limit| {
        let runtime = Arc::clone(&runtime);
        let id = id.clone();
        async move { collect(&*runtime, &id, &words(&["sh", "-c", script]), limit).await }
    };
    let done = run("echo $NAME; pwd; echo bad >&2; exit 7", 1000).await.unwrap();
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (7, &b"value\n/data\n"[..], &b"bad\n"[..]));
    let cut = run("yes | head -n 100000", 10).await.unwrap();
    assert_eq!((cut.code, cut.stdout.len()), (0, 10));
    let missing = collect(&*runtime, &id, &words(&["/does/not/exist"]), 10).await;
    assert!(
        matches!(&missing, Err(RuntimeError::InvalidSpec(text)) if text.contains("/does/not/exist")),
        "{missing:?}"
    );

    // A caller that gives up takes its command with it. It is in the container's own output that we see it begin and end.
    let forever = "trap 'echo was told > /proc/1/fd/1' EXIT; echo begun > /proc/1/fd/1; sleep 3600";
    let abandoned = tokio::spawn(run(forever, 10));
    output.says("begun").await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    let (container, wait) = (id.clone(), Arc::clone(&runtime));
    runtime.kill(&id, Signal::Kill).await.unwrap();
    assert_eq!(wait.wait(&container).await.unwrap().code, 137);
    runtime.remove(&id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_says_why_and_has_ended() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let runtime = node.runtime();
    let spec = ContainerSpec { command: words(&["/bin/nothing"]), ..node.shell("").await };
    let id = spec.id.clone();
    runtime.create(spec, Lines::new()).await.unwrap();
    let refused = runtime.start(&id).await;
    assert!(
        matches!(&refused, Err(RuntimeError::InvalidSpec(text)) if text.contains("/bin/nothing") && !text.contains("OCI runtime")),
        "{refused:?}"
    );
    let exit = runtime.wait(&id).await.unwrap();
    assert_eq!(exit.code, 128);
    assert!(exit.message.unwrap().contains("/bin/nothing"));
    runtime.remove(&id).await.unwrap();
}

/// What is removed is collected a moment later; a containerd that is killed in that moment collects it in its next life.
#[tokio::test]
async fn files_of_a_removed_container_go_even_if_containerd_dies_first() {
    if !support::possible() {
        return;
    }
    let mut node = Node::start().await;
    let (id, files) = with_files(&node).await;
    node.runtime().remove(&id).await.unwrap();
    kill(Pid::from_raw(node.containerd_pid()), UnixSignal::SIGKILL).unwrap();
    node.restart_containerd().await;
    eventually(|| !files.exists()).await;
}

/// containerd's scheduler forgets a removal that comes while the files of an earlier one are being removed.
#[tokio::test]
async fn files_of_a_container_go_that_is_removed_while_others_are_collected() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let ((large, its_files), (late, late_files)) = (with_files(&node).await, with_files(&node).await);
    const MANY: usize = 50_000;
    for n in 0..MANY {
        fs::write(its_files.join(format!("fs/{n}")), "").unwrap();
    }
    node.runtime().remove(&large).await.unwrap();
    let left = || fs::read_dir(its_files.join("fs")).map(Iterator::count).unwrap_or(0);
    eventually(|| left() < MANY).await;
    node.runtime().remove(&late).await.unwrap();
    assert_ne!(left(), 0, "the collection was over before the second removal");
    eventually(|| !its_files.exists() && !late_files.exists()).await;
}

/// Makes a container; also the directory of what it writes over its image.
async fn with_files(node: &Node) -> (ContainerId, PathBuf) {
    let snapshots = node.dir.join("data/containerd/root/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let all = || fs::read_dir(&snapshots).into_iter().flatten().flatten().map(|entry| entry.path());
    let spec = node.shell("true").await;
    let id = spec.id.clone();
    // The image is unpacked before the first one.
    node.runtime().prepare(&spec.image, "").await.unwrap();
    let before: HashSet<PathBuf> = all().collect();
    node.runtime().create(spec, Lines::new()).await.unwrap();
    let mut new = all().filter(|path| !before.contains(path));
    let (first, second) = (new.next().unwrap(), new.next());
    assert_eq!(second, None, "one container has one snapshot");
    (id, first)
}

/// Waits for what nothing tells of.
async fn eventually(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "a minute was not enough");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_new_life_adopts_what_runs_and_knows_what_has_ended() {
    if !support::possible() {
        return;
    }
    let mut node = Node::start().await;
    let gate = node.dir.join("gate");
    fs::create_dir(&gate).unwrap();
    nix::unistd::mkfifo(&gate.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mount = Mount { source: gate.clone(), target: "/gate".into(), read_only: false, ..Mount::default() };
    let living = ContainerSpec {
        mounts: vec![mount],
        ..node.shell("echo before; cat /gate/fifo; echo between; cat /gate/fifo; exit 5").await
    };
    let ended = node.shell("exit 4").await;
    let made = node.shell("echo made").await;
    let (living_id, ended_id, made_id) = (living.id.clone(), ended.id.clone(), made.id.clone());
    let pod = living.pod.clone();

    let runtime = node.runtime();
    let output = Lines::new();
    for spec in [living, ended, made] {
        runtime.create(spec, output.clone()).await.unwrap();
    }
    runtime.start(&living_id).await.unwrap();
    runtime.start(&ended_id).await.unwrap();
    let exit = runtime.wait(&ended_id).await.unwrap();
    output.says("before").await;
    let state = |list: &[wherry_runtime::ContainerStatus], id| {
        list.iter().find(|status| &status.id == id).unwrap().state.clone()
    };
    let before = state(&runtime.list().await.unwrap(), &living_id);
    drop(runtime);

    // Nobody reads now; then a new runtime, and a new containerd under it, take over.
    node.connect().await;
    fs::write(gate.join("fifo"), "").unwrap();
    node.restart_containerd().await;
    let runtime = node.runtime();
    let list = runtime.list().await.unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(state(&list, &living_id), before, "it runs on, since the same moment");
    assert_eq!(state(&list, &ended_id), ContainerState::Exited(exit));
    assert_eq!(state(&list, &made_id), ContainerState::Created);
    assert_eq!(list.iter().find(|status| status.id == living_id).unwrap().pod, pod);

    let output = Lines::new();
    runtime.adopt(&living_id, output.clone()).await.unwrap();
    output.says("between").await;
    fs::write(gate.join("fifo"), "last words\n").unwrap();
    assert_eq!(runtime.wait(&living_id).await.unwrap().code, 5);
    assert_eq!(output.stdout(), "between\nlast words\n");

    let output = Lines::new();
    runtime.adopt(&made_id, output.clone()).await.unwrap();
    runtime.start(&made_id).await.unwrap();
    assert_eq!(runtime.wait(&made_id).await.unwrap().code, 0);
    assert_eq!(output.stdout(), "made\n");
    for id in [living_id, ended_id, made_id] {
        runtime.remove(&id).await.unwrap();
    }
    // As of a life that ended before containerd knew of its container, or after it had forgotten it.
    let astray = node.dir.join("data/state").join("a1".repeat(32));
    fs::create_dir(&astray).unwrap();
    nix::unistd::mkfifo(&astray.join("stdout"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    node.connect().await;
    assert!(!astray.exists());
    assert_eq!(node.runtime().list().await.unwrap(), []);
}

#[tokio::test]
async fn containerds_death_is_survived() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let runtime = node.runtime();
    let spec = node.shell("echo up; trap 'exit 9' TERM; echo ready; sleep 3600 & wait").await;
    let (id, output) = (spec.id.clone(), Lines::new());
    runtime.create(spec, output.clone()).await.unwrap();
    runtime.start(&id).await.unwrap();
    output.says("ready").await;
    let waiting = tokio::spawn({
        let (runtime, id) = (Arc::clone(&runtime), id.clone());
        async move { runtime.wait(&id).await }
    });
    let pid = node.containerd_pid();
    kill(Pid::from_raw(pid), UnixSignal::SIGKILL).unwrap();
    // The supervisor starts another one; until it serves, calls fail and may be tried again.
    loop {
        match runtime.kill(&id, Signal::Term).await {
            Ok(()) => break,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap().unwrap().code, 9);
    assert_ne!(node.containerd_pid(), pid);
    runtime.remove(&id).await.unwrap();
}
