//! An eviction never takes a budget's healthy Pods below what it demands.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Cause, Lately, Loss, State};
use crate::tree;

/// What each budget demanded lately, by its UID.
#[derive(Default)]
pub(super) struct History(BTreeMap<String, Lately>);

impl State {
    /// How many Pods a budget demands, as things are.
    pub(super) fn demand(&self, budget: &Value) -> i64 {
        let spec = &budget["spec"];
        let of = |share: &Value| {
            if share.is_string() || !spec["maxUnavailable"].is_null() { self.expected(budget) } else { 0 }
        };
        match (&spec["minAvailable"], &spec["maxUnavailable"]) {
            (Value::Null, Value::Null) => 0,
            (Value::Null, most) => (of(most) - tree::share(most, of(most), true)).max(0),
            (least, _) => tree::share(least, of(least), true),
        }
    }

    /// How many Pods the owners of a budget's Pods want; one that has none yet (a Deployment that is paused) counts nothing.
    fn expected(&self, budget: &Value) -> i64 {
        let covered = self.all("pods").filter(|pod| {
            tree::namespace(pod) == tree::namespace(budget)
                && tree::selects(&budget["spec"]["selector"], &pod["metadata"]["labels"])
        });
        let controllers: BTreeSet<&str> = covered.map(tree::controller_uid).collect();
        let has_pods = |owner: &&Value| controllers.contains(tree::uid(owner));
        let sets = self.all("replicasets.apps").filter(has_pods);
        let (of_deployments, alone): (Vec<_>, Vec<_>) = sets.partition(|set| tree::controller(set).is_some());
        let deployments: BTreeSet<&str> = of_deployments.into_iter().map(tree::controller_uid).collect();
        let deployments = self.all("deployments.apps").filter(|owner| deployments.contains(tree::uid(owner)));
        let owners = deployments.chain(self.all("statefulsets.apps").filter(has_pods)).chain(alone);
        owners.map(|owner| tree::number(owner, "/spec/replicas")).sum()
    }

    /// Notes what budgets and Deployments ask for now.
    pub(super) fn note_bounds(&mut self) {
        let budgets = self.all("poddisruptionbudgets.policy");
        let demands: Vec<_> = budgets.map(|budget| (tree::uid(budget).to_owned(), self.demand(budget))).collect();
        for (uid, demand) in demands {
            self.budgets.0.entry(uid).or_default().note(demand);
        }
        self.note_rollouts();
    }

    /// Checks the budgets that cover a Pod that was lost to an eviction.
    pub(super) fn check_budgets(&mut self, loss: &Loss) {
        if loss.cause != Cause::Eviction {
            return;
        }
        let mut broken = None;
        for budget in self.all("poddisruptionbudgets.policy") {
            let selector = &budget["spec"]["selector"];
            if tree::namespace(budget) != loss.namespace || !tree::selects(selector, &loss.labels) {
                continue;
            }
            let covered =
                |namespace: &str, labels: &Value| namespace == loss.namespace && tree::selects(selector, labels);
            let pods = self.all("pods").filter(|pod| covered(tree::namespace(pod), &pod["metadata"]["labels"]));
            let healthy = pods.filter(|pod| tree::is_healthy(pod)).count() as i64;
            let others = self.losses.iter().filter(|loss| loss.cause != Cause::Eviction);
            let lost = others.filter(|loss| covered(&loss.namespace, &loss.labels)).count() as i64;
            let demands = self.budgets.0.get(tree::uid(budget));
            let demand = demands.and_then(|lately| lately.values().min()).unwrap_or(0);
            if healthy + lost < demand {
                let name = tree::name(budget);
                broken = Some(format!(
                    "an eviction left {healthy} healthy Pods of the budget {name}, which demands {demand}; {lost} were lost otherwise"
                ));
            }
        }
        if let Some(broken) = broken {
            self.accuse(broken);
        }
    }
}
