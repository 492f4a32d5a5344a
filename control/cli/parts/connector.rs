//! The API server's way to agents that live in its own process.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use wherry_agent::Connector;
use wherry_server::{AsyncReadWrite, ConnectError, NodeConnector};

/// The agents of this process, by node name.
#[derive(Clone, Default)]
pub(crate) struct Agents(Arc<RwLock<HashMap<String, Connector>>>);

impl Agents {
    pub(crate) fn add(&self, node: &str, connector: Connector) {
        if let Ok(mut agents) = self.0.write() {
            agents.insert(node.to_owned(), connector);
        }
    }
}

#[async_trait::async_trait]
impl NodeConnector for Agents {
    async fn connect(&self, node: &str) -> Result<Box<dyn AsyncReadWrite>, ConnectError> {
        let known = self.0.read().ok().and_then(|agents| agents.get(node).cloned());
        match known {
            Some(agent) => Ok(Box::new(agent.open())),
            None => Err(ConnectError::Unknown(node.to_owned())),
        }
    }
}
