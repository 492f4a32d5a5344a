//! A node's agent without a runtime: it starts, reports, fails and stops what it is told, in its own time.
//!
//! It is a client like the real one: it watches the Pods of its node, renews its lease, writes statuses and takes Pods out of
//! the API when their process has ended. What it knows goes when it crashes; its processes ([`Machines`]) stay
//! and are adopted, unless the machine lost its power.

mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use rand::{Rng as _, rngs::StdRng};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Change, Filter, Informer, Informers};

use crate::machines::Machines;

const HEARTBEAT: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_secs(1);

/// How Pods fare.
#[derive(Clone, Copy)]
pub(crate) struct Fortune {
    /// A Pod that serves stops doing so for a while.
    pub(crate) falters: f64,
    /// A Pod that runs to its end fails.
    pub(crate) fails: f64,
}

/// What an agent is made of.
pub(crate) struct Config {
    pub(crate) node: String,
    pub(crate) client: Client,
    pub(crate) machines: Arc<Machines>,
    pub(crate) random: Arc<Mutex<StdRng>>,
    pub(crate) fortune: Arc<Mutex<Fortune>>,
}

/// What an agent will do with a Pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It serves.
    Ready,
    /// It stops serving.
    Falter,
    /// It comes to its end.
    Exit,
    /// It was told to stop and has.
    Stop,
    /// What is so is written.
    Report,
    /// It is taken out of the API.
    Remove,
}

/// A Pod of the node.
struct Tracked {
    pod: Arc<Pod>,
    /// What it is: the phase and whether it serves.
    phase: &'static str,
    ready: bool,
    stopping: bool,
}

struct Agent {
    config: Config,
    pods: Informer<Pod>,
    tracked: BTreeMap<String, Tracked>,
    steps: BTreeMap<(Instant, u64), (String, Step)>,
    count: u64,
}

/// Runs a node's agent until `cancel`.
pub(crate) async fn run(config: Config, cancel: CancellationToken) {
    let informers = Informers::new(config.client.clone(), cancel.clone());
    let pods = informers.get_filtered(Filter::fields(format!("spec.nodeName={}", config.node)));
    let agent = Agent { config, pods, tracked: BTreeMap::new(), steps: BTreeMap::new(), count: 0 };
    cancel.run_until_cancelled(agent.drive()).await;
}

