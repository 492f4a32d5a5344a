//! Keeps APIServices true: those of what this server serves are there, those of others say whether their server answers.
//!
//! One task follows APIServices, Services and EndpointSlices and holds when each APIService is looked at next: at once when
//! something about it changed, every half a minute while it has a Service (a server may fail without an event), sooner after
//! a failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::SelectAll;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wherry_api::{discovery, meta};
use wherry_store::{Entry, Event, Range, StoreError, Watch};

use super::condition::{Condition, Keeping, keeping, obstacle};
use super::probe;
use super::registration::{API_SERVICES, Registration};
use crate::backends::{self, SERVICE_NAME, SERVICES, SLICES};
use crate::engine::Engine;
use crate::expiry::until;
use crate::{objects, times};

/// How often a server is asked whose APIService did not change.
const RECHECK: Duration = Duration::from_secs(30);
/// When a server is asked again that did not answer, at first.
const RETRY: Duration = Duration::from_millis(250);
/// Looks under way at the same time.
const AT_ONCE: usize = 8;

/// Keeps them until `cancel` fires; writes by `client`.
pub(crate) async fn run(engine: Arc<Engine>, client: kube::Client, cancel: CancellationToken) {
    let kind = GroupVersionKind::gvk(discovery::REGISTRATION, "v1", "APIService");
    let api = Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, "apiservices"));
    while !cancel.is_cancelled() {
        // A follower that was left behind begins anew.
        match follow(&engine, &api, &cancel).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "following APIServices again"),
        }
    }
}

async fn follow(engine: &Arc<Engine>, api: &Api<DynamicObject>, cancel: &CancellationToken) -> Result<(), StoreError> {
    let revision = engine.store.revision();
    let mut watches: SelectAll<Watch> = SelectAll::new();
    for resource in [API_SERVICES, SERVICES, SLICES] {
        watches.push(engine.store.watch(Range::all(resource), revision)?);
    }
    let mut due = Due::default();
    let now = Instant::now();
    discovery::api_services(&engine.registry).for_each(|service| due.add(meta::name(&service), now));
    engine.everything(API_SERVICES).unwrap_or_default().iter().for_each(|entry| due.add(&entry.key.name, now));
    let mut looks = JoinSet::new();
    loop {
        while looks.len() < AT_ONCE
            && let Some(name) = due.take(Instant::now())
        {
            let (engine, api) = (Arc::clone(engine), api.clone());
            looks.spawn(async move {
                let outcome = look(&engine, &api, &name).await;
                (name, outcome)
            });
        }
        let next = due.next().filter(|_| looks.len() < AT_ONCE);
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            event = watches.next() => match event {
                None => return Ok(()),
                Some(event) => concerned(engine, event?.as_ref()).iter().for_each(|name| due.add(name, Instant::now())),
            },
            Some(done) = looks.join_next() => match done {
                Ok((name, outcome)) => due.done(&name, outcome, Instant::now()),
                Err(error) => tracing::error!(%error, "a look at an APIService failed"),
            },
            () = until(next) => {}
        }
    }
}

/// The APIServices that an event is about. What is written of their condition here is none.
fn concerned(engine: &Engine, event: &Event) -> Vec<String> {
    let (key, entry) = (&event.entry.key, &event.entry);
    if *key.resource == *API_SERVICES {
        let spec = |entry: &Entry| objects::stored_tree(entry).map(|object| object["spec"].clone()).ok();
        let same = !event.deleted && event.previous.as_ref().is_some_and(|previous| spec(previous) == spec(entry));
        return if same { Vec::new() } else { vec![key.name.to_string()] };
    }
    let service = match *key.resource == *SLICES {
        true => entry.attributes.labels.get(SERVICE_NAME).map(String::as_str).unwrap_or_default(),
        false => &*key.name,
    };
    let registrations = engine.aggregator.registrations.read();
    let of = registrations.remote().filter(|one| *one.namespace == *key.namespace && one.service == service);
    of.map(|registration| registration.name()).collect()
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing is to be done before something changes.
    Settled,
    /// It is to be looked at again by and by.
    Recheck,
    /// Something failed.
    Retry,
}

async fn look(engine: &Engine, api: &Api<DynamicObject>, name: &str) -> Outcome {
    let registration = engine.aggregator.registrations.read().named(name).cloned();
    let looked = match registration {
        Some(registration) => foreign(engine, api, &registration).await,
        None => {
            engine.aggregator.told.forget(name);
            local(engine, api, name).await
        }
    };
    match looked {
        Ok(outcome) => outcome,
        // Somebody made, changed or deleted it meanwhile, which is an event.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Outcome::Settled,
        Err(error) => {
            tracing::warn!(name, %error, "an APIService could not be kept");
            Outcome::Retry
        }
    }
}

