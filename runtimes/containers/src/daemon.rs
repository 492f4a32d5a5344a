//! A containerd of our own.
//!
//! # Flow
//! write its config → spawn → it says `READY=1` on a notification socket (as it does to systemd) → it serves until
//! [`Containerd::stop`]. Dies it before, it is started again; its containers have shims of their own and live on.
//!
//! # Guarantees
//! - It ends with us: politely by `stop`, and by a parent-death signal when we are killed. One that an earlier life
//!   left behind all the same is told to end first; the new one waits for its database.
//! - Everything of it lies under the data directory, apart from the socket where that path would be too long.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::net::UnixDatagram;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::Backoff;

/// Bounds a start that hangs; it takes well under a second.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a polite end may take before it is enforced.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// `sun_path` has 108 bytes; containerd appends `.ttrpc`.
const MAX_SOCKET_PATH: usize = 100;
const MAX_LOG: u64 = 8 << 20;

/// How to run a containerd of our own.
#[derive(Clone, Debug)]
pub struct ContainerdOptions {
    /// Where it keeps everything; absolute.
    pub data_dir: PathBuf,
    /// The binary: a path, or a name to look for in `PATH`.
    pub binary: PathBuf,
}

impl ContainerdOptions {
    /// `containerd` from `PATH`, keeping everything under `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), binary: "containerd".into() }
    }
}

/// Why containerd could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// There is none.
    #[error("{} is not installed: install containerd and runc, or name a running one by --containerd", .0.display())]
    NotInstalled(PathBuf),
    /// The system refused something.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("containerd ended while starting; the end of its log: {0}")]
    Ended(String),
    /// It did not become ready.
    #[error("containerd was not ready in time; the end of its log: {0}")]
    Stuck(String),
}

fn io_error<P: AsRef<Path>>(action: &'static str, path: P) -> impl FnOnce(io::Error) -> ContainerdError {
    move |source| ContainerdError::Io { action, path: path.as_ref().to_owned(), source }
}

/// A running containerd, owned by us.
pub struct Containerd {
    socket: PathBuf,
    stop: CancellationToken,
    supervisor: Option<JoinHandle<()>>,
}

impl Containerd {
    /// Starts it and waits until it serves.
    pub async fn start(options: ContainerdOptions) -> Result<Self, ContainerdError> {
        let home = Home::prepare(&options)?;
        let process = home.launch().await?;
        let socket = home.socket.clone();
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(home, process, stop.clone()));
        Ok(Self { socket, stop, supervisor: Some(supervisor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it and waits until it has ended. Its containers go on, held by their shims, and are adopted by the next one.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.await;
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn supervise(home: Home, mut process: Process, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return process.end().await,
            () = process.ended() => tracing::warn!(log = %home.log_tail(), "containerd ended; starting it again"),
        }
        let mut backoff = Backoff::new();
        process = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = backoff.wait() => {}
            }
            match home.launch().await {
                Ok(process) => break process,
                Err(error) => tracing::error!(%error, "containerd does not start"),
            }
        };
        tracing::info!("containerd is back");
    }
}

/// Its files.
struct Home {
    binary: PathBuf,
    dir: PathBuf,
    socket: PathBuf,
}

