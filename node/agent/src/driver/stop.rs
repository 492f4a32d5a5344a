//! The end of one run: asked for ([`stop`]) and observed ([`watch_exit`]).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use tokio::sync::watch;
use wherry_api::quantity::Quantity;
use wherry_reconcile::EventType;
use wherry_runtime::{ContainerId, Exit, Runtime, RuntimeError, Signal};

use super::shared::Shared;
use super::start::termination_log;
use crate::lifecycle::{self, Ended, Identity, Slot};
use crate::logs::Logs;
use crate::probe::run::{Found, Target, request};

/// How long Term waits for the Services to drop the Pod.
const DRAIN: Duration = Duration::from_secs(2);
/// Between attempts to signal through a runtime that fails.
const RETRY: Duration = Duration::from_secs(1);

/// What to stop.
pub(super) struct Stop {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) slot: Slot,
    pub(super) id: ContainerId,
    pub(super) runtime: Arc<dyn Runtime>,
    /// When it is killed; may be moved nearer.
    pub(super) deadline: watch::Receiver<Timestamp>,
    /// The Pod's address, where it ends as a whole and its Services must drop it first.
    pub(super) drain: Option<IpAddr>,
    pub(super) ip: Option<IpAddr>,
}

impl Stop {
    /// preStop and drain, then Term, then Kill at the deadline. Returns once the container has exited or cannot be signalled.
    pub(super) async fn run(self) {
        let mut exited = std::pin::pin!(self.exited());
        let mut deadline = self.deadline.clone();
        let polite = async {
            tokio::join!(self.pre_stop(), self.drained());
            self.signal(Signal::Term).await;
            // From here on only the deadline is left to wait for.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = &mut exited => return,
            () = polite => {}
            () = reached(&self.shared, &mut deadline) => {}
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
        if let Err(problem) = self.hook(hook).await {
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

    async fn hook(&self, hook: &LifecycleHandler) -> Result<(), String> {
        let Some(spec) = lifecycle::container(&self.pod, self.slot) else { return Ok(()) };
        if let Some(sleep) = &hook.sleep {
            self.shared.clock.sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
            return Ok(());
        }
        if let Some(http) = &hook.http_get {
            let target = Target {
                network: self.shared.network.clone(),
                runtime: self.runtime.clone(),
                id: self.id.clone(),
                ip: self.ip,
            };
            return match request(http, spec, &target, Duration::from_secs(30)).await {
                Found::Success | Found::Warning(_) => Ok(()),
                Found::Failure(problem) | Found::Error(problem) => Err(problem),
            };
        }
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            return match self.runtime.exec(&self.id, &command, 4096).await {
                Ok(output) if output.code == 0 => Ok(()),
                Ok(output) => Err(format!("exit code {}", output.code)),
                Err(error) => Err(error.to_string()),
            };
        }
        Err("this kind of hook is not supported".to_owned())
    }
}

/// Resolves at the deadline, wherever it is moved.
async fn reached(shared: &Shared, deadline: &mut watch::Receiver<Timestamp>) {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = shared.clock.sleep_until(Some(at)) => return,
            moved = deadline.changed() => if moved.is_err() {
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
        let read = std::fs::File::open(&file).and_then(|file| file.take(4096).read_to_end(&mut text));
        if read.is_ok() && !text.is_empty() {
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
        if exit.code == 0 {
            return None;
        }
        let policy =
            lifecycle::container(&self.pod, self.slot).and_then(|spec| spec.termination_message_policy.as_deref());
        if policy == Some("FallbackToLogsOnError") {
            let tail = self.shared.logs.tail(&Logs::path(&self.dir, name, self.attempt), 80, 2048).await;
            if !tail.is_empty() {
                return Some(tail);
            }
        }
        let known = exit.message.as_deref().map(|message| cut(message, 4096));
        known.or_else(|| {
            self.memory_limit()
                .filter(|_| exit.oom_killed)
                .map(|limit| format!("out of memory: the container's limit is {limit} bytes"))
        })
    }

    fn memory_limit(&self) -> Option<i64> {
        let limits = lifecycle::container(&self.pod, self.slot)?.resources.as_ref()?.limits.as_ref()?;
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

fn cut(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn timestamp(at: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(at).ok()
}
