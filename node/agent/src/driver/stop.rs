//! The end of one run: asked for ([`stop`]) and observed ([`watch_exit`]).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use wherry_api::quantity::Quantity;
use wherry_reconcile::EventType;
use wherry_runtime::{ContainerId, Exit, Runtime, RuntimeError, Signal};

use super::hook;
use super::shared::Shared;
use super::start::termination_log;
use crate::lifecycle::{self, Ended, Identity, Slot, add};
use crate::logs::Logs;
use crate::probe::run::Target;

/// How long Term waits for the Services to drop the Pod.
const DRAIN: Duration = Duration::from_secs(2);
/// Between attempts to signal through a runtime that fails.
const RETRY: Duration = Duration::from_secs(1);

/// The least time between the signal and the kill, however little of the grace is left.
const LEAST: Duration = Duration::from_secs(2);

/// What is kept of a container's termination message, in bytes (kubelet's `MaxContainerTerminationMessageLength`).
const MESSAGE: usize = 4096;

/// When a container is to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The end of its grace.
    pub(super) deadline: Timestamp,
    /// What it outlives has ended.
    pub(super) turn: bool,
}

/// What to stop.
pub(super) struct Stop {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) slot: Slot,
    pub(super) id: ContainerId,
    pub(super) runtime: Arc<dyn Runtime>,
    /// When and in which order; may change.
    pub(super) order: watch::Receiver<Order>,
    /// The Pod's address, where it ends as a whole and its Services must drop it first.
    pub(super) drain: Option<IpAddr>,
    pub(super) ip: Option<IpAddr>,
}

impl Stop {
    /// preStop and drain, the container's turn, then Term, then Kill. What comes before Term is cut short by the end of the
    /// grace; between Term and Kill is what is left of it, and two seconds at least. Returns once the container has exited or
    /// cannot be signalled.
    pub(super) async fn run(self) {
        let mut exited = std::pin::pin!(self.exited());
        let before = async {
            tokio::join!(self.pre_stop(), self.drained());
            // Whoever would give the turn is gone with its Pod's record: then it is over anyway.
            let mut order = self.order.clone();
            let _gone = order.wait_for(|order| order.turn).await.is_err();
        };
        tokio::select! {
            biased;
            () = &mut exited => return,
            () = reached(&self.shared, self.order.clone(), Timestamp::MIN) => {}
            () = before => {}
        }
        let least = add(self.shared.clock.now(), LEAST);
        let grace = async {
            self.signal(Signal::Term).await;
            reached(&self.shared, self.order.clone(), least).await;
        };
        tokio::select! {
            () = &mut exited => return,
            () = grace => {}
        }
        loop {
            self.signal(Signal::Kill).await;
            tokio::select! {
                () = &mut exited => return,
                // A runtime that lost the signal gets it again.
                () = tokio::time::sleep(RETRY * 5) => {}
            }
        }
    }

    /// Resolves when nothing of it is left to stop.
    async fn exited(&self) {
        while let Err(error) = self.runtime.wait(&self.id).await {
            if !error.is_retryable() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn signal(&self, signal: Signal) {
        loop {
            match self.runtime.kill(&self.id, signal).await {
                Ok(()) | Err(RuntimeError::NotFound(_)) => return,
                Err(error) if error.is_retryable() => {
                    tracing::warn!(container = %self.id, %error, "cannot signal a container, trying again");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::warn!(container = %self.id, %error, "cannot signal a container");
                    return;
                }
            }
        }
    }

    async fn drained(&self) {
        if let Some(ip) = self.drain {
            // Beyond the limit the Pod is stopped all the same: a Service that is stuck must not keep it.
            let _in_time = tokio::time::timeout(DRAIN, self.shared.network.drained(ip)).await;
        }
    }

    async fn pre_stop(&self) {
        let Some(spec) = lifecycle::container(&self.pod, self.slot) else { return };
        let Some(hook) = spec.lifecycle.as_ref().and_then(|hooks| hooks.pre_stop.as_ref()) else { return };
        let target = Target {
            network: self.shared.network.clone(),
            runtime: self.runtime.clone(),
            id: self.id.clone(),
            ip: self.ip,
        };
        if let Err(problem) = hook::run(hook, &spec, &target, &self.shared.clock).await {
            tracing::debug!(container = %self.id, problem, "a preStop hook failed");
            self.shared.container_event(
                &self.pod,
                self.slot,
                EventType::Warning,
                "FailedPreStopHook",
                "PreStopHook failed",
            );
        }
    }
}

/// Resolves at the deadline, wherever it is moved, but not before `least`.
async fn reached(shared: &Shared, mut order: watch::Receiver<Order>, least: Timestamp) {
    loop {
        let at = order.borrow_and_update().deadline.max(least);
        tokio::select! {
            () = shared.clock.sleep_until(Some(at)) => return,
            moved = order.changed() => if moved.is_err() {
                shared.clock.sleep_until(Some(at)).await;
                return;
            },
        }
    }
}

/// A run to wait for.
pub(super) struct Watched {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) slot: Slot,
    pub(super) attempt: u32,
    pub(super) id: ContainerId,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) identity: Identity,
    pub(super) dir: PathBuf,
}

