//! A Pod that names no service account runs as its namespace's `default`.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::meta;
use wherry_api::status::Status;

use super::{Attributes, Operation, Plugin};

pub(super) struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if !attributes.is_pod() || attributes.operation != Operation::Create {
            return Ok(());
        }
        // A mirror Pod shows what runs on a node anyway; it gets no account.
        if meta::annotation(object, "kubernetes.io/config.mirror").is_some() {
            return Ok(());
        }
        let spec = meta::map_mut(object, "spec");
        let given = spec.get("serviceAccountName").and_then(Value::as_str).filter(|n| !n.is_empty());
        // The old name of the field mirrors the new one.
        let name = given.unwrap_or("default").to_owned();
        spec.insert("serviceAccount".to_owned(), name.clone().into());
        spec.insert("serviceAccountName".to_owned(), name.into());
        Ok(())
    }
}
