//! Nothing is created in a namespace that is not there or is going away, and the first namespaces stay.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::meta;
use wherry_api::status::{Cause, GroupResource, Status};

use super::{Attributes, Operation, Plugin};
use crate::objects;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        let namespaces = GroupResource::new("", "namespaces");
        let itself = attributes.resource.group.is_empty() && attributes.resource.plural == "namespaces";
        if itself {
            if attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name) {
                return Err(Status::forbidden(&namespaces, attributes.name, "this namespace may not be deleted"));
            }
            return Ok(());
        }
        if attributes.namespace.is_empty() || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(entry) = attributes.engine.lookup("namespaces", "", attributes.namespace) else {
            return Err(Status::not_found(&namespaces, attributes.namespace));
        };
        let namespace = objects::stored_tree(&entry)?;
        if meta::deletion_timestamp(&namespace).is_none() {
            return Ok(());
        }
        let gr = attributes.resource.group_resource();
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            attributes.namespace
        );
        Err(Status::forbidden(&gr, attributes.name, why).with_cause(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {} is being terminated", attributes.namespace),
            field: "metadata.namespace".to_owned(),
        }))
    }
}
