//! Nothing is created beyond what the namespace's quotas allow. The last plugin: what is charged here is written next.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use wherry_api::status::Status;
use wherry_store::Key;

use super::{Attributes, Operation, Plugin};
use crate::quota::{Change, Measure, Refusal};

pub(super) struct ResourceQuota;

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        if attributes.namespace.is_empty() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let resource = &attributes.resource.storage.resource;
        let Some(measure) = Measure::of(resource) else {
            return Ok(());
        };
        if !measure.charges(attributes.operation, attributes.subresource, attributes.old, object) {
            return Ok(());
        }
        let key = Key::new(resource.clone(), attributes.namespace, attributes.name);
        let change = Change { measure, resource, old: attributes.old, new: object, now: Timestamp::now() };
        let charged = attributes.engine.quotas.charge(attributes.engine, key, &change, attributes.dry_run).await;
        match charged {
            Ok(charge) => {
                charge.into_iter().for_each(|charge| attributes.notes.hold(charge));
                Ok(())
            }
            Err(Refusal::Full(why)) => Err(attributes.forbidden(why)),
            Err(Refusal::Failed(status)) => Err(status),
        }
    }
}
