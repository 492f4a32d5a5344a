//! Pod, and in its STATUS the one word that says how it is.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, name, or_none, shown, wide};
use crate::columns::duration::human_duration;
use crate::validation::{is_set, items, text};

pub(crate) const POD: &[Column] = &[
    NAME,
    shown("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    shown("Status", "The aggregate status of the containers in this pod."),
    shown("Restarts", "How often the containers of this pod have been restarted, and when the last one was."),
    AGE,
    wide("IP", "The pod's first address."),
    wide("Node", "The node that the pod is bound to."),
    wide("Nominated Node", "The node on which others are preempted for this pod."),
    wide("Readiness Gates", "How many of the pod's further conditions for readiness hold."),
];

/// What the containers' statuses add up to.
#[derive(Default)]
struct Summary {
    ready: usize,
    restarts: i64,
    restarted: Option<Timestamp>,
}

impl Summary {
    fn add(&mut self, status: &Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or(0);
        let finished = text(&status["lastState"]["terminated"], "finishedAt").parse().ok();
        self.restarted = self.restarted.max(finished);
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    items(&pod["status"], "conditions").iter().find(|c| c["type"] == kind)
}

fn holds(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| c["status"] == "True")
}

/// Why a terminated container ended.
fn ending(terminated: &Value) -> String {
    match text(terminated, "reason") {
        "" => match terminated["signal"].as_i64().unwrap_or(0) {
            0 => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
            signal => format!("Signal:{signal}"),
        },
        reason => reason.to_owned(),
    }
}

/// The init containers: a reason if one of them is what the Pod waits for.
fn initializing(pod: &Value, all: &mut Summary, sidecars: &mut Summary) -> Option<String> {
    let specs = items(&pod["spec"], "initContainers");
    for (i, status) in items(&pod["status"], "initContainerStatuses").iter().enumerate() {
        let sidecar = specs.iter().any(|s| s["name"] == status["name"] && s["restartPolicy"] == "Always");
        all.add(status);
        if sidecar {
            sidecars.add(status);
        }
        let (terminated, waiting) = (&status["state"]["terminated"], text(&status["state"]["waiting"], "reason"));
        if !terminated.is_null() && terminated["exitCode"].as_i64().unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            if status["ready"] == true {
                all.ready += 1;
                sidecars.ready += 1;
            }
            continue;
        }
        return Some(if !terminated.is_null() {
            format!("Init:{}", ending(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", specs.len())
        });
    }
    None
}

/// The app containers: the last word on the reason.
fn running(pod: &Value, mut reason: String, summary: &mut Summary) -> String {
    let (mut any_running, mut failure) = (false, String::new());
    for status in items(&pod["status"], "containerStatuses").iter().rev() {
        summary.add(status);
        let state = &status["state"];
        let waiting = text(&state["waiting"], "reason");
        if !waiting.is_empty() {
            reason = waiting.to_owned();
        } else if is_set(state, "terminated") {
            reason = ending(&state["terminated"]);
            if state["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0 {
                failure.clone_from(&reason);
            }
        } else if status["ready"] == true && is_set(state, "running") {
            any_running = true;
            summary.ready += 1;
        }
    }
    if reason == "Completed" {
        if any_running && holds(pod, "Ready") {
            return "Running".to_owned();
        } else if !failure.is_empty() {
            return failure;
        } else if any_running {
            return "NotReady".to_owned();
        }
    }
    reason
}

/// The STATUS column and what is counted on the way.
fn status(pod: &Value) -> (String, Summary) {
    let status = &pod["status"];
    let phase = text(status, "phase");
    let mut reason = match text(status, "reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let (mut all, mut sidecars) = (Summary::default(), Summary::default());
    let init = initializing(pod, &mut all, &mut sidecars);
    let mut summary = all;
    if let Some(init) = &init {
        reason.clone_from(init);
    }
    if init.is_none() || holds(pod, "Initialized") {
        summary = Summary { ready: summary.ready, ..sidecars };
        reason = running(pod, reason, &mut summary);
    }
    if is_set(&pod["metadata"], "deletionTimestamp") {
        if text(status, "reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    (reason, summary)
}

pub(crate) fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (reason, summary) = status(pod);
    let spec = &pod["spec"];
    let sidecars = items(spec, "initContainers").iter().filter(|c| c["restartPolicy"] == "Always").count();
    let total = items(spec, "containers").len() + sidecars;
    let restarts = match summary.restarted {
        Some(at) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(now.as_second() - at.as_second()))
        }
        _ => summary.restarts.to_string(),
    };
    let gates = items(spec, "readinessGates");
    let gates_cell = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let met = gates.iter().filter(|g| holds(pod, text(g, "conditionType"))).count();
        format!("{met}/{}", gates.len())
    };
    let status = &pod["status"];
    let ip = items(status, "podIPs").first().map_or("", |ip| text(ip, "ip"));
    vec![
        name(pod),
        format!("{}/{total}", summary.ready).into(),
        reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(if ip.is_empty() { text(status, "podIP") } else { ip }),
        or_none(text(spec, "nodeName")),
        or_none(text(status, "nominatedNodeName")),
        gates_cell.into(),
    ]
}