impl Agent {
    async fn drive(mut self) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        while let Err(error) = self.beat().await {
            tracing::debug!(target: "agent", node = self.config.node, %error, "cannot register");
            tokio::time::sleep(AGAIN).await;
        }
        if !self.pods.synced().await {
            return;
        }
        let known: BTreeSet<_> = self.pods.list().iter().filter_map(|pod| pod.uid()).collect();
        for uid in self.config.machines.on(&self.config.node) {
            if !known.contains(&uid) {
                self.config.machines.end(&self.config.node, &uid);
            }
        }
        let mut changes = self.pods.subscribe();
        loop {
            let next = self.steps.keys().next().map(|(at, _)| *at);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                change = changes.next() => match change {
                    Some(change) => self.observe(change),
                    None => return,
                },
                () = due => {
                    if let Some((_, (uid, step))) = self.steps.pop_first() {
                        self.take(uid, step).await;
                    }
                }
                _ = beat.tick() => drop(self.beat().await),
            }
        }
    }

    fn later(&mut self, uid: &str, step: Step, delay: Duration) {
        self.count += 1;
        self.steps.insert((Instant::now() + delay, self.count), (uid.to_owned(), step));
    }

    fn within(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.config.random.lock().random_range(from..to))
    }

    /// What is told to stop takes as long as it likes of what it was granted.
    fn stop_in_time(&mut self, uid: &str) {
        let Some(tracked) = self.tracked.get(uid) else { return };
        let grace = tracked.pod.metadata.deletion_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
        let delay = self.within(0, 1000 * grace.unwrap_or(0).max(1));
        self.later(uid, Step::Stop, delay);
    }

    fn happens(&self, likely: f64) -> bool {
        self.config.random.lock().random_bool(likely)
    }

    fn observe(&mut self, change: Change<Pod>) {
        let uid = |pod: &Arc<Pod>| pod.uid().unwrap_or_default();
        if let Some(old) = &change.old
            && change.new.as_ref().map(uid) != Some(uid(old))
        {
            self.config.machines.end(&self.config.node, &uid(old));
            self.tracked.remove(&uid(old));
        }
        let Some(pod) = change.new else { return };
        let uid = uid(&pod);
        if let Some(known) = self.tracked.get_mut(&uid) {
            let (phase, _) = says(&pod);
            if matches!(phase, "Succeeded" | "Failed") && !matches!(known.phase, "Succeeded" | "Failed") {
                // Somebody else has given it up.
                (known.phase, known.ready) = (phase, false);
                self.config.machines.end(&self.config.node, &uid);
            }
            let told = says(&pod) == (known.phase, known.ready);
            let stops = pod.metadata.deletion_timestamp.is_some() && !known.stopping;
            known.stopping |= stops;
            known.pod = pod;
            if stops {
                self.stop_in_time(&uid);
            } else if !told {
                // Somebody else wrote it (or what we wrote is on its way).
                self.later(&uid, Step::Report, AGAIN);
            }
            return;
        }
        self.begin(uid, pod);
    }

    /// Takes up a Pod, new or found.
    fn begin(&mut self, uid: String, pod: Arc<Pod>) {
        let (node, machines) = (self.config.node.clone(), self.config.machines.clone());
        let (phase, was_ready) = says(&pod);
        let stopping = pod.metadata.deletion_timestamp.is_some();
        let process = machines.serves(&node, &uid);
        let ended = matches!(phase, "Succeeded" | "Failed");
        let may_restart = restarts(&pod) != "Never";
        let mut tracked = Tracked { pod: pod.clone(), phase, ready: was_ready, stopping };
        if ended {
            machines.end(&node, &uid);
            tracked.ready = false;
        } else if stopping {
            tracked.phase = if phase == "Pending" { "Pending" } else { "Running" };
        } else if let Some(serving) = process {
            tracked.phase = if serving { "Running" } else { phase };
            tracked.ready = serving;
        } else if phase == "Running" && !may_restart {
            tracked.phase = "Failed";
            tracked.ready = false;
        } else {
            machines.start(&node, &pod);
            tracked.ready = false;
        }
        let (fails, serving) = (tracked.phase == "Failed" && !ended, tracked.ready);
        self.tracked.insert(uid.clone(), tracked);
        let delay = self.within(50, 5000);
        match (ended, stopping) {
            (true, true) => self.later(&uid, Step::Remove, Duration::ZERO),
            (true, false) => {}
            (false, true) => self.stop_in_time(&uid),
            (false, false) if fails => self.later(&uid, Step::Report, Duration::ZERO),
            (false, false) => {
                if was_ready != serving {
                    self.later(&uid, Step::Report, Duration::ZERO);
                }
                self.later(&uid, Step::Ready, delay);
            }
        }
    }

    async fn take(&mut self, uid: String, step: Step) {
        let (node, machines) = (self.config.node.clone(), self.config.machines.clone());
        let fortune = *self.config.fortune.lock();
        let Some(tracked) = self.tracked.get_mut(&uid) else { return };
        let to_the_end = restarts(&tracked.pod) != "Always";
        let ended = matches!(tracked.phase, "Succeeded" | "Failed");
        match step {
            Step::Ready | Step::Falter | Step::Exit if tracked.stopping || ended => {}
            Step::Ready => {
                tracked.phase = "Running";
                tracked.ready = true;
                machines.set_serving(&node, &uid, true);
                self.report(&uid).await;
                if to_the_end {
                    let delay = self.within(500, 20_000);
                    self.later(&uid, Step::Exit, delay);
                } else if self.happens(fortune.falters) {
                    let delay = self.within(1000, 120_000);
                    self.later(&uid, Step::Falter, delay);
                }
            }
            Step::Falter => {
                tracked.ready = false;
                machines.set_serving(&node, &uid, false);
                self.report(&uid).await;
                let delay = self.within(500, 20_000);
                self.later(&uid, Step::Ready, delay);
            }
            Step::Exit => {
                let again = restarts(&tracked.pod) == "OnFailure";
                let fails = self.happens(fortune.fails);
                if fails && again {
                    return self.later(&uid, Step::Falter, Duration::ZERO);
                }
                self.end(&uid, if fails { "Failed" } else { "Succeeded" });
                self.report(&uid).await;
            }
            Step::Stop => {
                let clean = self.happens(0.5);
                self.end(&uid, if clean { "Succeeded" } else { "Failed" });
                self.report(&uid).await;
                self.later(&uid, Step::Remove, Duration::ZERO);
            }
            Step::Report => self.report(&uid).await,
            Step::Remove => self.remove(&uid).await,
        }
    }

    /// A Pod's process has ended.
    fn end(&mut self, uid: &str, phase: &'static str) {
        self.config.machines.end(&self.config.node, uid);
        if let Some(tracked) = self.tracked.get_mut(uid)
            && !matches!(tracked.phase, "Succeeded" | "Failed")
        {
            // What never ran has not succeeded.
            tracked.phase = if tracked.phase == "Pending" { "Failed" } else { phase };
            tracked.ready = false;
        }
    }
}

/// What the API says of a Pod: its phase and whether it serves.
fn says(pod: &Pod) -> (&'static str, bool) {
    let status = pod.status.as_ref();
    let phase = match status.and_then(|status| status.phase.as_deref()) {
        Some("Running") => "Running",
        Some("Succeeded") => "Succeeded",
        Some("Failed") => "Failed",
        _ => "Pending",
    };
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    (phase, ready)
}

fn restarts(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}
