//! Who controls an object, and how a controller claims what its selector matches.
//!
//! An object has at most one controller: the owner reference with `controller: true`. A controller keeps what it owns and
//! selects, releases what it owns and no longer selects, and adopts orphans that it selects. The decision is
//! [`Claimer::decide`]; [`adopt`] and [`release`] carry it out. Both patches name the object's UID, so they never hit
//! another object that took the same name.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{
    Api, Resource,
    api::{ObjectMeta, Patch, PatchParams},
    core::{Selector, SelectorExt},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// The owner reference of the object's controller.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object is controlled by the owner with this UID.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// A reference that makes `owner` the controller of what carries it, and holds back the owner's foreground deletion.
pub fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether labels satisfy a selector. A selector that is not valid matches nothing; the server refuses those.
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let empty = BTreeMap::new();
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels.unwrap_or(&empty)))
}

/// What to do about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Keep,
    /// It has no controller and matches: make it ours.
    Adopt,
    /// It is ours and matches no more: let it go.
    Release,
    /// It is someone else's, or nobody's business.
    Ignore,
}

/// The controller's side of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Claimer<'a> {
    /// The controlling object.
    pub owner: &'a ObjectMeta,
    /// What it selects.
    pub selector: &'a Selector,
}

impl Claimer<'_> {
    /// What to do about the object described by `meta`.
    pub fn decide(&self, meta: &ObjectMeta) -> Claim {
        let empty = BTreeMap::new();
        let matches = self.selector.matches(meta.labels.as_ref().unwrap_or(&empty));
        let deleting = self.owner.deletion_timestamp.is_some();
        match controller_of(meta) {
            Some(owner) if Some(&owner.uid) != self.owner.uid.as_ref() => Claim::Ignore,
            Some(_) if matches => Claim::Keep,
            Some(_) if deleting => Claim::Ignore,
            Some(_) => Claim::Release,
            None if !matches || deleting || meta.deletion_timestamp.is_some() => Claim::Ignore,
            None if meta.namespace != self.owner.namespace => Claim::Ignore,
            None => Claim::Adopt,
        }
    }
}

/// Makes `owner` the controller of `object`, and gives it the `finalizers` that this controller's objects have. Check first,
/// uncached, that the owner still exists and is not being deleted.
pub async fn adopt<K>(api: &Api<K>, object: &K, owner: &OwnerReference, finalizers: &[&str]) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut patch = json!({ "metadata": { "uid": object.meta().uid, "ownerReferences": [owner] } });
    if !finalizers.is_empty() {
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    patch_owners(api, object, patch).await
}

/// Removes the owner with this UID, and the `finalizers` of its controller, from `object`. Gone objects count as released.
pub async fn release<K>(api: &Api<K>, object: &K, owner_uid: &str, finalizers: &[&str]) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let reference = json!({ "$patch": "delete", "uid": owner_uid });
    let mut patch = json!({ "metadata": { "uid": object.meta().uid, "ownerReferences": [reference] } });
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    match patch_owners(api, object, patch).await {
        Ok(_) => Ok(()),
        // 404: it is gone. 422: another object has its name now, or it lost the reference already.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 422 => Ok(()),
        Err(error) => Err(error),
    }
}

async fn patch_owners<K>(api: &Api<K>, object: &K, patch: serde_json::Value) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn meta(app: &str, controller: Option<&str>, deleting: bool) -> ObjectMeta {
        ObjectMeta {
            namespace: Some("default".into()),
            uid: Some("owner".into()),
            labels: Some([("app".to_owned(), app.to_owned())].into()),
            owner_references: controller
                .map(|uid| vec![OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() }]),
            deletion_timestamp: deleting.then_some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)),
            ..Default::default()
        }
    }

    #[test]
    fn claims() {
        let selector: Selector = [("app", "web")].into_iter().collect();
        let table = [
            (false, meta("web", Some("owner"), false), Claim::Keep),
            (false, meta("db", Some("owner"), false), Claim::Release),
            (true, meta("db", Some("owner"), false), Claim::Ignore),
            (false, meta("web", Some("other"), false), Claim::Ignore),
            (false, meta("web", None, false), Claim::Adopt),
            (false, meta("web", None, true), Claim::Ignore),
            (true, meta("web", None, false), Claim::Ignore),
            (false, meta("db", None, false), Claim::Ignore),
        ];
        for (deleting, object, expected) in table {
            let owner = meta("web", None, deleting);
            let claimer = Claimer { owner: &owner, selector: &selector };
            assert_eq!(claimer.decide(&object), expected, "{object:?}");
        }
    }
}
