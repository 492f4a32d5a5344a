//! What the agent knows of one Pod: plain data, changed by the driver alone, read by [`plan`](super::plan()).
//!
//! A container has one [`Run`]: so it can never have two live attempts. Every variant says how it is left.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use wherry_runtime::User;

/// What was observed of one Pod on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodState {
    /// `status.startTime`: when the agent first took the Pod up.
    pub started_at: Option<Timestamp>,
    /// The Pod's addresses, once it has a network; kept when it ends, as the status keeps them.
    pub ips: Vec<IpAddr>,
    /// The Pod's network and volumes.
    pub ground: Ground,
    /// The init containers, in the order of the spec.
    pub init: Vec<ContainerState>,
    /// The containers, in the order of the spec.
    pub containers: Vec<ContainerState>,
    /// The ephemeral containers, in the order of the spec; those added later follow.
    pub ephemeral: Vec<ContainerState>,
    /// A container's rule asked for all of them to be restarted: every one is ended first.
    pub renewing: bool,
    /// The Pod was ended by the agent (refused, deadline exceeded): never undone.
    pub verdict: Option<Verdict>,
    /// The API holds the status of an ended Pod: its object may be deleted.
    pub reported_end: bool,
    /// `DELETE` was sent.
    pub delete_sent: bool,
    /// The phase last reported; a terminal one is never left.
    pub phase: Phase,
    /// A resize that the node has not granted.
    pub pending: Option<Pending>,
    /// The generation of a resize that was granted and is not done everywhere yet.
    pub resizing: Option<i64>,
}

/// A resize that the node has not granted: the Pod goes on with what it was given before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The generation that was weighed.
    pub generation: i64,
    /// Since when it waits.
    pub since: Timestamp,
}

/// A Pod's phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Left when every init container is done (or, where it is a sidecar, started) and no container waits for its first start.
    #[default]
    Pending,
    /// Left when every container has ended for good.
    Running,
    /// Never left.
    Succeeded,
    /// Never left.
    Failed,
}

impl Phase {
    /// The API's word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Succeeded or Failed.
    #[must_use]
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// From the API's word.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Pending,
        }
    }
}

/// Why the agent ended a Pod: `status.reason` and `status.message` of a Failed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `DeadlineExceeded`, `UnsupportedField`, ...
    pub reason: String,
    /// For people.
    pub message: String,
    /// How long its containers may take to end; as its manifest says where none.
    pub grace: Option<Duration>,
    /// Its node needed what it had: told by the condition DisruptionTarget.
    pub disrupted: bool,
}

impl Verdict {
    /// One that leaves the Pod the grace of its manifest.
    #[must_use]
    pub(crate) fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), grace: None, disrupted: false }
    }
}

/// What a Pod's containers stand on: its directory, volumes and network.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Ground {
    /// Nothing is there. Left by [`Action::SetUp`](super::Action::SetUp).
    #[default]
    Missing,
    /// Being made. Left by the outcome.
    Making,
    /// Could not be made. Left at `retry_at`.
    Failed {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// Containers may start. Left by [`Action::TearDown`](super::Action::TearDown).
    Ready,
    /// Being removed. Left by the outcome.
    Removing,
    /// Could not be removed. Left at `retry_at`.
    Stuck {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// Removed; never made again.
    Gone,
}

/// What was observed of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContainerState {
    /// Where it is.
    pub run: Run,
    /// The runs made so far: the number of the next one, and one more than the restart count.
    pub attempts: u32,
    /// The runs made before the Pod was begun anew as a whole.
    pub base: u32,
    /// How the run before the current one ended.
    pub last: Option<Ended>,
    /// Between restarts.
    pub crash: Backoff,
    /// Between pulls.
    pub pull: Backoff,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Run {
    /// Nothing runs. Left by [`Action::Start`](super::Action::Start), not before `until`.
    Waiting {
        /// What to tell; none before the first start.
        why: Option<Why>,
        /// When to try again; at once where none.
        until: Option<Timestamp>,
    },
    /// Its image is pulled, its configuration resolved, it is created and started. Left by the outcome.
    Starting {
        /// What was told before.
        why: Option<Why>,
        /// It was asked to stop in the meantime.
        cancelled: bool,
    },
    /// It runs. Left by its exit or by [`Action::Stop`](super::Action::Stop).
    Running(Live),
    /// It runs and was asked to end. Left by its exit.
    Stopping {
        /// What runs.
        live: Live,
        /// When it is killed.
        deadline: Timestamp,
        /// It was stopped to be started again (a failed probe).
        restart: bool,
        /// Those that it outlives have ended: it may be signalled. Until then only its preStop hook runs.
        turn: bool,
    },
    /// It ended. Left by [`Action::Start`](super::Action::Start) where the restart policy says so.
    Exited {
        /// How.
        ended: Ended,
        /// Restart it whatever its exit code (its probe failed).
        restart: bool,
    },
}

impl ContainerState {
    /// `restartCount`.
    #[must_use]
    pub(crate) fn restarts(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// It has run since the Pod began (or was begun anew).
    #[must_use]
    pub(crate) fn begun(&self) -> bool {
        self.attempts > self.base
    }

    /// As an init container: it ran to a good end.
    #[must_use]
    pub(crate) fn completed(&self) -> bool {
        matches!(&self.run, Run::Exited { ended, restart: false } if ended.code == 0)
    }

    /// As a sidecar: it runs, and its startup probe has passed.
    #[must_use]
    pub(crate) fn started(&self) -> bool {
        matches!(&self.run, Run::Running(live) if live.started())
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::Waiting { why: None, until: None }
    }
}

impl Run {
    /// A process or instance may exist.
    #[must_use]
    pub(crate) fn is_live(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Running(_) | Self::Stopping { .. })
    }

    /// What runs, where it does.
    #[must_use]
    pub(crate) fn live(&self) -> Option<&Live> {
        match self {
            Self::Running(live) | Self::Stopping { live, .. } => Some(live),
            _ => None,
        }
    }

    /// As [`live`](Self::live).
    pub(crate) fn live_mut(&mut self) -> Option<&mut Live> {
        match self {
            Self::Running(live) | Self::Stopping { live, .. } => Some(live),
            _ => None,
        }
    }
}

/// A running container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    /// Which run this is: `runtime://id` and the image.
    pub identity: Identity,
    /// The image that the manifest named when it started; none where an earlier life of the agent started it.
    pub asked: Option<String>,
    /// The resources that it has.
    pub resources: Given,
    /// A change of them that is under way or has failed.
    pub resize: Option<Resize>,
    /// When it started.
    pub started_at: Timestamp,
    /// The last verdicts of its probes.
    pub probes: Probes,
    /// Its postStart hook failed: it is killed, and was never told as running.
    pub hook_failed: bool,
}

