//! Admission: plugins that look at a write, and may change or refuse it.
//!
//! ```text
//! default -> admit (all plugins, may change) -> prepare -> the kind's validation -> validate (all plugins, may refuse) -> store
//! ```
//!
//! The plugins and their order are upstream's ([`Chain::builtin`]). A plugin sees the object with its defaults filled in; what
//! it adds is validated like what the client sent. What is refused by the kind's own validation never reaches `validate`, so
//! nothing is charged for it.

pub(crate) mod amounts;
mod certificates;
mod default_class;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod notes;
mod pod_security;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod tolerations;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::resource::Resource;
use wherry_api::status::Status;

pub(crate) use notes::Notes;
pub(crate) use storage::class as class_of_claim;

use crate::User;
use crate::engine::{Call, Engine};
use crate::rbac::escalation::NoEscalation;

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
    pub(crate) engine: &'a Arc<Engine>,
    /// Who writes.
    pub(crate) user: &'a User,
    pub(crate) operation: Operation,
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The object as it is stored before an update; none for creates, and for deletes, which begin before it is read.
    pub(crate) old: Option<&'a Value>,
    /// Whether nothing will be stored whatever is decided.
    pub(crate) dry_run: bool,
    /// What plugins have to say beside yes and no.
    pub(crate) notes: &'a Notes,
}

impl<'a> Attributes<'a> {
    /// What `call` asks for by its address; who knows more of the write says so over it.
    pub(crate) fn of(call: &'a Call, operation: Operation, notes: &'a Notes) -> Self {
        Self {
            engine: &call.engine,
            user: &call.user,
            operation,
            resource: &call.resource,
            subresource: "",
            namespace: call.namespace(),
            name: call.name(),
            old: None,
            dry_run: false,
            notes,
        }
    }

    /// Whether this is about objects of a resource themselves, not about a subresource.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource.is_empty()
    }

    /// Whether this is about Pods themselves.
    pub(crate) fn is_pod(&self) -> bool {
        self.is("", "pods")
    }

    /// Whether this makes an object of a resource.
    pub(crate) fn creates(&self, group: &str, plural: &str) -> bool {
        self.operation == Operation::Create && self.is(group, plural)
    }

    /// A refusal.
    pub(crate) fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.resource.group_resource(), self.name, why)
    }
}

/// One concern of admission. A plugin implements the stages that it needs.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// The plugin's name, as in upstream's flags.
    fn name(&self) -> &'static str;

    /// Looks at a write and may change it. `object` is what is to be stored; null for deletes.
    async fn admit(&self, _attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Looks at a write as it will be stored and may refuse it.
    async fn validate(&self, _attributes: &Attributes<'_>, _object: &Value) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins, in order.
#[derive(Clone)]
pub(crate) struct Chain(Arc<[Box<dyn Plugin>]>);

impl Chain {
    /// The plugins of this server, in upstream's order (`AllOrderedPlugins`).
    pub(crate) fn builtin() -> Self {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccount),
            Box::new(node_restriction::NodeRestriction),
            Box::new(node_taint::TaintNodesByCondition),
            Box::new(pod_security::PodSecurity),
            Box::new(priority::Priority),
            Box::new(tolerations::DefaultTolerationSeconds),
            Box::new(default_class::DefaultStorageClass),
            Box::new(storage::StorageObjectInUseProtection),
            Box::new(storage::PersistentVolumeClaimResize),
            Box::new(runtime_class::RuntimeClass),
            Box::new(certificates::CertificateRequester),
            Box::new(certificates::CertificateApproval),
            Box::new(certificates::CertificateSigning),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(default_class::DefaultIngressClass),
            Box::new(NoEscalation),
            // Plugins that are configured at run time (policies, webhooks) belong here; the quota stays last.
            Box::new(resource_quota::ResourceQuota),
        ];
        Self(plugins.into())
    }

    /// Runs the stage that may change `object`.
    pub(crate) async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        for plugin in self.0.iter() {
            plugin.admit(attributes, object).await.map_err(|status| refused(plugin.as_ref(), attributes, status))?;
        }
        Ok(())
    }

    /// Runs the stage that may only refuse.
    pub(crate) async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        for plugin in self.0.iter() {
            plugin.validate(attributes, object).await.map_err(|status| refused(plugin.as_ref(), attributes, status))?;
        }
        Ok(())
    }
}

fn refused(plugin: &dyn Plugin, attributes: &Attributes<'_>, status: Status) -> Status {
    tracing::debug!(plugin = plugin.name(), user = %attributes.user.name, dry_run = attributes.dry_run, resource = %attributes.resource.plural, name = attributes.name, %status, "refused");
    status
}