impl Home {
    fn prepare(options: &ContainerdOptions) -> Result<Self, ContainerdError> {
        use std::os::unix::fs::DirBuilderExt;
        let make =
            |dir: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir));
        let binary = find(&options.binary).ok_or_else(|| ContainerdError::NotInstalled(options.binary.clone()))?;
        let dir = options.data_dir.join("containerd");
        make(&dir)?;
        let mut socket = dir.join("containerd.sock");
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            let hash = hex::encode(Sha256::digest(dir.as_os_str().as_encoded_bytes()));
            let run = Path::new("/run/wherry").join(&hash[..16]);
            make(&run)?;
            socket = run.join("containerd.sock");
        }
        let home = Self { binary, dir, socket };
        fs::write(home.config_path(), home.config()).map_err(io_error("write", home.config_path()))?;
        if fs::metadata(home.log_path()).is_ok_and(|meta| meta.len() > MAX_LOG) {
            let old = home.dir.join("containerd.log.1");
            fs::rename(home.log_path(), &old).map_err(io_error("rename the log to", old))?;
        }
        home.end_leftover();
        Ok(home)
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }

    fn pid_path(&self) -> PathBuf {
        self.dir.join("containerd.pid")
    }

    /// Only what we use: no CRI, no snapshotters that need devices of their own, no plugins from the disk.
    fn config(&self) -> String {
        let text = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
        let dir = |name: &str| text(&self.dir.join(name));
        format!(
            r#"version = 2
root = {root}
state = {state}
# Never lower than our own: containers and their shims follow from it.
oom_score = 0
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.podsandbox.controller.v1.podsandbox",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri",
]

[grpc]
  address = {socket}

[debug]
  level = "warn"

# Files of a snapshot go when it is collected. By default that waits for a hundred changes of anything, which an idle node never makes;
# here it follows a deletion, but takes no more than two hundredths of the time (the default).
[plugins."io.containerd.gc.v1.scheduler"]
  deletion_threshold = 1
  schedule_delay = "100ms"
"#,
            root = dir("root"),
            state = dir("state"),
            socket = text(&self.socket),
        )
    }

    /// A containerd that outlived an earlier life of ours gives way. The new one waits for its database's lock.
    fn end_leftover(&self) {
        let Some(pid) = fs::read_to_string(self.pid_path())
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok())
            .filter(|pid| *pid > 1)
        else {
            return;
        };
        let config = self.config_path();
        let ours = fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).any(|word| word == config.as_os_str().as_encoded_bytes()));
        if ours {
            tracing::warn!(pid, "ending the containerd of an earlier life");
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Spawns it and waits until it says that it serves.
    async fn launch(&self) -> Result<Process, ContainerdError> {
        let notify_path = self.socket.with_file_name("notify.sock");
        remove(&notify_path).map_err(io_error("remove", &notify_path))?;
        let notify = UnixDatagram::bind(&notify_path).map_err(io_error("listen on", &notify_path))?;
        let mut process = self.spawn(&notify_path).await?;
        let limit = tokio::time::sleep(START_LIMIT);
        tokio::pin!(limit);
        let mut message = [0; 512];
        loop {
            tokio::select! {
                received = notify.recv(&mut message) => {
                    let length = received.map_err(io_error("read from", &notify_path))?;
                    if message[..length].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                        return Ok(process);
                    }
                }
                () = process.ended() => return Err(ContainerdError::Ended(self.log_tail())),
                () = &mut limit => {
                    process.end().await;
                    return Err(ContainerdError::Stuck(self.log_tail()));
                }
            }
        }
    }

    async fn spawn(&self, notify: &Path) -> Result<Process, ContainerdError> {
        let log_path = self.log_path();
        let log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(io_error("open", &log_path))?;
        let twin = log.try_clone().map_err(io_error("open", &log_path))?;
        let mut command = match find(Path::new("setpriv")) {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM", "--"]).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        // A Ctrl-C in the terminal goes to the whole group: containerd has to outlive it until we stop it.
        command.process_group(0);
        command
            .arg("--config")
            .arg(self.config_path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(twin)
            .env("NOTIFY_SOCKET", notify)
            .env("PATH", search_path());
        let process = Process::spawn(command).await.map_err(io_error("run", &self.binary))?;
        fs::write(self.pid_path(), process.pid.to_string()).map_err(io_error("write", self.pid_path()))?;
        Ok(process)
    }

    /// The last lines of the log, on one.
    fn log_tail(&self) -> String {
        let read = || {
            let mut log = fs::File::open(self.log_path())?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(1500)))?;
            let mut bytes = Vec::new();
            log.take(1500).read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }
}

/// A child that is waited for by a thread of its own: the parent-death signal is tied to the thread that spawns, so that
/// thread must live as long as the child.
struct Process {
    pid: Pid,
    /// Whether it is still ours to signal: false once it is reaped and its number may be another's.
    alive: Arc<Mutex<bool>>,
    ended: oneshot::Receiver<()>,
}

impl Process {
    async fn spawn(mut command: Command) -> io::Result<Self> {
        let (started, start) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let alive = Arc::new(Mutex::new(true));
        let shared = Arc::clone(&alive);
        std::thread::Builder::new().name("containerd".into()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(e) => return drop(started.send(Err(e))),
            };
            let pid = Pid::from_raw(child.id().cast_signed());
            let _ = started.send(Ok(pid));
            while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            {
            }
            let mut alive = shared.lock();
            let _ = child.wait();
            *alive = false;
            let _ = end.send(());
        })?;
        let pid = start.await.map_err(|_| io::Error::other("the thread that runs it ended"))??;
        Ok(Self { pid, alive, ended })
    }

    /// Resolves when it has ended. Not to be called again after that.
    async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }

    fn signal(&self, signal: Signal) {
        let alive = self.alive.lock();
        if *alive {
            let _ = kill(self.pid, signal);
        }
    }

    async fn end(mut self) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(STOP_LIMIT, &mut self.ended).await.is_err() {
            tracing::warn!("containerd does not end; killing it");
            self.signal(Signal::SIGKILL);
            let _ = (&mut self.ended).await;
        }
    }
}

impl Drop for Process {
    /// Nobody waits for it any more: the runtime we were in has ended.
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
    }
}

/// `PATH` with the directories where runc and the shim are, which a user's may lack.
fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

fn find(binary: &Path) -> Option<PathBuf> {
    if binary.components().count() > 1 {
        return binary.is_file().then(|| binary.to_owned());
    }
    std::env::split_paths(&search_path()).map(|dir| dir.join(binary)).find(|path| path.is_file())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
