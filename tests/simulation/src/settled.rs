//! What must hold once nothing changes any more: everything is exactly as it was asked for, and nothing else is there.

use std::{collections::BTreeSet, ops::RangeInclusive};

use serde_json::Value;

use crate::{machines::Machines, tree, witness::Witness};

/// Everything that is not as it should be.
pub(crate) fn complaints(witness: &Witness, machines: &Machines) -> Vec<String> {
    let kinds = ["deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch"];
    let view = View {
        pods: witness.all("pods"),
        nodes: witness.all("nodes"),
        owners: kinds.into_iter().flat_map(|kind| witness.all(kind)).collect(),
        budgets: witness.all("poddisruptionbudgets.policy"),
        complaints: Vec::new(),
    };
    view.complain(witness, machines)
}

struct View {
    pods: Vec<Value>,
    nodes: Vec<Value>,
    owners: Vec<Value>,
    budgets: Vec<Value>,
    complaints: Vec<String>,
}

impl View {
    fn complain(mut self, witness: &Witness, machines: &Machines) -> Vec<String> {
        self.check_orphans(witness);
        self.check_nodes(machines);
        for owner in self.owners.clone() {
            match tree::text(&owner, "/kind") {
                "Deployment" => self.deployment(&owner),
                "ReplicaSet" => self.replica_set(&owner),
                "StatefulSet" => self.stateful_set(&owner),
                "DaemonSet" => self.daemon_set(&owner),
                _ => self.job(&owner, &witness.successes(&owner)),
            }
        }
        for budget in self.budgets.clone() {
            let demand = witness.demand(&budget);
            self.budget(&budget, demand);
        }
        self.complaints
    }

    fn expect(&mut self, holds: bool, object: &Value, what: impl FnOnce() -> String) {
        if !holds {
            let (kind, namespace, name) = (tree::text(object, "/kind"), tree::namespace(object), tree::name(object));
            self.complaints.push(format!("{kind} {namespace}/{name} {}", what()));
        }
    }

    fn expect_numbers(&mut self, object: &Value, wanted: &[(&str, i64)]) {
        let mut wanted = wanted.to_vec();
        wanted.push(("observedGeneration", tree::number(object, "/metadata/generation")));
        for (field, wanted) in wanted {
            let found = tree::number(object, &format!("/status/{field}"));
            self.expect(found == wanted, object, || format!("says {field} {found}, which is {wanted}"));
        }
    }

    /// The Pods of an owner that have not ended.
    fn pods_of(&self, uid: &str) -> Vec<Value> {
        let pods = self.pods.iter().filter(|pod| tree::controller_uid(pod) == uid && tree::is_active(pod));
        pods.cloned().collect()
    }

    /// Everything that has a controller has that controller; nothing is on its way out; nothing is in no namespace.
    fn check_orphans(&mut self, witness: &Witness) {
        let uids: BTreeSet<String> = self.owners.iter().map(|owner| tree::uid(owner).to_owned()).collect();
        let namespaces = witness.all("namespaces");
        let names: BTreeSet<String> = namespaces.iter().map(|namespace| tree::name(namespace).to_owned()).collect();
        for namespace in &namespaces {
            self.expect(!tree::is_deleting(namespace), namespace, || "is still being deleted".to_owned());
        }
        let all: Vec<Value> = self.pods.iter().chain(&self.owners).chain(&self.budgets).cloned().collect();
        for object in &all {
            self.expect(!tree::is_deleting(object), object, || {
                format!("is still being deleted: {}", object["metadata"]["finalizers"])
            });
            let owner = tree::controller_uid(object);
            self.expect(owner.is_empty() || uids.contains(owner), object, || "has lost its controller".to_owned());
            let lives = names.contains(tree::namespace(object));
            self.expect(lives, object, || "is in a namespace that is gone".to_owned());
        }
    }

    /// Every node is there, and runs what it is to run.
    fn check_nodes(&mut self, machines: &Machines) {
        let mut running = BTreeSet::new();
        for node in self.nodes.clone() {
            self.expect(tree::has(&node, "Ready"), &node, || "is not Ready".to_owned());
            let taints = &node["spec"]["taints"];
            self.expect(taints.as_array().is_none_or(Vec::is_empty), &node, || format!("is tainted: {taints}"));
            running.extend(machines.on(tree::name(&node)));
        }
        for pod in self.pods.clone() {
            let runs = running.remove(tree::uid(&pod));
            let active = tree::is_active(&pod);
            let phase = tree::text(&pod, "/status/phase");
            self.expect(runs == active, &pod, || format!("is {phase}; there is a process of it: {runs}"));
            self.expect(!active || tree::is_healthy(&pod), &pod, || "does not serve".to_owned());
        }
        for uid in running {
            self.complaints.push(format!("a process of the Pod {uid}, which is gone, still runs"));
        }
    }

