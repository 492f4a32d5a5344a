//! A host's process: started, watched by one thread, ended.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sha2::{Digest as _, Sha256};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use wherry_runtime::RuntimeError;

use crate::client::HostOptions;
use crate::entry::Entries;
use crate::network;
use crate::room::Room;
use crate::sandbox::Plan;
use crate::server::HOST_COMMAND;
use crate::wire::{Ask, Fault, Peer, Told};

/// What is passed on of our environment: how much is logged.
const ENVIRONMENT: &str = "WHERRY_LOG";

/// A running host. Dropped, it ends.
pub(crate) struct Host {
    peer: Peer<Ask, Result<Told, Fault>>,
    pub(crate) entries: Arc<Entries>,
    pub(crate) room: Room,
    /// The layers that it has made ready.
    pub(crate) prepared: Mutex<BTreeSet<String>>,
    process: Arc<OwnedFd>,
    ended: watch::Receiver<Option<String>>,
}

/// Why a host did not do what it was asked.
pub(crate) enum Failure {
    /// It has ended, for this reason.
    Ended(String),
    /// It said so.
    Told(RuntimeError),
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Ended(why) => Self::Failed(why),
            Failure::Told(error) => error,
        }
    }
}

impl Host {
    /// Starts the host `name`, which is that of `whom` (a node or a namespace, in words), and waits until it is locked in.
    pub(crate) async fn start(options: &HostOptions, name: &str, whom: &str) -> Result<Arc<Self>, RuntimeError> {
        let whole = format!("the host process of {whom}");
        let failed = |error: io::Error| RuntimeError::Failed(format!("{whole} cannot be started: {error}"));
        let plan = plan(&options.dir.join(name)).map_err(failed)?;
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        let channel = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (our_network, their_network) = channel.map_err(|error| failed(error.into()))?;
        let mut command = Command::new(&options.program);
        command
            .args([HOST_COMMAND, name, &serde_json::to_string(&plan).map_err(|error| failed(error.into()))?])
            .env_clear()
            .envs(std::env::var_os(ENVIRONMENT).map(|value| (ENVIRONMENT, value)))
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(their_network));
        let (entries, (tell, ended)) = (Arc::<Entries>::default(), watch::channel(None));
        let started = run(command, our_network, Arc::clone(&entries), whole.clone(), tell).map_err(failed)?;
        let (pid, process) =
            started.await.map_err(|_| failed(io::Error::other("its thread panicked")))?.map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let peer = Peer::new(UnixStream::from_std(ours).map_err(failed)?, Arc::clone(&entries));
        let process = Arc::new(process);
        let end = Ending { process: Arc::clone(&process), ended };
        if peer.call(&Ask::List, Vec::new()).await.is_err() {
            return Err(RuntimeError::Failed(end.why().await));
        }
        // It has its namespace by now.
        let room = Room::of(pid).map_err(failed)?;
        Ok(Arc::new(Self { peer, entries, room, prepared: Mutex::default(), process, ended: end.ended }))
    }

    /// Asks it. Dropped before the answer, what was asked is given up.
    pub(crate) async fn ask(&self, ask: &Ask, fds: Vec<OwnedFd>) -> Result<Told, Failure> {
        match self.peer.call(ask, fds).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(fault)) => Err(Failure::Told(fault.into())),
            Err(_) => Err(Failure::Ended(self.why().await)),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Why it ended; one that does not answer any more is ended by this.
    pub(crate) async fn why(&self) -> String {
        Ending { process: Arc::clone(&self.process), ended: self.ended.clone() }.why().await
    }

    /// Resolves when it ends.
    pub(crate) async fn ended(&self) -> String {
        self.peer.closed().await;
        self.why().await
    }

    /// Has it end.
    pub(crate) fn close(&self) {
        self.peer.close();
    }
}

/// How a host's end is heard of.
struct Ending {
    process: Arc<OwnedFd>,
    ended: watch::Receiver<Option<String>>,
}

impl Ending {
    async fn why(&self) -> String {
        // Its socket is closed: whatever it does still, it does for nobody.
        let _gone = pidfd_send_signal(&*self.process, Signal::KILL);
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "its thread panicked".to_owned(),
        }
    }
}

type Started = oneshot::Receiver<io::Result<(u32, OwnedFd)>>;

/// Starts the process on a thread of its own, which grants what it wishes of its network, ends with it, and then tells why it
/// ended. The process is the thread's: it ends when this does (`PR_SET_PDEATHSIG`).
fn run(
    mut command: Command,
    channel: OwnedFd,
    entries: Arc<Entries>,
    whole: String,
    tell: watch::Sender<Option<String>>,
) -> io::Result<Started> {
    let (begun, started) = oneshot::channel();
    thread::Builder::new().name("wasm-host".into()).spawn(move || {
        let spawned = command.spawn().and_then(|child| {
            let process = open(&child)?;
            Ok((child, process))
        });
        // Its ends of the sockets are its alone now.
        drop(command);
        let (mut child, process) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                drop(begun.send(Err(error)));
                return;
            }
        };
        drop(begun.send(process.try_clone().map(|process| (child.id(), process))));
        let said = network::serve(&channel, &process, &entries);
        drop(child.kill());
        let status = child.wait();
        let why = said.unwrap_or_else(|| status.map_or_else(|error| error.to_string(), words));
        let why = format!("{whole} ended: {why}");
        tracing::info!("{why}");
        tell.send_replace(Some(why));
    })?;
    Ok(started)
}

fn open(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => status.to_string(),
    }
}

/// Makes the directories of a host.
fn plan(dir: &Path) -> io::Result<Plan> {
    let uid = user(dir);
    let plan = Plan { uid, root: dir.join("root"), cache: dir.join("cache") };
    for (path, mode) in [(&plan.root, 0o755), (&plan.cache, 0o700)] {
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
    }
    chown(&plan.cache, Some(uid), Some(uid))?;
    // Others find neither.
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(plan)
}

/// The user of a host: always the same for its directory, since files in volumes are its own, and no other's: one of 2^30 users
/// that systems do not give out.
fn user(dir: &Path) -> u32 {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let number = digest.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
    (1 << 30) | (number >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_their_hosts_own() {
        let (a, b) = (user(Path::new("/data/hosts/a")), user(Path::new("/data/hosts/b")));
        assert_eq!(a, user(Path::new("/data/hosts/a")));
        assert!(a != b && [a, b].iter().all(|user| (1 << 30..=i32::MAX.unsigned_abs()).contains(user)));
    }
}