async fn local(engine: &Engine, api: &Api<DynamicObject>, name: &str) -> Result<Outcome, kube::Error> {
    let existing = engine.lookup(API_SERVICES, "", name).and_then(|entry| objects::stored_tree(&entry).ok());
    let wanted = discovery::api_services(&engine.registry).find(|service| meta::name(service) == name);
    match (keeping(existing.as_ref(), wanted.is_some()), existing, wanted) {
        (Keeping::Make, _, Some(wanted)) => {
            let wanted = serde_json::from_value(wanted).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &wanted).await?;
        }
        (Keeping::Remove, Some(existing), _) => {
            let uid = Some(meta::uid(&existing).to_owned());
            let preconditions = Some(Preconditions { uid, resource_version: None });
            api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await?;
        }
        (Keeping::Tell, Some(existing), _) => tell(api, &existing, &Condition::local()).await?,
        _ => {}
    }
    Ok(Outcome::Settled)
}

async fn foreign(
    engine: &Engine,
    api: &Api<DynamicObject>,
    registration: &Registration,
) -> Result<Outcome, kube::Error> {
    let name = registration.name();
    let Some(existing) = engine.lookup(API_SERVICES, "", &name).and_then(|entry| objects::stored_tree(&entry).ok())
    else {
        return Ok(Outcome::Settled);
    };
    let service = engine.lookup(SERVICES, &registration.namespace, &registration.service);
    let service = service.and_then(|entry| objects::stored_tree(&entry).ok());
    let slices = backends::slices(engine, &registration.namespace, &registration.service).unwrap_or_default();
    let (condition, outcome) = match obstacle(registration, service.as_ref(), &slices) {
        Some(obstacle) => (obstacle, Outcome::Recheck),
        None => match probe::ask(engine, registration).await {
            Ok(word) => {
                engine.aggregator.told.take(&name, word);
                (Condition::passed(), Outcome::Recheck)
            }
            Err(why) => (Condition::failed("FailedDiscoveryCheck", why), Outcome::Retry),
        },
    };
    tell(api, &existing, &condition).await?;
    Ok(outcome)
}

/// Writes a condition that is not there yet.
async fn tell(api: &Api<DynamicObject>, existing: &Value, condition: &Condition) -> Result<(), kube::Error> {
    let Some(conditions) = condition.applied(existing, &times::now()) else { return Ok(()) };
    let name = meta::name(existing);
    tracing::info!(name, available = condition.available, why = condition.message, "an APIService changed");
    let patch = json!({"metadata": {"uid": meta::uid(existing)}, "status": {"conditions": conditions}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

/// When each APIService is looked at, and which ones are.
#[derive(Default)]
struct Due {
    at: BTreeMap<String, Instant>,
    /// Those that are looked at, and whether they must be again.
    working: BTreeMap<String, bool>,
    failures: BTreeMap<String, u32>,
}

impl Due {
    fn add(&mut self, name: &str, at: Instant) {
        if let Some(again) = self.working.get_mut(name) {
            *again = true;
        } else {
            let known = self.at.entry(name.to_owned()).or_insert(at);
            *known = at.min(*known);
        }
    }

    /// One that is due.
    fn take(&mut self, now: Instant) -> Option<String> {
        let name = self.at.iter().find(|(_, at)| **at <= now).map(|(name, _)| name.clone())?;
        self.at.remove(&name);
        self.working.insert(name.clone(), false);
        Some(name)
    }

    fn done(&mut self, name: &str, outcome: Outcome, now: Instant) {
        let again = self.working.remove(name).unwrap_or_default();
        let wait = if outcome == Outcome::Retry {
            let failures = self.failures.entry(name.to_owned()).or_default();
            let wait = RETRY.saturating_mul(1 << (*failures).min(10)).min(RECHECK);
            *failures += 1;
            Some(wait)
        } else {
            self.failures.remove(name);
            (outcome == Outcome::Recheck).then_some(RECHECK)
        };
        if again {
            self.add(name, now);
        } else if let Some(wait) = wait {
            self.add(name, now + wait);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.at.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_looked_at_when_it_is_due_and_never_twice_at_a_time() {
        let mut due = Due::default();
        let now = Instant::now();
        due.add("a", now + RECHECK);
        due.add("a", now);
        due.add("b", now + RECHECK);
        assert_eq!((due.take(now).as_deref(), due.take(now)), (Some("a"), None));
        due.add("a", now);
        assert_eq!(due.take(now), None, "it is being looked at");
        due.done("a", Outcome::Settled, now);
        assert_eq!(due.take(now).as_deref(), Some("a"), "it changed meanwhile");
        let mut waits = Vec::new();
        for _ in 0..9 {
            due.done("a", Outcome::Retry, now);
            waits.push(due.at["a"] - now);
            assert_eq!(due.take(now + RECHECK).as_deref(), Some("a"));
        }
        assert_eq!((waits[0], waits[1], waits[8]), (RETRY, RETRY * 2, RECHECK));
        due.done("a", Outcome::Recheck, now);
        assert_eq!((due.next(), due.failures.is_empty()), (Some(now + RECHECK), true));
        due.done("a", Outcome::Settled, now);
    }
}
