//! Nobody grants more than they hold.
//!
//! Who writes a role must hold all of its rules where the role is, or the verb `escalate` on it; who writes a binding must hold
//! all rules of its role, or the verb `bind` on that role. An aggregation rule can gather anything: it takes everything.
//! Upstream does this around the storage of the four kinds, after mutating admission: this is the last plugin.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::status::{GroupResource, Status};

use super::index::RoleRef;
use super::rules;
use crate::admission::{Attributes, Operation, Plugin};
use crate::layers::authorize::{self, Authorizer as _, Rule};
use crate::user::MASTERS;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) struct NoEscalation;

#[async_trait]
impl Plugin for NoEscalation {
    fn name(&self) -> &'static str {
        "NoEscalation"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let resource = attributes.resource;
        if resource.group != GROUP || attributes.operation == Operation::Delete {
            return Ok(());
        }
        if attributes.user.in_group(MASTERS) || attributes.old.is_some_and(|old| collects_garbage(object, old)) {
            return Ok(());
        }
        match resource.kind.as_str() {
            "Role" | "ClusterRole" => role(attributes, object),
            _ => binding(attributes, object),
        }
    }
}

/// Whether nothing but what the garbage collector writes is different.
fn collects_garbage(new: &Value, old: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        let metadata = meta::metadata_mut(&mut object);
        for key in ["ownerReferences", "finalizers", "managedFields"] {
            metadata.remove(key);
        }
        object
    };
    stripped(new) == stripped(old)
}

fn role(attributes: &Attributes<'_>, role: &Value) -> Result<(), Status> {
    // A role that is not there yet has no name that a rule could name.
    let name = if attributes.operation == Operation::Create { "" } else { attributes.name };
    if may(attributes, "escalate", &attributes.resource.plural, name) {
        return Ok(());
    }
    holds(attributes, &rules::of_role(role)).map_err(|why| forbidden(attributes, &why))?;
    let aggregates =
        |role: &Value| role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|list| !list.is_empty());
    if (aggregates(role) || attributes.old.is_some_and(aggregates)) && holds(attributes, &everything()).is_err() {
        return Err(forbidden(attributes, "must have cluster-admin privileges to use the aggregationRule"));
    }
    Ok(())
}

fn binding(attributes: &Attributes<'_>, binding: &Value) -> Result<(), Status> {
    let role = RoleRef::of(binding);
    let (plural, singular) = match role.kind.as_str() {
        "ClusterRole" => ("clusterroles", "clusterrole"),
        "Role" => ("roles", "role"),
        kind => {
            let error = FieldError::not_supported(&Path::new("roleRef.kind"), kind, &["ClusterRole", "Role"]);
            return Err(Status::invalid(GROUP, &attributes.resource.kind, attributes.name, &[error]));
        }
    };
    if may(attributes, "bind", plural, &role.name) {
        return Ok(());
    }
    let rules = attributes.engine.rbac.role(&role, attributes.namespace);
    let rules = rules.map_err(|_| Status::not_found(&GroupResource::new(GROUP, singular), &role.name))?;
    holds(attributes, &rules).map_err(|why| forbidden(attributes, &why))
}

fn forbidden(attributes: &Attributes<'_>, why: &str) -> Status {
    Status::forbidden(&attributes.resource.group_resource(), attributes.name, why)
}

/// Whether the writer has a verb of its own for this.
fn may(attributes: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let asked = authorize::Attributes {
        is_resource: true,
        verb,
        group: GROUP,
        resource,
        namespace: attributes.namespace,
        name,
        ..authorize::Attributes::default()
    };
    attributes.engine.authorizer.authorize(attributes.user, &asked).is_allowed()
}

/// Nothing if the writer holds `wanted` in the namespace, else what is missing.
fn holds(attributes: &Attributes<'_>, wanted: &[Rule]) -> Result<(), String> {
    let user = attributes.user;
    let held = attributes.engine.rbac.rules(user, attributes.namespace);
    let missing = rules::missing(&held.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        rules::quoted(&user.groups),
        rules::describe(missing).join("\n")
    );
    if !held.errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", super::aggregate(held.errors)));
    }
    Err(why)
}

fn everything() -> [Rule; 2] {
    [json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), json!({"verbs": ["*"], "nonResourceURLs": ["*"]})]
        .map(|rule| Rule::from_value(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_collection_changes_owners_and_finalizers() {
        let old = json!({"metadata": {"name": "a", "finalizers": ["x"]}, "rules": []});
        assert!(collects_garbage(&json!({"metadata": {"name": "a"}, "rules": []}), &old));
        assert!(!collects_garbage(&json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "rules": []}), &old));
        assert!(!collects_garbage(&json!({"metadata": {"name": "a"}, "rules": [{}]}), &old));
    }
}
