//! A Deployment's rolling update keeps `maxSurge` and `maxUnavailable` in what it does itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Cause, Lately, Loss, State};
use crate::tree;

/// What Deployments allowed lately, by their UID.
#[derive(Default)]
pub(super) struct History {
    /// How many Pods there may be.
    most: BTreeMap<String, Lately>,
    /// How many must serve.
    least: BTreeMap<String, Lately>,
}

impl State {
    pub(super) fn note_rollouts(&mut self) {
        let State { objects, rollouts, .. } = self;
        let deployments = objects.iter().filter(|(place, _)| place.0 == "deployments.apps");
        for (_, deployment) in deployments {
            let (most, least) = bounds(deployment);
            let uid = tree::uid(deployment).to_owned();
            rollouts.most.entry(uid.clone()).or_default().note(most);
            rollouts.least.entry(uid).or_default().note(least);
        }
    }

    /// The Deployment that a ReplicaSet belongs to.
    fn deployment_of(&self, set: &Value) -> Option<&Value> {
        let owner = tree::controller_uid(set);
        self.all("deployments.apps").find(|deployment| tree::uid(deployment) == owner)
    }

    /// A ReplicaSet that grows must leave its Deployment within its surge.
    pub(super) fn replica_set(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let Some(set) = new else { return };
        let before = old.map_or(0, |set| tree::number(set, "/spec/replicas"));
        if tree::number(set, "/spec/replicas") <= before {
            return;
        }
        let Some(deployment) = self.deployment_of(set) else { return };
        let uid = tree::uid(deployment);
        let Some(lately) = self.rollouts.most.get(uid) else { return };
        let most = lately.values().max().unwrap_or(i64::MAX);
        let sets = self.all("replicasets.apps").filter(|set| tree::controller_uid(set) == uid);
        let total: i64 = sets.map(|set| tree::number(set, "/spec/replicas")).sum();
        if total > most {
            let name = tree::name(deployment);
            self.accuse(format!("the Deployment {name} asks for {total} Pods, where {most} are the most it may"));
        }
    }

    /// A Pod that a ReplicaSet gave up must leave its Deployment with as many as have to serve.
    pub(super) fn check_availability(&mut self, loss: &Loss) {
        if loss.cause != Cause::ReplicaSet {
            return;
        }
        let set = self.all("replicasets.apps").find(|set| tree::uid(set) == loss.controller);
        let Some(deployment) = set.and_then(|set| self.deployment_of(set)) else { return };
        let uid = tree::uid(deployment);
        let Some(lately) = self.rollouts.least.get(uid).filter(|lately| lately.is_old()) else { return };
        let least = lately.values().min().unwrap_or(0);
        let sets = self.all("replicasets.apps").filter(|set| tree::controller_uid(set) == uid);
        let sets: BTreeSet<&str> = sets.map(tree::uid).collect();
        let pods = self.all("pods").filter(|pod| sets.contains(tree::controller_uid(pod)));
        let healthy = pods.filter(|pod| tree::is_healthy(pod)).count() as i64;
        let others = self.losses.iter().filter(|loss| loss.cause != Cause::ReplicaSet);
        let lost = others.filter(|loss| sets.contains(&*loss.controller)).count() as i64;
        if healthy + lost < least {
            let name = tree::name(deployment);
            self.accuse(format!(
                "the Deployment {name} is left with {healthy} Pods that serve, where {least} are the least; {lost} were lost otherwise"
            ));
        }
    }
}

/// How many Pods there may be, and how many must serve.
fn bounds(deployment: &Value) -> (i64, i64) {
    let replicas = tree::number(deployment, "/spec/replicas");
    let strategy = &deployment["spec"]["strategy"];
    if strategy["type"] != "RollingUpdate" {
        return (i64::MAX, 0);
    }
    let surge = tree::share(&strategy["rollingUpdate"]["maxSurge"], replicas, true);
    let unavailable = tree::share(&strategy["rollingUpdate"]["maxUnavailable"], replicas, false);
    // Both rounded to nothing: one Pod may be missing.
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    (replicas + surge, (replicas - unavailable).max(0))
}
