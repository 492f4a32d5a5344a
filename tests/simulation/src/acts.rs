//! What befalls the cluster: what users ask for, and what ends, breaks or goes dark.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::Instant;
use wherry_server::User;

use crate::{
    cluster::{CONTROLLERS, Cluster, SCHEDULER},
    manifests::{Kind, one_of, strategy, workload},
    rest::send,
    tree,
    witness::Witness,
};

const NAMESPACES: [&str; 2] = ["default", "other"];
/// Names of workloads, and of which kind each is.
const APPS: [(&str, Kind); 8] = [
    ("web", Kind::Deployment),
    ("api", Kind::Deployment),
    ("set", Kind::ReplicaSet),
    ("db", Kind::StatefulSet),
    ("queue", Kind::StatefulSet),
    ("log", Kind::DaemonSet),
    ("sums", Kind::Job),
    ("mail", Kind::Job),
];

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

    async fn post(&self, path: &str, body: &Value) {
        self.say(Method::POST, path, Some(body)).await;
    }

    async fn patch(&self, path: &str, body: &Value) {
        self.say(Method::PATCH, path, Some(body)).await;
    }

    async fn say(&self, method: Method, path: &str, body: Option<&Value>) {
        say(&self.client, method, path, body).await;
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

    fn app(&mut self) -> (&'static str, &'static str, Kind) {
        let namespace = if self.random.random_bool(0.8) { NAMESPACES[0] } else { NAMESPACES[1] };
        let (name, kind) = one_of(&mut self.random, &APPS);
        (namespace, name, kind)
    }

    async fn create(&mut self) {
        let (namespace, name, kind) = self.app();
        if namespace != NAMESPACES[0] {
            self.post("/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await;
        }
        let object = workload(&mut self.random, kind, name);
        self.post(&kind.path(namespace), &object).await;
        if kind != Kind::Job && kind != Kind::DaemonSet && self.random.random_bool(0.6) {
            let budget = workload(&mut self.random, Kind::Budget, name);
            self.post(&Kind::Budget.path(namespace), &budget).await;
        }
    }

    async fn scale(&mut self) {
        let (namespace, name, kind) = self.app();
        let replicas: i64 = self.random.random_range(0..7);
        let change = match kind {
            Kind::Job => json!({"spec": {"parallelism": self.random.random_range(1..5)}}),
            Kind::DaemonSet => json!({"spec": {"minReadySeconds": replicas}}),
            _ => json!({"spec": {"replicas": replicas}}),
        };
        self.patch(&format!("{}/{name}", kind.path(namespace)), &change).await;
    }

    async fn roll_out(&mut self) {
        let (namespace, name, kind) = self.app();
        if kind == Kind::Job {
            return;
        }
        // Also back to what was.
        let version = if self.random.random_bool(0.3) { self.version.max(2) - 1 } else { self.version + 1 };
        self.version = self.version.max(version);
        let image = format!("app:{version}");
        let mut change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
        if kind == Kind::Deployment && self.random.random_bool(0.2) {
            change["spec"]["strategy"] = strategy(&mut self.random);
        }
        self.patch(&format!("{}/{name}", kind.path(namespace)), &change).await;
    }

    /// Halts a Deployment or a Job, or lets it go on.
    async fn pause(&mut self) {
        let (namespace, name, kind) = self.app();
        let halted = self.random.random_bool(0.5);
        let change = match kind {
            Kind::Deployment => json!({"spec": {"paused": halted}}),
            Kind::Job => json!({"spec": {"suspend": halted}}),
            _ => return,
        };
        self.patch(&format!("{}/{name}", kind.path(namespace)), &change).await;
    }

    async fn delete(&mut self) {
        let (namespace, name, kind) = self.app();
        let kind = if self.random.random_bool(0.2) { Kind::Budget } else { kind };
        let policy = one_of(&mut self.random, &["Background", "Foreground", "Orphan"]);
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        self.say(Method::DELETE, &format!("{}/{name}", kind.path(namespace)), Some(&options)).await;
    }

    async fn delete_pod(&mut self) {
        let pods = self.witness.all("pods");
        if !pods.is_empty() {
            let pod = one_of(&mut self.random, &pods);
            let path = format!("/api/v1/namespaces/{}/pods/{}", tree::namespace(&pod), tree::name(&pod));
            self.say(Method::DELETE, &path, None).await;
        }
    }

    async fn delete_namespace(&mut self) {
        self.say(Method::DELETE, "/api/v1/namespaces/other", None).await;
    }

    async fn begin_drain(&mut self) {
        let node = self.node();
        self.patch(&format!("/api/v1/nodes/{node}"), &json!({"spec": {"unschedulable": true}})).await;
        self.later(200_000, Due::Uncordon(node.clone()));
        self.drain(node, 20).await;
    }

    /// Evicts what is on a node; again later what was refused, as `kubectl drain` does.
    async fn drain(&mut self, node: String, tries: u32) {
        let mut left = BTreeSet::new();
        for pod in self.witness.all("pods") {
            let daemon = tree::controller(&pod).is_some_and(|owner| owner["kind"] == "DaemonSet");
            if tree::text(&pod, "/spec/nodeName") == node && !daemon && tree::is_active(&pod) {
                left.insert((tree::namespace(&pod).to_owned(), tree::name(&pod).to_owned()));
            }
        }
        // All at once, and over the same bad ways as everybody's requests.
        let drainer = &self.drainer;
        let evictions = left.iter().map(|(namespace, name)| async move {
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}});
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
            say(drainer, Method::POST, &path, Some(&eviction)).await;
        });
        futures::future::join_all(evictions).await;
        if !left.is_empty() && tries > 0 {
            self.later(5000, Due::Drain(node, tries - 1));
        }
    }
}

/// Asks for something. Users are refused, too: then it did not happen.
async fn say(client: &kube::Client, method: Method, path: &str, body: Option<&Value>) {
    let outcome = send(client, method.clone(), path, body).await;
    let refused = outcome.err().map(|error| error.to_string());
    tracing::info!(target: "act", %method, path, body = body.map(|body| body.to_string()), refused);
}
