//! Claims and Ingresses that name no class get the default one; of several defaults, the newest.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::meta;
use wherry_api::status::Status;

use super::{Attributes, Plugin};
use crate::objects;

pub(super) struct DefaultStorageClass;
pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        const MARKS: [&str; 2] =
            ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        // An empty name is a choice too: it asks for a volume without a class.
        let named = meta::annotation(object, "volume.beta.kubernetes.io/storage-class").is_some()
            || object["spec"]["storageClassName"].is_string();
        if !attributes.creates("", "persistentvolumeclaims") || named {
            return Ok(());
        }
        if let Some(class) = default(attributes, "storageclasses.storage.k8s.io", &MARKS)? {
            meta::map_mut(object, "spec").insert("storageClassName".to_owned(), class.into());
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let named = meta::annotation(object, "kubernetes.io/ingress.class").is_some()
            || object["spec"]["ingressClassName"].is_string();
        if !attributes.creates("networking.k8s.io", "ingresses") || named {
            return Ok(());
        }
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) = default(attributes, "ingressclasses.networking.k8s.io", &marks)? {
            meta::map_mut(object, "spec").insert("ingressClassName".to_owned(), class.into());
        }
        Ok(())
    }
}

/// The name of the newest class that bears one of the marks; of classes of the same second, the first by name.
fn default(attributes: &Attributes<'_>, storage: &str, marks: &[&str]) -> Result<Option<String>, Status> {
    let mut newest: Option<(String, String)> = None;
    for entry in attributes.engine.everything(storage)? {
        let class = objects::stored_tree(&entry)?;
        if !marks.iter().any(|mark| meta::annotation(&class, mark) == Some("true")) {
            continue;
        }
        let made = meta::creation_timestamp(&class).unwrap_or_default();
        // Entries come in order of their names.
        if newest.as_ref().is_none_or(|(at, _)| made > at.as_str()) {
            newest = Some((made.to_owned(), meta::name(&class).to_owned()));
        }
    }
    Ok(newest.map(|(_, name)| name))
}
