//! What the tests stand on: a containerd of their own in a temporary directory, a busybox image made by umoci, network
//! namespaces, and the removal of all of it, whatever happens.

#![allow(dead_code, clippy::unwrap_used, reason = "tests, each of which uses a part")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Runtime as Tokio;
use tokio::sync::{OnceCell, watch};
use wherry_containers::{ContainerOptions, ContainerRuntime, Containerd, ContainerdOptions};
use wherry_images::{Images, Silent};
use wherry_runtime::conformance::Loopback;
use wherry_runtime::{
    ContainerId, ContainerSpec, ContainerState, Image, Limits, Output, PodNetwork, PodRef, Runtime, Security, Signal,
    SocketFamily, SocketKind, Stream,
};

/// Outlives every test's own runtime, so that what belongs to a [`Node`] can be ended after the test.
static TOKIO: LazyLock<Tokio> = LazyLock::new(|| Tokio::new().unwrap());

/// Whether containers can be run here. Says why not.
pub(crate) fn possible() -> bool {
    let missing: Vec<&str> =
        ["containerd", "runc", "umoci", "busybox"].into_iter().filter(|tool| find(tool).is_none()).collect();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return false;
    }
    if !missing.is_empty() {
        eprintln!("SKIPPED: not installed: {}", missing.join(", "));
        return false;
    }
    true
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|path| path.is_file())
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A containerd with our runtime, in a directory of its own.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    containerd: Option<Containerd>,
    runtime: Option<Arc<ContainerRuntime>>,
    image: OnceCell<Arc<Image>>,
    _temp: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        let options = ContainerdOptions::new(dir.join("data"));
        let containerd = TOKIO.spawn(Containerd::start(options)).await.unwrap().unwrap();
        let mut node = Self { dir, containerd: Some(containerd), runtime: None, image: OnceCell::new(), _temp: temp };
        node.connect().await;
        node
    }

    /// A new life of the agent: the old runtime is dropped.
    pub(crate) async fn connect(&mut self) {
        self.runtime = None;
        let options = ContainerOptions::new(self.socket(), self.dir.join("data/state"));
        self.runtime = Some(TOKIO.spawn(ContainerRuntime::connect(options)).await.unwrap().unwrap());
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.containerd.as_ref().unwrap().socket().to_owned()
    }

    pub(crate) fn runtime(&self) -> Arc<ContainerRuntime> {
        Arc::clone(self.runtime.as_ref().unwrap())
    }

    /// Stops containerd and starts it again, as an update of wherry does.
    pub(crate) async fn restart_containerd(&mut self) {
        self.runtime = None;
        let containerd = self.containerd.take().unwrap();
        TOKIO.spawn(containerd.stop()).await.unwrap();
        let options = ContainerdOptions::new(self.dir.join("data"));
        self.containerd = Some(TOKIO.spawn(Containerd::start(options)).await.unwrap().unwrap());
        self.connect().await;
    }

    pub(crate) fn containerd_pid(&self) -> i32 {
        std::fs::read_to_string(self.dir.join("data/containerd/containerd.pid")).unwrap().trim().parse().unwrap()
    }

    /// busybox, with a user database.
    pub(crate) async fn busybox(&self) -> Arc<Image> {
        let make = async {
            let archive = busybox_archive(&self.dir);
            let images = Images::open(self.dir.join("images"), wherry_images::Options::default()).unwrap();
            images.load(&archive, "test.local/busybox:1", Arc::new(Silent)).await.unwrap()
        };
        Arc::clone(self.image.get_or_init(|| make).await)
    }

    /// A container of busybox that runs a shell script.
    pub(crate) async fn shell(&self, script: &str) -> ContainerSpec {
        let id = fresh_id();
        let uid = id.0[40..].to_owned();
        ContainerSpec {
            pod: PodRef { namespace: "test".into(), name: "pod".into(), uid: uid.clone() },
            cgroup_parent: format!("/wherry/pod{uid}"),
            id,
            name: "main".into(),
            attempt: 0,
            image: self.busybox().await,
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            args: vec![],
            env: vec![],
            working_dir: None,
            mounts: vec![],
            limits: Limits::default(),
            ports: vec![],
            network: Arc::new(Loopback::new([127, 0, 0, 1].into())),
            hostname: "pod".into(),
            security: Security::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
        }
    }

    /// Runs a container to its end: exit code and output.
    pub(crate) async fn run(&self, spec: ContainerSpec) -> (i32, String, String) {
        let (runtime, id, output) = (self.runtime(), spec.id.clone(), Lines::new());
        runtime.create(spec, output.clone()).await.unwrap();
        runtime.start(&id).await.unwrap();
        let exit = runtime.wait(&id).await.unwrap();
        runtime.remove(&id).await.unwrap();
        (exit.code, output.stdout(), output.stderr())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let (runtime, containerd) = (self.runtime.take(), self.containerd.take());
        let clean = async move {
            if let Some(runtime) = runtime {
                for container in runtime.list().await.unwrap_or_default() {
                    if matches!(container.state, ContainerState::Running { .. }) {
                        let _ = runtime.kill(&container.id, Signal::Kill).await;
                        let _ = runtime.adopt(&container.id, Lines::new()).await;
                        let _ = runtime.wait(&container.id).await;
                    }
                    if let Err(error) = runtime.remove(&container.id).await {
                        eprintln!("a container stays behind: {error}");
                    }
                }
            }
            if let Some(containerd) = containerd {
                containerd.stop().await;
            }
        };
        // Not on this thread: it may be one of a test's own runtime.
        let cleaned = std::thread::spawn(|| TOKIO.block_on(clean)).join();
        drop(cleaned);
        let _ = std::fs::remove_dir("/sys/fs/cgroup/memory/wherry");
    }
}