impl Watched {
    /// Waits for the exit, ends the log, reads the termination message, frees the container.
    pub(super) async fn run(self) -> Ended {
        let exit = loop {
            match self.runtime.wait(&self.id).await {
                Ok(exit) => break Some(exit),
                Err(error) if error.is_retryable() => {
                    tracing::warn!(container = %self.id, %error, "cannot wait for a container, trying again");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::warn!(container = %self.id, %error, "a container was lost");
                    break None;
                }
            }
        };
        let name = lifecycle::name(&self.pod, self.slot).to_owned();
        let path = Logs::path(&self.dir, &name, self.attempt);
        self.shared.logs.close(&path).await;
        let ended = match exit {
            Some(exit) => self.ended(&name, exit).await,
            None => lost(self.identity, self.shared.clock.now()),
        };
        if let Err(error) = self.runtime.remove(&self.id).await {
            tracing::warn!(container = %self.id, %error, "cannot remove a container");
        }
        ended
    }

    async fn ended(&self, name: &str, exit: Exit) -> Ended {
        let message = self.message(name, &exit).await;
        let reason = if exit.oom_killed {
            "OOMKilled"
        } else if exit.code == 0 {
            "Completed"
        } else {
            "Error"
        };
        Ended {
            identity: self.identity.clone(),
            code: exit.code,
            reason: reason.to_owned(),
            message,
            started_at: timestamp(exit.started_at),
            // By the agent's clock, which the back-off is counted with.
            finished_at: timestamp(exit.finished_at)
                .map(|at| if at > self.shared.clock.now() { self.shared.clock.now() } else { at }),
        }
    }

    /// The file, else (where asked for) the end of the log, else what the runtime knows.
    async fn message(&self, name: &str, exit: &Exit) -> Option<String> {
        use std::io::Read as _;
        let file = termination_log(&self.dir, name, self.attempt);
        let mut text = Vec::new();
        let read = std::fs::File::open(&file).and_then(|file| file.take(MESSAGE as u64).read_to_end(&mut text));
        if read.is_ok() && !text.is_empty() {
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
        if exit.code == 0 {
            return None;
        }
        let policy =
            lifecycle::container(&self.pod, self.slot).and_then(|spec| spec.into_owned().termination_message_policy);
        if policy.as_deref() == Some("FallbackToLogsOnError") {
            let tail = self.shared.logs.tail(&Logs::path(&self.dir, name, self.attempt), 80, 2048).await;
            if !tail.is_empty() {
                return Some(tail);
            }
        }
        let known = exit.message.as_deref().map(|message| message[..message.floor_char_boundary(MESSAGE)].to_owned());
        known.or_else(|| {
            self.memory_limit()
                .filter(|_| exit.oom_killed)
                .map(|limit| format!("out of memory: the container's limit is {limit} bytes"))
        })
    }

    fn memory_limit(&self) -> Option<i64> {
        let spec = lifecycle::container(&self.pod, self.slot)?;
        let limits = spec.resources.as_ref()?.limits.as_ref()?;
        Quantity::parse(&limits.get("memory")?.0).ok().map(|limit| limit.value())
    }
}

/// How a run ended of which nothing is known but that it is over.
pub(super) fn lost(identity: Identity, now: Timestamp) -> Ended {
    Ended {
        identity,
        code: 137,
        reason: "ContainerStatusUnknown".to_owned(),
        message: Some("The container could not be located after a restart of the node's agent".to_owned()),
        started_at: None,
        finished_at: Some(now),
    }
}

fn timestamp(at: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(at).ok()
}
