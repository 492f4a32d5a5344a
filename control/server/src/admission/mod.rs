//! Admission: plugins that look at a write before it is validated, and may change or refuse it.
//!
//! The order is upstream's. A plugin sees the object with its defaults filled in; what it adds is validated like
//! what the client sent.

mod namespace_lifecycle;
mod priority;
mod service_account;
mod tolerations;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::resource::Resource;
use wherry_api::status::Status;

use crate::engine::Engine;

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Kubernetes' own")]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// A write on its way.
pub(crate) struct Attributes<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) operation: Operation,
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl Attributes<'_> {
    /// Whether this is about Pods themselves.
    fn is_pod(&self) -> bool {
        self.resource.group.is_empty() && self.resource.plural == "pods" && self.subresource.is_empty()
    }
}

/// One concern of admission.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// The plugin's name, as in upstream's flags.
    fn name(&self) -> &'static str;

    /// Looks at a write. `object` is what is to be stored; null for deletes.
    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status>;
}

/// The plugins, in order.
#[derive(Clone)]
pub(crate) struct Chain(Arc<[Box<dyn Plugin>]>);

impl Chain {
    /// The plugins of this server.
    pub(crate) fn builtin() -> Self {
        Self(Arc::from(vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle) as Box<dyn Plugin>,
            Box::new(service_account::ServiceAccount),
            Box::new(priority::Priority),
            Box::new(tolerations::DefaultTolerationSeconds),
        ]))
    }

    pub(crate) async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        for plugin in self.0.iter() {
            if let Err(status) = plugin.admit(attributes, object).await {
                tracing::debug!(plugin = plugin.name(), resource = %attributes.resource.plural, name = attributes.name, %status, "refused");
                return Err(status);
            }
        }
        Ok(())
    }
}