pub(crate) fn fresh_id() -> ContainerId {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    ContainerId(format!("{:08x}{:08x}{:048x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed), now))
}

/// An OCI archive of busybox-static by umoci.
pub(crate) fn busybox_archive(dir: &Path) -> PathBuf {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (layout, bundle, archive) = (path("layout"), path("bundle"), path("busybox.tar"));
    let tagged = format!("{layout}:busybox");
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &tagged]);
    run("umoci", &["unpack", "--image", &tagged, &bundle]);
    let rootfs = Path::new(&bundle).join("rootfs");
    for name in ["bin", "etc", "tmp", "data"] {
        std::fs::create_dir_all(rootfs.join(name)).unwrap();
    }
    std::fs::copy(find("busybox").unwrap(), rootfs.join("bin/busybox")).unwrap();
    for applet in
        ["sh", "cat", "sleep", "id", "ls", "hostname", "pwd", "env", "kill", "touch", "head", "ip", "test", "yes"]
    {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/data:/bin/sh\n").unwrap();
    std::fs::write(rootfs.join("etc/group"), "root:x:0:\napp:x:1001:\nstaff:x:50:app\n").unwrap();
    run("umoci", &["repack", "--image", &tagged, &bundle]);
    run(
        "umoci",
        &[
            "config",
            "--image",
            &tagged,
            "--config.cmd",
            "/bin/sh",
            "--config.env",
            "FROM_IMAGE=yes",
            "--config.workingdir",
            "/data",
        ],
    );
    run("tar", &["-C", &layout, "-cf", &archive, "."]);
    PathBuf::from(archive)
}

/// An output that can be waited on.
pub(crate) struct Lines {
    text: watch::Sender<(String, String)>,
}

impl Lines {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { text: watch::Sender::new(Default::default()) })
    }

    pub(crate) fn stdout(&self) -> String {
        self.text.borrow().0.clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.text.borrow().1.clone()
    }

    /// Waits until stdout contains `text`.
    pub(crate) async fn says(&self, text: &str) {
        self.text.subscribe().wait_for(|(stdout, _)| stdout.contains(text)).await.unwrap();
    }
}

#[async_trait]
impl Output for Lines {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        self.text.send_modify(|text| {
            let text = if stream == Stream::Stdout { &mut text.0 } else { &mut text.1 };
            text.push_str(&String::from_utf8_lossy(&bytes));
        });
    }
}

/// A network namespace made by `ip netns add`, removed when dropped.
pub(crate) struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    pub(crate) fn new() -> Arc<Self> {
        let name = format!("wherry-test-{}", &fresh_id().0[40..]);
        run("ip", &["netns", "add", &name]);
        let namespace = Self { path: Path::new("/run/netns").join(&name), name };
        run("ip", &["-n", &namespace.name, "link", "set", "lo", "up"]);
        run("ip", &["-n", &namespace.name, "link", "add", "pod0", "type", "veth", "peer", "name", "pod1"]);
        Arc::new(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[async_trait]
impl PodNetwork for Namespace {
    fn ips(&self) -> &[IpAddr] {
        &[]
    }

    fn namespace(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn socket(&self, _: SocketFamily, _: SocketKind) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        Ok(addr)
    }

    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        Ok(addr)
    }

    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}
