//! The kinds that make Pods.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, Column, NAME, age, containers_and_images, count, human_duration, labels, name, number, or_none, selector,
    shown, since, truth_text, wide,
};
use crate::validation::{is_set, items, text};

const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
const SELECTOR: Column = wide("Selector", "Which pods belong to it.");

pub(crate) const DEPLOYMENT: &[Column] = &[
    NAME,
    shown("Ready", "Number of the pod with ready state"),
    shown("Up-to-date", "Pods of the current template."),
    shown("Available", "Pods ready for at least minReadySeconds."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(crate) const REPLICAS: &[Column] = &[
    NAME,
    number("Desired", "The number of pods wanted."),
    number("Current", "The number of pods there are."),
    number("Ready", "The number of pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(crate) const STATEFUL_SET: &[Column] =
    &[NAME, shown("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES];
pub(crate) const DAEMON_SET: &[Column] = &[
    NAME,
    number("Desired", "Nodes that should run the pod."),
    number("Current", "Nodes that run at least one."),
    number("Ready", "Nodes that run a ready one."),
    number("Up-to-date", "Nodes that run one of the current template."),
    number("Available", "Nodes that run an available one."),
    shown("Node Selector", "Which nodes run the pod."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(crate) const JOB: &[Column] = &[
    NAME,
    shown("Status", "Status of the job."),
    shown("Completions", "The number of pods that succeeded."),
    shown("Duration", "Time required to complete the job."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(crate) const CRON_JOB: &[Column] = &[
    NAME,
    shown("Schedule", "When jobs are started, in cron's format."),
    shown("Timezone", "The time zone of the schedule."),
    super::truth("Suspend", "Whether no further jobs are started."),
    number("Active", "The number of jobs running."),
    shown("Last Schedule", "When a job was last started."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(crate) const POD_TEMPLATE: &[Column] = &[
    NAME,
    shown("Containers", "Names of each container in the template."),
    shown("Images", "Images referenced by each container in the template."),
    shown("Pod Labels", "The labels for the pod template."),
];
pub(crate) const CONTROLLER_REVISION: &[Column] =
    &[NAME, shown("Controller", "Controller of the object"), shown("Revision", "The revision's number."), AGE];

/// `ready/desired`.
fn of_desired(object: &Value) -> Value {
    let (ready, desired) = (count(&object["status"]["readyReplicas"]), count(&object["spec"]["replicas"]));
    format!("{ready}/{desired}").into()
}

pub(crate) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [containers, images] = containers_and_images(&spec["template"]["spec"]);
    vec![
        name(object),
        of_desired(object),
        count(&status["updatedReplicas"]),
        count(&status["availableReplicas"]),
        age(object, now),
        containers,
        images,
        selector(&spec["selector"]),
    ]
}

pub(crate) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, selector(&object["spec"]["selector"]))
}

pub(crate) fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, labels(&object["spec"]["selector"]))
}

fn replicas(object: &Value, now: Timestamp, selector: Value) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [containers, images] = containers_and_images(&spec["template"]["spec"]);
    vec![
        name(object),
        count(&spec["replicas"]),
        count(&status["replicas"]),
        count(&status["readyReplicas"]),
        age(object, now),
        containers,
        images,
        selector,
    ]
}

pub(crate) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = containers_and_images(&object["spec"]["template"]["spec"]);
    vec![name(object), of_desired(object), age(object, now), containers, images]
}

pub(crate) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let template = &spec["template"]["spec"];
    let [containers, images] = containers_and_images(template);
    vec![
        name(object),
        count(&status["desiredNumberScheduled"]),
        count(&status["currentNumberScheduled"]),
        count(&status["numberReady"]),
        count(&status["updatedNumberScheduled"]),
        count(&status["numberAvailable"]),
        labels(&template["nodeSelector"]),
        age(object, now),
        containers,
        images,
        selector(&spec["selector"]),
    ]
}

pub(crate) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let succeeded = status["succeeded"].as_i64().unwrap_or(0);
    let completions = match (spec["completions"].as_i64(), spec["parallelism"].as_i64().unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let time = |key: &str| text(status, key).parse::<Timestamp>().ok();
    let duration = time("startTime")
        .map(|start| human_duration(time("completionTime").unwrap_or(now).as_second() - start.as_second()))
        .unwrap_or_default();
    let holds = |kind: &str| items(status, "conditions").iter().any(|c| c["type"] == kind && c["status"] == "True");
    let state = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if is_set(&object["metadata"], "deletionTimestamp") {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| holds(kind)).unwrap_or("Running")
    };
    let [containers, images] = containers_and_images(&spec["template"]["spec"]);
    vec![
        name(object),
        state.into(),
        completions.into(),
        duration.into(),
        age(object, now),
        containers,
        images,
        selector(&spec["selector"]),
    ]
}

pub(crate) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let job = &spec["jobTemplate"]["spec"];
    let last = &status["lastScheduleTime"];
    let [containers, images] = containers_and_images(&job["template"]["spec"]);
    vec![
        name(object),
        text(spec, "schedule").into(),
        or_none(text(spec, "timeZone")),
        truth_text(&spec["suspend"]),
        items(status, "active").len().into(),
        if last.is_null() { "<none>".into() } else { since(last, now).into() },
        age(object, now),
        containers,
        images,
        selector(&job["selector"]),
    ]
}

pub(crate) fn pod_template(object: &Value, _: Timestamp) -> Vec<Value> {
    let template = &object["template"];
    let [containers, images] = containers_and_images(&template["spec"]);
    vec![name(object), containers, images, labels(&template["metadata"]["labels"])]
}

pub(crate) fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let controller = match crate::meta::controller_of(object) {
        None => "<none>".to_owned(),
        Some(owner) => {
            let (group, _) = crate::meta::split_api_version(text(owner, "apiVersion"));
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", text(owner, "kind").to_lowercase(), text(owner, "name"))
        }
    };
    vec![name(object), controller.into(), count(&object["revision"]), age(object, now)]
}
