//! POST pods/eviction: a delete that asks first.
//!
//! Flow: a Pod that serves nobody is deleted; else the one [`budget`] that covers it is asked, and what it allows is spent, at the
//! version that was looked at; then the Pod is told why it goes (condition DisruptionTarget) and deleted.

mod budget;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::status::Status;
use wherry_api::strategy::Sub;
use wherry_store::{Entry, Precondition};

use budget::{Need, Pod};

use crate::admission::{Attributes, Notes, Operation};
use crate::engine::{Call, read_body};
use crate::objects::{self, Held, Written};
use crate::verbs::delete::{self, Options};
use crate::verbs::mutate::Mutation;
use crate::{input, times};

/// How often a budget is read anew after another writer was faster.
const TRIES: usize = 32;
const BUDGETS: &str = "poddisruptionbudgets.policy";

pub(super) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let schema = call.resource.subresource("eviction").and_then(|s| s.schema.clone());
    let mut eviction: Value = input::document(call, &read_body(body).await?, schema)?;
    if !matches!(meta::kind(&eviction), "" | "Eviction") {
        return Err(Status::bad_request(format!("expected Eviction, got {:?}", meta::kind(&eviction))));
    }
    if !matches!(meta::name(&eviction), "") && meta::name(&eviction) != call.name() {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options::from_value(&eviction["deleteOptions"])?;
    options.dry_run |= call.query().dry_run()?;
    let notes = Notes::default();
    let attributes = Attributes {
        subresource: "eviction",
        dry_run: options.dry_run,
        ..Attributes::of(call, Operation::Create, &notes)
    };
    call.engine.admission.admit(&attributes, &mut eviction).await?;
    call.engine.admission.validate(&attributes, &eviction).await?;
    evict(call, &options).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    objects::status_response(accepted, StatusCode::CREATED, &status, &call.headers)
}

async fn evict(call: &Call, options: &Options) -> Result<(), Status> {
    for _ in 0..TRIES {
        let entry = call.engine.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let pod = objects::stored_tree(&entry)?;
        if Pod(&pod).is_free() {
            delete::delete(call, call.name(), options).await?;
            return Ok(());
        }
        let unchanged = match the_budget(call, &pod)? {
            None => false,
            Some((entry, budget)) => match budget::need(&budget, &Pod(&pod)) {
                Need::Unchanged => true,
                Need::Disruption => {
                    let spent = budget::spend(&budget, call.name(), &times::now())?;
                    if !options.dry_run && !write(call, &entry, &spent).await? {
                        continue;
                    }
                    false
                }
            },
        };
        tell(call, options, unchanged.then(|| meta::resource_version(&pod))).await?;
        delete::delete(call, call.name(), options).await?;
        return Ok(());
    }
    let message = "Too many changes of the disruption budget at once. Try again later.";
    Err(Status::too_many_requests(message, 10))
}

/// The budget that covers a Pod.
fn the_budget(call: &Call, pod: &Value) -> Result<Option<(Arc<Entry>, Value)>, Status> {
    let mut found = None;
    for entry in call.engine.of_namespace(BUDGETS, call.namespace())? {
        let budget = objects::stored_tree(&entry)?;
        if !budget::covers(&budget, pod) {
            continue;
        }
        if found.is_some() {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::internal(why));
        }
        found = Some((entry, budget));
    }
    Ok(found)
}

/// Writes a budget as of `entry`; false if another writer was faster.
async fn write(call: &Call, entry: &Entry, budget: &Value) -> Result<bool, Status> {
    let row = call.engine.registry.stored(BUDGETS).cloned().ok_or_else(|| Status::internal("no budgets"))?;
    let precondition = Precondition::Revision(entry.revision);
    let written = call.engine.put(&row, entry.key.clone(), precondition, budget, Held::default()).await?;
    Ok(matches!(written, Written::Done(_)))
}

/// Writes on the Pod why it goes. With `version`, only if it still is as it was looked at.
async fn tell(call: &Call, options: &Options, version: Option<&str>) -> Result<(), Status> {
    let mutation = Mutation { call, sub: Sub::Status, subresource: "status", dry_run: options.dry_run, manager: None };
    let change = |pod: &Value, _: &mut Vec<String>| {
        let mut told = pod.clone();
        if let Some(version) = version {
            meta::set(&mut told, "resourceVersion", version);
        }
        let status = meta::map_mut(&mut told, "status");
        let conditions = status.entry("conditions").or_insert_with(|| json!([]));
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != "DisruptionTarget");
            conditions.push(json!({
                "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastTransitionTime": times::now(),
            }));
        }
        Ok(told)
    };
    mutation.run(&mut Vec::new(), change).await.map(drop)
}
