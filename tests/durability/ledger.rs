//! What the writers of a test asked for and were told, and the comparison of that with lists and watches.
//!
//! Each writer owns its objects and has one request under way, so every object's history is a sequence: what was
//! acknowledged, in order, and at the end at most one change of which nobody knows whether it was made.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::watch;

/// Every so many changes of a writer is a large one, so that the log rolls now and then.
const LARGE_EVERY: u64 = 48;
const LARGE: usize = 64 << 10;

/// What an object became by a change: its content's token, or nothing.
pub(crate) type Outcome = Option<String>;

/// A change as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

/// A change that was acknowledged; a delete is answered without a revision.
#[derive(Clone, Debug)]
struct Acknowledged {
    revision: Option<u64>,
    outcome: Outcome,
}

/// One object as its writer knows it.
#[derive(Debug, Default)]
struct Object {
    /// What was acknowledged since the last comparison.
    acknowledged: Vec<Acknowledged>,
    /// The change whose answer never came.
    pending: Option<Outcome>,
    /// What a comparison found, or the last acknowledgement: revision and token.
    current: Option<(u64, String)>,
}

/// A writer's objects and its dice.
pub(crate) struct Writer {
    names: Vec<String>,
    objects: BTreeMap<String, Object>,
    random: StdRng,
    changes: u64,
    label: String,
}

pub(crate) fn revision(object: &ConfigMap) -> anyhow::Result<u64> {
    Ok(object.resource_version().unwrap_or_default().parse()?)
}

pub(crate) fn token(object: &ConfigMap) -> String {
    object.data.as_ref().and_then(|data| data.get("token")).cloned().unwrap_or_default()
}

impl Writer {
    pub(crate) fn new(number: usize, objects: usize, seed: u64) -> Self {
        let names: Vec<String> = (0..objects).map(|object| format!("w{number}-{object}")).collect();
        Self {
            objects: names.iter().map(|name| (name.clone(), Object::default())).collect(),
            names,
            random: StdRng::seed_from_u64(seed ^ number as u64),
            changes: 0,
            label: format!("w{number}"),
        }
    }

    /// Writes until an answer stays away. Every acknowledgement is counted.
    pub(crate) async fn run(
        &mut self,
        api: &Api<ConfigMap>,
        acknowledged: &Arc<watch::Sender<usize>>,
    ) -> anyhow::Result<()> {
        loop {
            let Some(name) = self.names.choose(&mut self.random).cloned() else { bail!("no objects") };
            self.changes += 1;
            let token = format!("{}-{}", self.label, self.changes);
            let dice = self.random.random_range(0..10);
            let object = self.objects.get_mut(&name).ok_or_else(|| anyhow::anyhow!("{name} is not known"))?;
            let mut data = BTreeMap::from([("token".to_owned(), token.clone())]);
            if self.changes.is_multiple_of(LARGE_EVERY) {
                data.insert("pad".to_owned(), "x".repeat(LARGE));
            }
            let mut whole = ConfigMap { data: Some(data.clone()), ..ConfigMap::default() };
            whole.metadata.name = Some(name.clone());
            let (outcome, answer) = match &object.current {
                None => (Some(token), api.create(&PostParams::default(), &whole).await.map(Some)),
                Some(_) if dice < 2 => (None, api.delete(&name, &DeleteParams::default()).await.map(|_| None)),
                Some((known, _)) if dice < 5 => {
                    whole.metadata.resource_version = Some(known.to_string());
                    (Some(token), api.replace(&name, &PostParams::default(), &whole).await.map(Some))
                }
                Some(_) => {
                    let patch = Patch::Merge(json!({ "data": data }));
                    (Some(token), api.patch(&name, &PatchParams::default(), &patch).await.map(Some))
                }
            };
            match answer {
                Ok(written) => {
                    let revision = written.as_ref().map(revision).transpose()?;
                    object.current = revision.zip(outcome.clone());
                    object.acknowledged.push(Acknowledged { revision, outcome });
                    acknowledged.send_modify(|count| *count += 1);
                }
                // Refused by a server that lives: nobody else writes these objects.
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => bail!("{name}: {status:?}"),
                Err(_) => {
                    object.pending = Some(outcome);
                    return Ok(());
                }
            }
        }
    }

    /// Compares what this writer knows with what a watch told since the last comparison and with what is there now.
    /// Gives how many changes without an answer turned out to be made.
    pub(crate) fn compare(&mut self, told: &[Seen], list: &BTreeMap<String, (u64, String)>) -> anyhow::Result<usize> {
        let mut made = 0;
        for (name, object) in &mut self.objects {
            let told: Vec<&Seen> = told.iter().filter(|seen| seen.name == *name).collect();
            for (index, known) in object.acknowledged.iter().enumerate() {
                let Some(seen) = told.get(index) else { bail!("{name}: {known:?} was acknowledged and is lost") };
                let same =
                    seen.outcome == known.outcome && known.revision.is_none_or(|revision| revision == seen.revision);
                ensure!(same, "{name}: {known:?} was acknowledged, but a watch tells {seen:?}");
            }
            match (&told[object.acknowledged.len()..], &object.pending) {
                ([], _) => {}
                ([one], Some(pending)) if one.outcome == *pending => made += 1,
                (more, pending) => bail!("{name}: nobody asked for {more:?}; without an answer is {pending:?}"),
            }
            let expected = match told.last() {
                Some(seen) => seen.outcome.clone().map(|token| (seen.revision, token)),
                None => object.current.clone(),
            };
            let found = list.get(name).cloned();
            ensure!(found == expected, "{name} should be {expected:?} and is {found:?}");
            *object = Object { current: found, ..Object::default() };
        }
        Ok(made)
    }
}
