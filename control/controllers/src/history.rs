//! ControllerRevisions: what a DaemonSet's or StatefulSet's template was. `kubectl rollout history` reads them, and
//! `kubectl rollout undo` applies an old one, which makes it the newest revision again.
//!
//! A revision holds the patch that gives its owner the template back. Each template has one: going back to an old template
//! raises the number of its revision instead of making another.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, runtime::RawExtension},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    core::Selector,
};
use serde_json::{Value, json};
use wherry_reconcile::{
    Expectations, Informer, ObjectKey,
    hash::data_hash,
    informer::revision_of,
    ownership::{self, Claim, Claimer, controller_of, owner_reference},
};

use crate::{
    context::Context,
    error::{self, Error},
    hand::Owner,
};

/// The label of Pods (and of a DaemonSet's revisions) that tells the revision they are of.
pub(crate) const HASH: &str = "controller-revision-hash";
/// The index of revisions by the UID of their controller, or by their namespace where they have none.
const BY_CONTROLLER: &str = "controller";
const MAX_NAME: usize = 253;
/// How many names are tried where others have taken what a template hashes to.
const TRIES: i32 = 16;

/// A look at an owner's revisions.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// That of the present template.
    pub(crate) current: Arc<ControllerRevision>,
    /// The others, oldest first.
    pub(crate) old: Vec<Arc<ControllerRevision>>,
    /// How often another template was found to have a name.
    pub(crate) collisions: Option<i32>,
}

/// What an owner's revisions are made from.
pub(crate) struct Versioned<'a> {
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) selector: &'a LabelSelector,
    /// The label of revisions that holds their hash.
    pub(crate) hash_label: &'static str,
    pub(crate) collisions: Option<i32>,
}

/// Keeps the revisions of the objects of a controller.
pub(crate) struct Keeper {
    client: Client,
    revisions: Informer<ControllerRevision>,
    written: Expectations,
}

impl Keeper {
    pub(crate) fn new(context: &Context) -> Self {
        let revisions: Informer<ControllerRevision> = context.informers.get();
        revisions.index(BY_CONTROLLER, |revision| match controller_of(&revision.metadata) {
            Some(owner) => vec![owner.uid.clone()],
            None => vec![orphans(revision.metadata.namespace.as_deref().unwrap_or_default())],
        });
        Self { client: context.client.clone(), revisions, written: Expectations::default() }
    }

    /// The cache that it reads.
    pub(crate) fn informer(&self) -> &Informer<ControllerRevision> {
        &self.revisions
    }

    /// Whether the cache shows everything that earlier passes wrote.
    pub(crate) fn is_current(&self, key: &ObjectKey) -> bool {
        self.written.satisfied(key, self.revisions.revision(), |_| false)
    }

    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.written.forget(key);
    }

    fn api(&self, namespace: &str) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The owner's revisions, with one for the present template, made or renumbered where it has to be.
    pub(crate) async fn sync<K: Owner>(&self, owner: &K, wanted: &Versioned<'_>) -> Result<History, Error> {
        let mut known = self.claim(owner, wanted.selector).await?;
        let data = data(wanted.template);
        match find(&mut known, &data) {
            Some(current) => {
                let newest = known.last().map_or(0, |revision| revision.revision);
                let current = if current.revision > newest {
                    current
                } else {
                    self.renumber(owner, &current, newest + 1).await?
                };
                Ok(History { current, old: known, collisions: wanted.collisions })
            }
            None => {
                let number = known.last().map_or(0, |revision| revision.revision) + 1;
                let (current, collisions) = self.create(owner, wanted, data, number).await?;
                Ok(History { current, old: known, collisions })
            }
        }
    }

    /// The revisions that are the owner's, after adopting and releasing what has to be; oldest first.
    async fn claim<K: Owner>(
        &self,
        owner: &K,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let Ok(selector) = Selector::try_from(selector.clone()) else {
            return Ok(Vec::new());
        };
        let claimer = Claimer { owner: owner.meta(), selector: &selector };
        let key = ObjectKey::of(owner);
        let uid = owner.meta().uid.as_deref().unwrap_or_default();
        let api = self.api(&key.namespace);
        let mut candidates = self.revisions.by_index(BY_CONTROLLER, uid);
        candidates.extend(self.revisions.by_index(BY_CONTROLLER, &orphans(&key.namespace)));
        let mut claimed = Vec::new();
        for revision in candidates {
            match claimer.decide(&revision.metadata) {
                Claim::Keep => claimed.push(revision),
                Claim::Ignore => {}
                Claim::Release => ownership::release(&api, &*revision, uid, &[]).await?,
                Claim::Adopt => {
                    let adopted = ownership::adopt(&api, &*revision, &owner_reference(owner), &[]).await;
                    if let Some(adopted) = error::gone_is_fine(adopted)? {
                        self.written.wrote(&key, revision_of(&adopted));
                        claimed.push(Arc::new(adopted));
                    }
                }
            }
        }
        sort(&mut claimed);
        Ok(claimed)
    }

    async fn renumber<K: Owner>(
        &self,
        owner: &K,
        revision: &ControllerRevision,
        number: i64,
    ) -> Result<Arc<ControllerRevision>, Error> {
        let key = ObjectKey::of(owner);
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({ "metadata": { "uid": revision.metadata.uid }, "revision": number });
        let updated = self.api(&key.namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        self.written.wrote(&key, revision_of(&updated));
        Ok(Arc::new(updated))
    }

    async fn create<K: Owner>(
        &self,
        owner: &K,
        wanted: &Versioned<'_>,
        data: Value,
        number: i64,
    ) -> Result<(Arc<ControllerRevision>, Option<i32>), Error> {
        let key = ObjectKey::of(owner);
        let api = self.api(&key.namespace);
        let mut collisions = wanted.collisions;
        for _ in 0..TRIES {
            let revision = revision(owner, wanted, &data, collisions, number);
            if owner.meta().deletion_timestamp.is_some() {
                // It has lost its revisions to the garbage collector already, which would take this one as well, again and again
                // for as long as its Pods are awaited.
                return Ok((Arc::new(revision), collisions));
            }
            let name = revision.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), &revision).await {
                Ok(created) => {
                    self.written.wrote(&key, revision_of(&created));
                    return Ok((Arc::new(created), collisions));
                }
                Err(error) if error::already_exists(&error) => {
                    // Our own, of which the cache does not know yet, or another template with the same hash.
                    let there = api.get(&name).await?;
                    let uid = owner.meta().uid.as_deref().unwrap_or_default();
                    if ownership::is_controlled_by(&there.metadata, uid) && content(&there) == Some(&data) {
                        self.written.wrote(&key, revision_of(&there));
                        return Ok((Arc::new(there), collisions));
                    }
                    collisions = Some(collisions.unwrap_or(0) + 1);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::HashCollision(key.to_string()))
    }

    /// Deletes what is older than the newest `limit` revisions that nothing is of.
    pub(crate) async fn prune<K: Owner>(
        &self,
        owner: &K,
        history: &History,
        limit: Option<i32>,
        is_live: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), Error> {
        let key = ObjectKey::of(owner);
        let api = self.api(&key.namespace);
        for revision in expired(&history.old, limit, is_live) {
            let name = revision.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: revision.metadata.uid.clone(), resource_version: None }),
                ..DeleteParams::default()
            };
            error::gone_is_fine(api.delete(name, &params).await)?;
        }
        Ok(())
    }
}

