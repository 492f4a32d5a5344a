//! A Pod's history as text without times, names and addresses: one line for each thing that the API tells of it.
//!
//! Writes of a status may be merged (kubelet merges them too), so each aspect has a sequence of its own, without repetitions.
//! A run whose end was merged with the next run's start is known from `lastState`.

use serde_json::Value;

use crate::journal::Seen;

/// Replaces what differs between runs and kinds.
pub(crate) type Names = Vec<(String, &'static str)>;

/// The trace of one Pod.
pub(crate) fn pod(history: &[Seen], names: &Names) -> String {
    let mut lines = vec![line("phase", history.iter().map(|seen| text(&seen.pod["status"]["phase"])))];
    for type_ in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        lines.push(line(type_, history.iter().filter_map(|seen| condition(&seen.pod, type_))));
    }
    for list in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        for container in containers(history, list) {
            let told = runs(history, list, &container);
            lines.push(line(&container, told.iter().map(|moment| moment.state.clone())));
            lines.push(line(&format!("{container} restarts"), told.iter().map(|moment| moment.restarts.to_string())));
            lines.push(line(&format!("{container} started"), told.iter().map(|moment| moment.started.to_string())));
            lines.push(line(&format!("{container} ready"), told.iter().map(|moment| moment.ready.to_string())));
        }
    }
    for field in ["reason", "message"] {
        let told: Vec<String> =
            history.iter().map(|seen| text(&seen.pod["status"][field])).filter(|text| !text.is_empty()).collect();
        if !told.is_empty() {
            lines.push(line(field, told.into_iter()));
        }
    }
    if history.last().is_some_and(|seen| seen.deleted) {
        lines.push("deleted".to_owned());
    }
    plain(&lines.join("\n"), names)
}

/// Events as lines, for each container in the order of their first appearance. Those that depend on who is faster are left out: a probe that came
/// before the server listened, and the scheduler's (its recorder is not the agent's).
pub(crate) fn events<'a>(all: impl Iterator<Item = &'a Value>, names: &Names) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for event in all {
        let field = event["involvedObject"]["fieldPath"].as_str().map(|path| format!(" {path}")).unwrap_or_default();
        let line = plain(
            &format!("{} {}{field}: {}", text(&event["type"]), text(&event["reason"]), text(&event["message"])),
            names,
        );
        let early = [":8080", ":8081"].iter().any(|port| line.contains(port))
            && ["connection refused", "connection reset"].iter().any(|problem| line.contains(problem));
        if !early && event["source"]["component"] != "default-scheduler" && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.sort_by_key(|line| subject(line));
    lines
}

/// What an Event's line is about: containers are started side by side, and each controller tells what it did in its own time.
pub(crate) fn subject(line: &str) -> String {
    let head = line.split(": ").next().unwrap_or_default();
    let mut words = head.split(' ').skip(1);
    match (words.next().unwrap_or_default(), words.next()) {
        (_, Some(field)) => field.to_owned(),
        ("ScalingReplicaSet", None) => "Deployment".to_owned(),
        ("SuccessfulCreate" | "SuccessfulDelete", None) => "ReplicaSet".to_owned(),
        (_, None) => String::new(),
    }
}

struct Moment {
    state: String,
    restarts: i64,
    started: bool,
    ready: bool,
}

fn runs(history: &[Seen], list: &str, container: &str) -> Vec<Moment> {
    let mut told: Vec<Moment> = Vec::new();
    let mut last_end = String::new();
    for seen in history {
        let Some(status) =
            seen.pod["status"][list].as_array().into_iter().flatten().find(|status| status["name"] == container)
        else {
            continue;
        };
        let end = text(&status["lastState"]["terminated"]["containerID"]);
        let restarts = status["restartCount"].as_i64().unwrap_or_default();
        if !end.is_empty() && end != last_end {
            let state = terminated(&status["lastState"]["terminated"]);
            let known = told.last().is_some_and(|moment| moment.state == state);
            if !known {
                let before = told.last().map_or(restarts, |moment| moment.restarts);
                told.push(Moment { state, restarts: before, started: false, ready: false });
            }
            last_end = end;
        }
        told.push(Moment {
            state: state(&status["state"]),
            restarts,
            started: status["started"].as_bool().unwrap_or_default(),
            ready: status["ready"].as_bool().unwrap_or_default(),
        });
    }
    told
}

fn containers(history: &[Seen], list: &str) -> Vec<String> {
    let statuses = history.iter().filter_map(|seen| seen.pod["status"][list].as_array()).next_back();
    statuses.into_iter().flatten().map(|status| text(&status["name"])).collect()
}

fn state(state: &Value) -> String {
    if state["running"].is_object() {
        return "Running".to_owned();
    }
    if state["terminated"].is_object() {
        return terminated(&state["terminated"]);
    }
    let (reason, message) = (text(&state["waiting"]["reason"]), text(&state["waiting"]["message"]));
    if message.is_empty() { reason } else { format!("{reason} ({message})") }
}

fn terminated(state: &Value) -> String {
    let message = state["message"]
        .as_str()
        .map(|message| format!(" ({})", message.trim_end().replace('\n', "\\n")))
        .unwrap_or_default();
    format!("{} {}{message}", text(&state["reason"]), state["exitCode"])
}

fn condition(pod: &Value, type_: &str) -> Option<String> {
    let found = pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)?;
    let reason = text(&found["reason"]);
    let status = text(&found["status"]);
    Some(if reason.is_empty() { status } else { format!("{status}/{reason}") })
}

fn line(name: &str, values: impl Iterator<Item = String>) -> String {
    let mut values: Vec<String> = values.collect();
    values.dedup();
    format!("{name}: {}", values.join(" > "))
}

fn plain(text: &str, names: &Names) -> String {
    names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
