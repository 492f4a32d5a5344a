//! `/connections`: how often the node's clients connect to Services, counted by the kernel where it leads them to an endpoint. The same
//! for both kinds, since it is nothing of the endpoint's.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use wherry_network::ServiceKey;

use super::points::{Point, Points, SHORTEST};
use super::usage::timestamp;
use crate::ports::NodeNet;

/// Counts connections, when somebody asks.
#[derive(Default)]
pub(crate) struct Connections {
    network: OnceLock<Arc<dyn NodeNet>>,
    points: Mutex<Points>,
}

impl Connections {
    /// Tells it the node's network, once that is there.
    pub(crate) fn set_network(&self, network: Arc<dyn NodeNet>) {
        let _first = self.network.set(network);
    }

    /// `{timestamp, windowSeconds, services: [{namespace, name, connections}]}`; connections are a second. Waits for a second where nobody
    /// has asked for long.
    pub(crate) async fn document(&self) -> Value {
        let mut points = self.points.lock().await;
        loop {
            let (at, clock) = (SystemTime::now(), Instant::now());
            let counted = match self.network.get() {
                Some(network) => network.connections().await.unwrap_or_default(),
                None => HashMap::new(),
            };
            let counts = counted.iter().map(|(key, count)| (name(key), count.saturating_mul(1000))).collect();
            let now = Point { at: clock, counts };
            points.push(now.clone());
            if let Some(base) = points.base(clock) {
                let services = counted.keys().map(|key| {
                    let milli = base.rate_until(&now, &name(key));
                    json!({ "namespace": key.namespace, "name": key.name, "connections": format!("{milli}m") })
                });
                let window = clock.saturating_duration_since(base.at).as_secs();
                let services: Vec<_> = services.collect();
                return json!({ "timestamp": timestamp(at), "windowSeconds": window, "services": services });
            }
            tokio::time::sleep(SHORTEST).await;
        }
    }
}

fn name(key: &ServiceKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}
