//! The workloads of the simulation, drawn at random.

use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};

/// A kind of workload: its path and its name in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    Budget,
}

impl Kind {
    /// The collection in a namespace.
    pub(crate) fn path(self, namespace: &str) -> String {
        let (group, plural) = match self {
            Self::Deployment => ("apps/v1", "deployments"),
            Self::ReplicaSet => ("apps/v1", "replicasets"),
            Self::StatefulSet => ("apps/v1", "statefulsets"),
            Self::DaemonSet => ("apps/v1", "daemonsets"),
            Self::Job => ("batch/v1", "jobs"),
            Self::Budget => ("policy/v1", "poddisruptionbudgets"),
        };
        format!("/apis/{group}/namespaces/{namespace}/{plural}")
    }
}

/// The template of an app's Pods, of a version.
fn template(random: &mut StdRng, app: &str, version: u32) -> Value {
    let grace: i64 = random.random_range(1..30);
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": grace,
            "containers": [{"name": "main", "image": format!("app:{version}"), "resources": {"requests": {"cpu": "100m"}}}],
        },
    })
}

/// Draws one of several.
pub(crate) fn one_of<T: Clone>(random: &mut StdRng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())].clone()
}

/// A workload of a kind.
pub(crate) fn workload(random: &mut StdRng, kind: Kind, name: &str) -> Value {
    let replicas: i64 = random.random_range(0..6);
    let selector = json!({"matchLabels": {"app": name}});
    let mut template = template(random, name, 1);
    let spec = match kind {
        Kind::Deployment => {
            json!({"replicas": replicas, "selector": selector, "template": template, "strategy": strategy(random),
                "revisionHistoryLimit": random.random_range(0..3)})
        }
        Kind::ReplicaSet => json!({"replicas": replicas, "selector": selector, "template": template}),
        Kind::StatefulSet => json!({
            "replicas": replicas, "selector": selector, "template": template, "serviceName": name,
            "podManagementPolicy": one_of(random, &["OrderedReady", "Parallel"]),
        }),
        Kind::DaemonSet => {
            let surge = random.random_bool(0.5);
            let bounds = if surge { json!({"maxSurge": 1, "maxUnavailable": 0}) } else { json!({"maxUnavailable": 1}) };
            json!({"selector": selector, "template": template, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": bounds}})
        }
        Kind::Job => {
            template["spec"]["restartPolicy"] = json!(one_of(random, &["Never", "OnFailure"]));
            json!({
                "completions": random.random_range(1..6), "parallelism": random.random_range(1..4), "backoffLimit": 100,
                "completionMode": one_of(random, &["NonIndexed", "Indexed"]), "template": template,
                "podReplacementPolicy": one_of(random, &["TerminatingOrFailed", "Failed"]),
            })
        }
        Kind::Budget => {
            let bounds = [
                json!({"minAvailable": 1}),
                json!({"minAvailable": 2}),
                json!({"minAvailable": "50%"}),
                json!({"maxUnavailable": 1}),
                json!({"maxUnavailable": "40%"}),
                json!({"maxUnavailable": 0}),
            ];
            let mut spec = one_of(random, &bounds);
            spec["selector"] = selector;
            spec["unhealthyPodEvictionPolicy"] = json!(one_of(random, &["AlwaysAllow", "IfHealthyBudget"]));
            spec
        }
    };
    let (version, kind) = match kind {
        Kind::Job => ("batch/v1", "Job"),
        Kind::Budget => ("policy/v1", "PodDisruptionBudget"),
        Kind::Deployment => ("apps/v1", "Deployment"),
        Kind::ReplicaSet => ("apps/v1", "ReplicaSet"),
        Kind::StatefulSet => ("apps/v1", "StatefulSet"),
        Kind::DaemonSet => ("apps/v1", "DaemonSet"),
    };
    if kind == "Job" {
        // A Job makes its own selector.
        let mut spec = spec;
        if spec["template"]["spec"]["restartPolicy"] == "OnFailure" {
            spec["podReplacementPolicy"] = json!("TerminatingOrFailed");
        }
        return json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    }
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// How a Deployment rolls.
pub(crate) fn strategy(random: &mut StdRng) -> Value {
    if random.random_bool(0.3) {
        return json!({"type": "Recreate", "rollingUpdate": null});
    }
    let (surge, unavailable) = one_of(
        random,
        &[
            (json!(1), json!(0)),
            (json!(0), json!(1)),
            (json!(2), json!(1)),
            (json!("25%"), json!("25%")),
            (json!("50%"), json!(0)),
        ],
    );
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}