    fn deployment(&mut self, deployment: &Value) {
        let replicas = tree::number(deployment, "/spec/replicas");
        let sets: Vec<Value> =
            self.owners.iter().filter(|set| tree::controller_uid(set) == tree::uid(deployment)).cloned().collect();
        if deployment["spec"]["paused"] == true {
            return;
        }
        let mut newest = 0;
        for set in &sets {
            let size = tree::number(set, "/spec/replicas");
            if same_template(&set["spec"]["template"], &deployment["spec"]["template"]) {
                newest += 1;
                self.expect(size == replicas, set, || format!("has {size} replicas instead of {replicas}"));
            } else {
                self.expect(size == 0, set, || format!("is old and has {size} replicas"));
            }
        }
        self.expect(newest == 1, deployment, || format!("has {newest} ReplicaSets of its template"));
        let limit = tree::number(deployment, "/spec/revisionHistoryLimit");
        let old = sets.len() as i64 - newest;
        self.expect(old <= limit, deployment, || format!("has {old} old ReplicaSets, {limit} may be kept"));
        let numbers = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
        self.expect_numbers(deployment, &numbers.map(|field| (field, replicas)));
        self.expect_numbers(deployment, &[("unavailableReplicas", 0)]);
        self.expect(tree::has(deployment, "Available"), deployment, || "is not Available".to_owned());
    }

    fn replica_set(&mut self, set: &Value) {
        let replicas = tree::number(set, "/spec/replicas");
        let pods = self.pods_of(tree::uid(set)).len() as i64;
        self.expect(pods == replicas, set, || format!("has {pods} Pods instead of {replicas}"));
        let numbers = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        self.expect_numbers(set, &numbers.map(|field| (field, replicas)));
    }

    fn stateful_set(&mut self, set: &Value) {
        let replicas = tree::number(set, "/spec/replicas");
        let pods = self.pods_of(tree::uid(set));
        let names: BTreeSet<String> = pods.iter().map(|pod| tree::name(pod).to_owned()).collect();
        let wanted: BTreeSet<String> = (0..replicas).map(|ordinal| format!("{}-{ordinal}", tree::name(set))).collect();
        self.expect(names == wanted, set, || format!("has the Pods {names:?} instead of {wanted:?}"));
        for pod in &pods {
            self.expect(image(pod) == image(&set["spec"]["template"]), pod, || "is of an old template".to_owned());
        }
        let numbers = ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"];
        self.expect_numbers(set, &numbers.map(|field| (field, replicas)));
        let (current, update) = (&set["status"]["currentRevision"], &set["status"]["updateRevision"]);
        self.expect(current == update, set, || format!("is between the revisions {current} and {update}"));
    }

    fn daemon_set(&mut self, set: &Value) {
        let pods = self.pods_of(tree::uid(set));
        let mut on: Vec<&str> = pods.iter().map(|pod| tree::text(pod, "/spec/nodeName")).collect();
        on.sort_unstable();
        let mut wanted: Vec<String> = self.nodes.iter().map(|node| tree::name(node).to_owned()).collect();
        wanted.sort_unstable();
        self.expect(on == wanted, set, || format!("runs on {on:?} instead of {wanted:?}"));
        for pod in &pods {
            self.expect(image(pod) == image(&set["spec"]["template"]), pod, || "is of an old template".to_owned());
        }
        let count = wanted.len() as i64;
        let numbers = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "numberAvailable",
            "updatedNumberScheduled",
        ];
        self.expect_numbers(set, &numbers.map(|field| (field, count)));
        self.expect_numbers(set, &[("numberMisscheduled", 0), ("numberUnavailable", 0)]);
    }

    fn job(&mut self, job: &Value, successes: &RangeInclusive<i64>) {
        let pods = self.pods_of(tree::uid(job)).len();
        self.expect(pods == 0, job, || format!("has {pods} Pods that have not ended"));
        let active = tree::number(job, "/status/active");
        self.expect(active == 0, job, || format!("says that {active} Pods are active"));
        if job["spec"]["suspend"] == true && !tree::has(job, "Complete") {
            return;
        }
        self.expect(tree::has(job, "Complete"), job, || format!("is not complete: {}", job["status"]));
        let completions = tree::number(job, "/spec/completions");
        let succeeded = tree::number(job, "/status/succeeded");
        self.expect(successes.contains(&succeeded), job, || format!("counts {succeeded} instead of {successes:?}"));
        if job["spec"]["completionMode"] == "Indexed" {
            let indexes = tree::indexes(tree::text(job, "/status/completedIndexes"));
            let all: Vec<i64> = (0..completions).collect();
            self.expect(indexes == all, job, || format!("has completed {indexes:?} of {completions}"));
        }
        let held = self.pods.iter().filter(|pod| tree::controller_uid(pod) == tree::uid(job));
        let held =
            held.filter(|pod| pod["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())).count();
        self.expect(held == 0, job, || format!("still holds {held} Pods"));
    }

    fn budget(&mut self, budget: &Value, demand: i64) {
        let covered = |pod: &&Value| {
            tree::namespace(pod) == tree::namespace(budget)
                && tree::selects(&budget["spec"]["selector"], &pod["metadata"]["labels"])
        };
        let healthy = self.pods.iter().filter(covered).filter(|pod| tree::is_healthy(pod)).count() as i64;
        // Where no Pods are expected, none may be disturbed.
        let expected = tree::number(budget, "/status/expectedPods");
        let allowed = if expected == 0 { 0 } else { (healthy - demand).max(0) };
        self.expect_numbers(
            budget,
            &[("currentHealthy", healthy), ("desiredHealthy", demand), ("disruptionsAllowed", allowed)],
        );
    }
}

fn image(pod: &Value) -> &str {
    tree::text(pod, "/spec/containers/0/image")
}

/// Whether a ReplicaSet's template is its Deployment's.
fn same_template(of_set: &Value, wanted: &Value) -> bool {
    let mut found = of_set.clone();
    if let Some(labels) = found.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    found == *wanted
}
