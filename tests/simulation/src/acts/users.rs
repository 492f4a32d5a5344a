//! What users ask for.

use std::collections::BTreeSet;

use http::Method;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{Acts, Due};
use crate::{
    manifests::{Kind, one_of, strategy, workload},
    rest::send,
    tree,
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

impl Acts<'_> {
    async fn post(&self, path: &str, body: &Value) {
        self.say(Method::POST, path, Some(body)).await;
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) {
        self.say(Method::PATCH, path, Some(body)).await;
    }

    pub(super) async fn say(&self, method: Method, path: &str, body: Option<&Value>) {
        say(&self.client, method, path, body).await;
    }

    fn app(&mut self) -> (&'static str, &'static str, Kind) {
        let namespace = if self.random.random_bool(0.8) { NAMESPACES[0] } else { NAMESPACES[1] };
        let (name, kind) = one_of(&mut self.random, &APPS);
        (namespace, name, kind)
    }

    pub(super) async fn create(&mut self) {
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

    pub(super) async fn scale(&mut self) {
        let (namespace, name, kind) = self.app();
        let replicas: i64 = self.random.random_range(0..7);
        let change = match kind {
            Kind::Job => json!({"spec": {"parallelism": self.random.random_range(1..5)}}),
            Kind::DaemonSet => json!({"spec": {"minReadySeconds": replicas}}),
            _ => json!({"spec": {"replicas": replicas}}),
        };
        self.patch(&format!("{}/{name}", kind.path(namespace)), &change).await;
    }

    pub(super) async fn roll_out(&mut self) {
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
    pub(super) async fn pause(&mut self) {
        let (namespace, name, kind) = self.app();
        let halted = self.random.random_bool(0.5);
        let change = match kind {
            Kind::Deployment => json!({"spec": {"paused": halted}}),
            Kind::Job => json!({"spec": {"suspend": halted}}),
            _ => return,
        };
        self.patch(&format!("{}/{name}", kind.path(namespace)), &change).await;
    }

    pub(super) async fn delete(&mut self) {
        let (namespace, name, kind) = self.app();
        let kind = if self.random.random_bool(0.2) { Kind::Budget } else { kind };
        let policy = one_of(&mut self.random, &["Background", "Foreground", "Orphan"]);
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        self.say(Method::DELETE, &format!("{}/{name}", kind.path(namespace)), Some(&options)).await;
    }

    pub(super) async fn delete_pod(&mut self) {
        let pods = self.witness.all("pods");
        if !pods.is_empty() {
            let pod = one_of(&mut self.random, &pods);
            let path = format!("/api/v1/namespaces/{}/pods/{}", tree::namespace(&pod), tree::name(&pod));
            self.say(Method::DELETE, &path, None).await;
        }
    }

    pub(super) async fn delete_namespace(&mut self) {
        self.say(Method::DELETE, "/api/v1/namespaces/other", None).await;
    }

    pub(super) async fn begin_drain(&mut self) {
        let node = self.node();
        self.patch(&format!("/api/v1/nodes/{node}"), &json!({"spec": {"unschedulable": true}})).await;
        self.later(200_000, Due::Uncordon(node.clone()));
        self.drain(node, 20).await;
    }

    /// Evicts what is on a node; again later what was refused, as `kubectl drain` does.
    pub(super) async fn drain(&mut self, node: String, tries: u32) {
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
