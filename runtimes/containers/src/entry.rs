//! One container as we know it: its identity, its state, and the task that waits for its end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::WaitRequest;
use containerd_client::types;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use wherry_runtime::{
    Attachers, ContainerId, ContainerState, ContainerStatus, Exit, Handle, Output, PodRef, RuntimeError, User,
};

use crate::cgroup::Cgroups;
use crate::client::{Backoff, Client, is_lost};
use crate::journal::{Journal, Past};
use crate::stdio::{Fifos, Pumps};

/// The exit code of a container that could not be started, and of one whose end nobody saw: Kubernetes' own.
pub(crate) const START_ERROR: i32 = 128;
const UNSEEN: i32 = 255;

pub(crate) struct Entry {
    pub(crate) id: ContainerId,
    pub(crate) pod: PodRef,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) stop_signal: u32,
    /// Relative to each controller's root.
    pub(crate) cgroup: String,
    /// Who it runs as; none where an earlier life's record of it cannot be read.
    pub(crate) user: Option<User>,
    pub(crate) fifos: Fifos,
    pub(crate) journal: Journal,
    /// Where its root filesystem is mounted from; asked of containerd again where an earlier life made it.
    pub(crate) rootfs: Vec<types::Mount>,
    /// Keeps the sources of its mounts where its spec says, until it has been started and has mounts of its own.
    pub(crate) sources: Mutex<Vec<Handle>>,
    /// Held by whoever changes its state.
    pub(crate) change: tokio::sync::Mutex<()>,
    pub(crate) state: watch::Sender<ContainerState>,
    /// Where its output goes, until it is started.
    pub(crate) output: Mutex<Option<Arc<dyn Output>>>,
    /// What copies its output, until its end is reported.
    pub(crate) pumps: Mutex<Option<Pumps>>,
    /// Who else gets its output.
    pub(crate) attachers: Arc<Attachers>,
}

impl Entry {
    pub(crate) fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            pod: self.pod.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            state: self.state.borrow().clone(),
        }
    }

    pub(crate) fn wrong_state(&self, problem: &str) -> RuntimeError {
        let state = match *self.state.borrow() {
            ContainerState::Created => "created",
            ContainerState::Running { .. } => "running",
            ContainerState::Exited(_) => "exited",
        };
        RuntimeError::WrongState { id: self.id.clone(), state, problem: problem.to_owned() }
    }

    pub(crate) fn is_created(&self) -> bool {
        matches!(*self.state.borrow(), ContainerState::Created)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), ContainerState::Running { .. })
    }

    pub(crate) fn remember(&self, past: &Past) {
        if let Err(error) = self.journal.write(past) {
            tracing::warn!(container = %self.id, %error, "can't note a container's state; a restart of the agent may report it less exactly");
        }
    }

    /// Makes its end known.
    pub(crate) fn exited(&self, exit: Exit) {
        self.remember(&Past::ended(&exit));
        self.attachers.end();
        self.state.send_replace(ContainerState::Exited(exit));
    }

    /// The end of a container that could not be started.
    pub(crate) fn start_failed(&self, message: String) {
        let now = SystemTime::now();
        self.exited(Exit {
            code: START_ERROR,
            oom_killed: false,
            message: Some(message),
            started_at: now,
            finished_at: now,
        });
    }

    /// The end of a container that nobody saw end.
    pub(crate) fn vanished(&self, started_at: SystemTime) -> Exit {
        let message = "the container is gone: the node was restarted, or somebody removed its task".to_owned();
        Exit {
            code: UNSEEN,
            oom_killed: false,
            message: Some(message),
            started_at,
            finished_at: SystemTime::now().max(started_at),
        }
    }
}

/// Waits for a running container's end, whatever becomes of containerd meanwhile, and reports it once all its output has been
/// handed over.
pub(crate) async fn follow(
    entry: Arc<Entry>,
    client: Client,
    cgroups: Arc<Cgroups>,
    started_at: SystemTime,
    stop: CancellationToken,
) {
    let exit = tokio::select! {
        () = stop.cancelled() => return,
        exit = end_of(&entry, &client, &cgroups, started_at) => exit,
    };
    let pumps = entry.pumps.lock().take();
    if let Some(pumps) = pumps {
        tokio::select! {
            () = stop.cancelled() => return,
            () = pumps.drained() => {}
        }
    }
    entry.exited(exit);
}

async fn end_of(entry: &Entry, client: &Client, cgroups: &Cgroups, started_at: SystemTime) -> Exit {
    let mut backoff = Backoff::new();
    loop {
        let request = WaitRequest { container_id: entry.id.0.clone(), exec_id: String::new() };
        match client.tasks().wait(client.call(request)).await {
            Ok(ended) => {
                let ended = ended.into_inner();
                let oom_killed = cgroups.oom_killed(&entry.cgroup);
                let finished_at = ended.exited_at.map_or_else(SystemTime::now, time).max(started_at);
                return Exit {
                    code: ended.exit_status.cast_signed(),
                    oom_killed,
                    message: None,
                    started_at,
                    finished_at,
                };
            }
            Err(status) if status.code() == Code::NotFound => return entry.vanished(started_at),
            Err(status) => {
                if !is_lost(&status) {
                    tracing::warn!(container = %entry.id, %status, "containerd can't wait for a container");
                }
                backoff.wait().await;
            }
        }
    }
}

/// A protobuf time.
pub(crate) fn time(at: prost_types::Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(at.seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(at.nanos).unwrap_or(0))
}
