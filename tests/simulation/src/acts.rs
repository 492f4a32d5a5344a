//! What befalls the cluster: what users ask for, and what ends, breaks or goes dark.

mod users;

use std::time::Duration;

use http::Method;
use rand::{Rng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::Instant;
use wherry_server::User;

use crate::{
    cluster::{CONTROLLERS, Cluster, SCHEDULER},
    manifests::one_of,
    witness::Witness,
};

/// What will happen of itself.
enum Due {
    Start(String),
    Drain(String, u32),
    Uncordon(String),
}

/// Whoever does all this.
pub(crate) struct Acts<'a> {
    pub(crate) cluster: Cluster,
    random: StdRng,
    witness: &'a Witness,
    client: kube::Client,
    drainer: kube::Client,
    nodes: Vec<String>,
    due: Vec<(Instant, Due)>,
    version: u32,
}

impl<'a> Acts<'a> {
    pub(crate) fn new(cluster: Cluster, mut random: StdRng, witness: &'a Witness) -> Self {
        let client = cluster.network.administrator();
        let drainer = cluster.network.troubled(User::admin(), "user");
        let nodes = (0..random.random_range(2..5)).map(|node| format!("node-{node}")).collect();
        Self { cluster, random, witness, client, drainer, nodes, due: Vec::new(), version: 1 }
    }

    /// Starts everything and makes the first workloads.
    pub(crate) async fn begin(&mut self) {
        for node in self.nodes.clone() {
            self.cluster.start(&node);
        }
        self.cluster.start(CONTROLLERS);
        self.cluster.start(SCHEDULER);
        for _ in 0..self.random.random_range(2..6) {
            self.create().await;
        }
    }

    /// Lets `count` things happen, one after another.
    pub(crate) async fn befall(&mut self, count: usize) {
        for _ in 0..count {
            let pause = if self.random.random_bool(0.1) { 60_000 } else { 8000 };
            let until = Instant::now() + Duration::from_millis(self.random.random_range(0..pause));
            self.pass_until(until).await;
            if self.witness.violation().is_some() {
                return;
            }
            self.act().await;
        }
    }

    /// Puts an end to all trouble: who was away comes back.
    pub(crate) async fn make_peace(&mut self) {
        self.cluster.network.heal();
        {
            let mut fortune = self.cluster.fortune.lock();
            fortune.falters = 0.0;
            fortune.fails = 0.0;
        }
        self.due.clear();
        self.cluster.start(CONTROLLERS);
        self.cluster.start(SCHEDULER);
        for node in self.nodes.clone() {
            self.cluster.start(&node);
            self.patch(&format!("/api/v1/nodes/{node}"), &json!({"spec": {"unschedulable": null}})).await;
        }
    }

    /// Waits, and does meanwhile what is due.
    async fn pass_until(&mut self, until: Instant) {
        loop {
            let first = self.due.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(index, (at, _))| (index, *at));
            let Some((index, at)) = first.filter(|(_, at)| *at < until) else { break };
            let (_, due) = self.due.remove(index);
            tokio::time::sleep_until(at).await;
            self.carry_out(due).await;
        }
        tokio::time::sleep_until(until).await;
    }

    async fn carry_out(&mut self, due: Due) {
        match due {
            Due::Start(part) => self.cluster.start(&part),
            Due::Uncordon(node) => {
                self.patch(&format!("/api/v1/nodes/{node}"), &json!({"spec": {"unschedulable": null}})).await;
            }
            Due::Drain(node, tries) => self.drain(node, tries).await,
        }
    }

    fn later(&mut self, most: u64, due: Due) {
        let delay = Duration::from_millis(self.random.random_range(0..most));
        self.due.push((Instant::now() + delay, due));
    }

    async fn act(&mut self) {
        match self.random.random_range(0..100) {
            0..18 => self.create().await,
            18..33 => self.scale().await,
            33..48 => self.roll_out().await,
            48..53 => self.pause().await,
            53..62 => self.delete().await,
            62..67 => self.delete_pod().await,
            67..74 => self.begin_drain().await,
            74..76 => self.delete_namespace().await,
            76..81 => self.crash(CONTROLLERS, 60_000),
            81..84 => self.crash(SCHEDULER, 60_000),
            84..86 => {
                tracing::info!(target: "act", "the server restarts");
                if let Err(error) = self.cluster.restart_server() {
                    self.witness.accuse(format!("the server does not start again: {error}"));
                }
            }
            86..88 => self.cluster.forget_history(),
            88..92 => {
                let actor = self.somebody();
                let time = Duration::from_millis(self.random.random_range(0..60_000));
                tracing::info!(target: "act", actor, ?time, "is cut off");
                self.cluster.network.cut_off(&actor, time);
            }
            92..96 => {
                let node = self.node();
                self.crash(&node, 30_000);
            }
            _ => self.lose_machine().await,
        }
    }

    fn node(&mut self) -> String {
        one_of(&mut self.random, &self.nodes)
    }

    fn somebody(&mut self) -> String {
        let node = self.node();
        one_of(&mut self.random, &[CONTROLLERS.to_owned(), SCHEDULER.to_owned(), node])
    }

    fn crash(&mut self, part: &str, most: u64) {
        tracing::info!(target: "act", part, "crashes");
        self.cluster.crash(part);
        self.later(most, Due::Start(part.to_owned()));
    }

    /// A machine goes dark with all that runs on it, for long; somebody may take it for gone and remove its Node.
    async fn lose_machine(&mut self) {
        let node = self.node();
        tracing::info!(target: "act", node, "the machine loses its power");
        self.cluster.crash(&node);
        self.cluster.machines.power_off(&node);
        if self.random.random_bool(0.4) {
            self.say(Method::DELETE, &format!("/api/v1/nodes/{node}"), None).await;
        }
        let most = if self.random.random_bool(0.5) { 60_000 } else { 600_000 };
        self.later(most, Due::Start(node));
    }
}
