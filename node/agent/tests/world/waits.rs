//! Waiting for what has to happen in a world.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::runtime::wait::{Condition, await_condition};
use serde_json::Value;

use super::{NODE, World};

/// No test waits this long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a thing that has to happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

impl World {
    /// Waits for a condition of the Node.
    pub async fn node_condition(&self, type_: &str, status: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let wanted = |node: Option<&Node>| {
            let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == type_ && one.status == status))
        };
        soon(&format!("{type_} {status}"), await_condition(nodes, NODE, wanted)).await.unwrap();
    }

    /// Waits for a Pod's status, as JSON.
    pub async fn status(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool + Send) -> Value {
        let found = soon(
            what,
            await_condition(self.pods(), name, Wanted(|pod: &Pod| wanted(&serde_json::to_value(&pod.status).unwrap()))),
        )
        .await;
        serde_json::to_value(found.unwrap().unwrap().status).unwrap()
    }

    pub async fn ready(&self, name: &str) -> Value {
        self.status(name, "readiness", |status| condition(status, "Ready") == "True").await
    }

    /// Waits until the container of this name waits with this reason.
    pub async fn waiting(&self, name: &str, reason: &str) -> Value {
        self.status(name, reason, |status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason).await
    }

    pub async fn gone(&self, name: &str) {
        soon("the end of the Pod", await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_none()))
            .await
            .unwrap();
    }

    /// Waits for an event about a Pod; its message.
    pub async fn event(&self, name: &str, reason: &str, part: &str) -> String {
        let events = self.agent.as_ref().unwrap().informers.get::<Event>();
        let mut changes = events.subscribe();
        soon(&format!("event {reason} {part:?}"), async {
            while let Some(change) = changes.next().await {
                if let Some(event) = change.new
                    && event.involved_object.name.as_deref() == Some(name)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().unwrap_or_default().contains(part)
                {
                    return event.message.clone().unwrap_or_default();
                }
            }
            panic!("the informer ended")
        })
        .await
    }

    /// Waits for an event about a part of a Pod; its message.
    pub async fn event_about(&self, name: &str, reason: &str, field: &str) -> String {
        let events = self.agent.as_ref().unwrap().informers.get::<Event>();
        let mut changes = events.subscribe();
        soon(&format!("event {reason} about {field}"), async {
            while let Some(change) = changes.next().await {
                if let Some(event) = change.new
                    && event.involved_object.name.as_deref() == Some(name)
                    && event.involved_object.field_path.as_deref() == Some(field)
                    && event.reason.as_deref() == Some(reason)
                {
                    return event.message.clone().unwrap_or_default();
                }
            }
            panic!("the informer ended")
        })
        .await
    }
}

pub fn condition<'a>(status: &'a Value, type_: &str) -> &'a str {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions
        .iter()
        .find(|condition| condition["type"] == type_)
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
}

struct Wanted<F>(F);

impl<F: Fn(&Pod) -> bool> Condition<Pod> for Wanted<F> {
    fn matches_object(&self, pod: Option<&Pod>) -> bool {
        pod.is_some_and(|pod| (self.0)(pod))
    }
}
