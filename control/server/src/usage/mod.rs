//! What nodes and Pods use and do, asked of the agents when somebody asks here. Nothing is stored.
//!
//! An agent's word is taken for the Pods that are bound to its node, by their uids, and for no others.

pub(crate) mod custom;
pub(crate) mod resource;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use wherry_api::quantity::Quantity;
use wherry_api::status::Status;
use wherry_store::Entry;

use crate::agents;
use crate::engine::{Call, Engine};

/// Where agents tell what their node and Pods use.
const USAGE: &str = "/usage";
/// Agents that are asked at once.
const AT_ONCE: usize = 32;
/// How long an agent has: it may wait a second to see a rate.
const TIME: Duration = Duration::from_secs(5);
/// As much as 16,000 Pods need.
const LIMIT: usize = 32 << 20;

/// An agent's `/usage`.
#[derive(Debug, Deserialize)]
struct OfNode {
    timestamp: String,
    window: String,
    #[serde(rename = "windowSeconds")]
    window_seconds: u64,
    node: Usage,
    #[serde(deserialize_with = "by_uid")]
    pods: HashMap<String, OfPod>,
}

fn by_uid<'de, D: Deserializer<'de>>(pods: D) -> Result<HashMap<String, OfPod>, D::Error> {
    Ok(Vec::<OfPod>::deserialize(pods)?.into_iter().map(|pod| (pod.uid.clone(), pod)).collect())
}

#[derive(Debug, Deserialize)]
struct OfPod {
    uid: String,
    /// HTTP requests a second, where its runtime sees them.
    requests: Option<String>,
    containers: Vec<OfContainer>,
}

#[derive(Debug, Deserialize)]
struct OfContainer {
    name: String,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Debug, Deserialize)]
struct Usage {
    usage: BTreeMap<String, String>,
}

impl Usage {
    /// As it is shown: what is no quantity is no answer.
    fn value(&self) -> Option<Value> {
        let known = self.usage.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
        known
            .map(|(name, text)| {
                Some((name.clone(), Value::from(text.parse::<Quantity>().ok().map(|_| text.as_str())?)))
            })
            .collect()
    }
}

/// What the agents say of some Pods.
struct Told(HashMap<String, OfNode>);

impl Told {
    /// Asks the agents of these Pods' nodes.
    async fn of_pods(call: &Call, pods: &[Arc<Entry>]) -> Self {
        let mut names: Vec<&str> = pods.iter().map(|pod| node_of(pod)).filter(|node| !node.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        Self(ask(call, &names, USAGE).await)
    }

    /// What is said of one, and its node's whole answer.
    fn find(&self, pod: &Entry) -> Option<(&OfNode, &OfPod)> {
        let of = self.0.get(node_of(pod))?;
        Some((of, of.pods.get(&*pod.uid)?))
    }
}

fn node_of(pod: &Entry) -> &str {
    pod.attributes.field("spec.nodeName")
}

/// Asks the agents; those that cannot answer are left out, as their Pods are.
async fn ask<T: DeserializeOwned + Send + 'static>(
    call: &Call,
    nodes: &[&str],
    path: &'static str,
) -> HashMap<String, T> {
    let asked: Vec<_> =
        nodes.iter().map(|node| one(Arc::clone(&call.engine), (*node).to_owned(), path).boxed()).collect();
    stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

async fn one<T: DeserializeOwned>(engine: Arc<Engine>, node: String, path: &'static str) -> Option<(String, T)> {
    let told = agents::document(&engine, &node, path, LIMIT, TIME).await;
    match told.and_then(|bytes| serde_json::from_slice(&bytes).map_err(Status::internal)) {
        Ok(told) => Some((node, told)),
        Err(error) => {
            tracing::debug!(node, path, error = error.message, "a node does not tell what it uses");
            None
        }
    }
}