fn orphans(namespace: &str) -> String {
    format!("orphans in {namespace}")
}

fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|a, b| {
        let age = |r: &ControllerRevision| {
            (r.revision, r.metadata.creation_timestamp.as_ref().map(|time| time.0), r.metadata.name.clone())
        };
        age(a).cmp(&age(b))
    });
}

/// The patch that gives the owner this template: whole, not merged into what is there.
fn data(template: &PodTemplateSpec) -> Value {
    // A template that was decoded from JSON always encodes.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

fn content(revision: &ControllerRevision) -> Option<&Value> {
    revision.data.as_ref().map(|data| &data.0)
}

/// Takes the newest of the revisions with this content.
fn find(known: &mut Vec<Arc<ControllerRevision>>, data: &Value) -> Option<Arc<ControllerRevision>> {
    let position = known.iter().rposition(|revision| content(revision) == Some(data))?;
    Some(known.remove(position))
}

/// The revisions beyond the limit that nothing is of, oldest first.
fn expired(
    old: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let idle: Vec<_> = old.iter().filter(|revision| !is_live(revision)).cloned().collect();
    let surplus = idle.len().saturating_sub(limit);
    idle.into_iter().take(surplus).filter(|revision| revision.metadata.deletion_timestamp.is_none()).collect()
}

fn revision<K: Owner>(
    owner: &K,
    wanted: &Versioned<'_>,
    data: &Value,
    collisions: Option<i32>,
    number: i64,
) -> ControllerRevision {
    let hash = data_hash(data, collisions);
    let mut name = owner.meta().name.clone().unwrap_or_default();
    name.truncate(MAX_NAME - hash.len() - 1);
    let mut labels = wanted.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(wanted.hash_label.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            // Among them the cause of the change, which `kubectl rollout history` shows.
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data.clone())),
        revision: number,
    }
}

/// The hash that a revision was named by.
pub(crate) fn hash_of<'a>(revision: &'a ControllerRevision, label: &str) -> &'a str {
    revision.metadata.labels.as_ref().and_then(|labels| labels.get(label)).map(String::as_str).unwrap_or_default()
}

/// The name of a revision.
pub(crate) fn name_of(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The values of [`HASH`] that Pods have.
pub(crate) fn hashes<'a>(pods: impl Iterator<Item = &'a k8s_openapi::api::core::v1::Pod>) -> BTreeSet<String> {
    pods.filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH).cloned()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbered(number: i64, content: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(format!("web-{number}")), ..ObjectMeta::default() },
            data: Some(RawExtension(content.into())),
            revision: number,
        })
    }

    #[test]
    fn a_template_is_told_by_its_content() {
        let mut known = vec![numbered(1, "a"), numbered(2, "b"), numbered(3, "c")];
        assert_eq!(find(&mut known, &"b".into()).unwrap().revision, 2);
        assert_eq!(known.iter().map(|r| r.revision).collect::<Vec<_>>(), [1, 3]);
        assert!(find(&mut known, &"b".into()).is_none());
    }

    #[test]
    fn data_replaces_the_template() {
        let template: PodTemplateSpec =
            serde_json::from_value(json!({ "metadata": { "labels": { "app": "web" } } })).unwrap();
        let expected = r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}}}}}"#;
        assert_eq!(data(&template).to_string(), expected);
    }

    proptest! {
        #[test]
        fn live_revisions_and_the_newest_idle_ones_stay(live in prop::collection::vec(any::<bool>(), 0..20), limit in 0i32..12) {
            let old: Vec<_> = (0..live.len()).map(|n| numbered(n as i64, "")).collect();
            let gone = expired(&old, Some(limit), |revision| live[revision.revision as usize]);
            let idle: Vec<_> = (0..live.len()).filter(|n| !live[*n]).map(|n| n as i64).collect();
            let expected = &idle[..idle.len().saturating_sub(limit as usize)];
            prop_assert_eq!(gone.iter().map(|r| r.revision).collect::<Vec<_>>(), expected);
        }
    }
}
