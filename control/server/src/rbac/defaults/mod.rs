//! The roles and bindings that every cluster has: upstream's bootstrap policy, as a table of facts.
//!
//! `table.txt` is written by `facts/policy.py` from what upstream checks its own policy against:
//!
//! ```text
//! ClusterRole NAME [to:ROLE | of:ROLE]...        to: it is gathered by the role, of: it gathers what is for the role
//! Role NAMESPACE/NAME
//!   VERBS GROUPS RESOURCES [NAMES]               a rule; `-` is the core group
//!   VERBS url PATHS
//! ClusterRoleBinding NAME KIND/NAME [SUBJECT]... user:NAME, group:NAME, account:NAMESPACE/NAME
//! RoleBinding NAMESPACE/NAME KIND/NAME [SUBJECT]...
//! ```
//!
//! At each start what is missing is made, and what was taken from one is added again, unless its annotation
//! `rbac.authorization.kubernetes.io/autoupdate` says `false`; what was added to one stays.

mod reconcile;
mod table;

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use wherry_api::meta;

use super::index::{BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, ROLES};
use super::rules;
use crate::engine::Engine;
use crate::layers::authorize::Rule;
use crate::objects;
use crate::server::ServerError;
use reconcile::{Action, decide};

/// Writes under way at the same time, so that they share syncs of the log.
const AT_ONCE: usize = 64;
/// How often an object is tried that somebody else writes meanwhile.
const TRIES: usize = 4;

/// The rules of the role `system:node`, by which the Node authorizer decides what it does not tell apart by node.
pub(crate) fn node_rules() -> Vec<Rule> {
    let role = table::objects().into_iter().find(|o| meta::kind(o) == "ClusterRole" && meta::name(o) == "system:node");
    role.as_ref().map(rules::of_role).unwrap_or_default()
}

/// Makes the default roles and bindings what they should be. Their namespaces must be there.
pub(crate) async fn ensure(engine: &Arc<Engine>, client: &kube::Client) -> Result<(), ServerError> {
    let objects = futures::stream::iter(table::objects());
    objects.map(Ok).try_for_each_concurrent(AT_ONCE, |object| async move { one(engine, client, &object).await }).await
}

async fn one(engine: &Engine, client: &kube::Client, expected: &Value) -> Result<(), ServerError> {
    let (kind, namespace, name) = (meta::kind(expected), meta::namespace(expected), meta::name(expected));
    let (storage, plural) = match kind {
        "Role" => (ROLES, "roles"),
        "ClusterRole" => (CLUSTER_ROLES, "clusterroles"),
        "RoleBinding" => (BINDINGS, "rolebindings"),
        _ => (CLUSTER_BINDINGS, "clusterrolebindings"),
    };
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind), plural);
    let api: Api<DynamicObject> = match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let mut last = Ok(());
    for _ in 0..TRIES {
        let existing = engine.lookup(storage, namespace, name).map(|entry| objects::stored_tree(&entry));
        let existing = existing.transpose().map_err(ServerError::Store)?;
        last = act(&api, name, existing.as_ref(), expected).await;
        match &last {
            // Somebody made, changed or deleted it meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            _ => break,
        }
    }
    last.map_err(|source| ServerError::Bootstrap { what: format!("{kind} {name}"), source: Box::new(source) })
}

async fn act(
    api: &Api<DynamicObject>,
    name: &str,
    existing: Option<&Value>,
    expected: &Value,
) -> Result<(), kube::Error> {
    let parsed =
        |object: &Value| serde_json::from_value::<DynamicObject>(object.clone()).map_err(kube::Error::SerdeError);
    let create = async || api.create(&PostParams::default(), &parsed(expected)?).await.map(drop);
    let Some(existing) = existing else {
        return create().await;
    };
    match decide(existing, expected) {
        Action::Keep => Ok(()),
        Action::Update(object) => {
            tracing::info!(kind = meta::kind(expected), name, "brought up to date with the default policy");
            api.replace(name, &PostParams::default(), &parsed(&object)?).await.map(drop)
        }
        Action::Recreate => {
            let uid = Some(meta::uid(existing).to_owned());
            let preconditions = Some(Preconditions { uid, resource_version: None });
            api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await?;
            create().await
        }
    }
}