/// The resources that a running container has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given {
    /// These; none where it was given none.
    Known(Option<ResourceRequirements>),
    /// What an earlier life of the agent gave it, which the API was not told: they are given once more.
    Unknown,
}

/// A change of a running container's resources.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resize {
    /// What is wanted.
    pub wanted: Option<ResourceRequirements>,
    /// Why it failed; none while it is under way.
    pub failed: Option<String>,
}

impl Live {
    /// `containerStatuses[].started`.
    #[must_use]
    pub(crate) fn started(&self) -> bool {
        !self.hook_failed && self.probes.started()
    }

    /// `containerStatuses[].ready`.
    #[must_use]
    pub(crate) fn ready(&self) -> bool {
        self.started() && self.probes.ready()
    }
}

/// A run's identity, as its status shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `wasmtime://<64 hex>`.
    pub container_id: String,
    /// The normalised reference of the image that runs.
    pub image: String,
    /// `repository@sha256:...`.
    pub image_id: String,
    /// Who it runs as, where its kind has users.
    pub user: Option<User>,
}

/// What the probes of a running container say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    /// The startup probe's verdict.
    pub startup: ProbeVerdict,
    /// The liveness probe's verdict.
    pub liveness: ProbeVerdict,
    /// The readiness probe's verdict.
    pub readiness: ProbeVerdict,
}

impl Probes {
    /// `containerStatuses[].started`.
    #[must_use]
    pub(crate) fn started(&self) -> bool {
        matches!(self.startup, ProbeVerdict::NoProbe | ProbeVerdict::Passing)
    }

    /// `containerStatuses[].ready`.
    #[must_use]
    pub(crate) fn ready(&self) -> bool {
        self.started() && matches!(self.readiness, ProbeVerdict::NoProbe | ProbeVerdict::Passing)
    }
}

/// What a probe says, its thresholds counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProbeVerdict {
    /// There is no such probe.
    #[default]
    NoProbe,
    /// Neither threshold was reached yet.
    Unknown,
    /// `successThreshold` reached.
    Passing,
    /// `failureThreshold` reached.
    Failing,
}

/// A reason and message of a waiting container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    /// `ErrImagePull`, `CrashLoopBackOff`, ...
    pub reason: String,
    /// For people.
    pub message: String,
    /// Told from then on instead: a failed pull becomes a back-off.
    pub then: Option<(Timestamp, Box<Why>)>,
}

impl Why {
    /// A reason that does not change with time.
    #[must_use]
    pub(crate) fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), then: None }
    }

    /// What to tell at `now`.
    #[must_use]
    pub(crate) fn at(&self, now: Timestamp) -> &Self {
        match &self.then {
            Some((from, later)) if now >= *from => later.at(now),
            _ => self,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The run that ended.
    pub identity: Identity,
    /// Its exit code.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// The termination message.
    pub message: Option<String>,
    /// When it started; none where it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// The wait between failures: 10 s doubling to 300 s, forgotten after 600 s without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    entry: Option<(Duration, Timestamp)>,
}

impl Backoff {
    /// The first wait.
    pub(crate) const INITIAL: Duration = Duration::from_secs(10);
    /// The longest.
    pub(crate) const MAX: Duration = Duration::from_secs(300);

    /// Until when to wait for what happened at `event`; none: now.
    #[must_use]
    pub(crate) fn until(&self, event: Timestamp, now: Timestamp) -> Option<(Duration, Timestamp)> {
        let (delay, updated) = self.entry?;
        if Self::expired(updated, event) {
            return None;
        }
        let until = add(event, delay);
        (now < until).then_some((delay, until))
    }

    /// Counts a failure that happened at `event` and is tried again at `now`.
    pub(crate) fn next(&mut self, event: Timestamp, now: Timestamp) {
        let delay = match self.entry {
            Some((delay, updated)) if !Self::expired(updated, event) => (delay * 2).min(Self::MAX),
            _ => Self::INITIAL,
        };
        self.entry = Some((delay, now));
    }

    /// The current wait.
    #[must_use]
    pub(crate) fn delay(&self) -> Duration {
        self.entry.map_or(Self::INITIAL, |(delay, _)| delay)
    }

    /// Forgets every failure.
    pub(crate) fn reset(&mut self) {
        self.entry = None;
    }

    fn expired(updated: Timestamp, event: Timestamp) -> bool {
        event.duration_since(updated)
            > jiff::SignedDuration::try_from(Self::MAX * 2).unwrap_or(jiff::SignedDuration::MAX)
    }
}

/// `at + by`, saturating.
#[must_use]
pub(crate) fn add(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
