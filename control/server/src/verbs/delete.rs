//! DELETE: at once, after a grace period, or when the last finalizer is gone.
//!
//! | the object | what happens |
//! |---|---|
//! | has finalizers, or gets `orphan` / `foregroundDeletion` by the propagation policy | `deletionTimestamp` now, grace 0: whoever removes the last finalizer deletes it |
//! | is a Pod that may still run | `deletionTimestamp` at the end of its grace period: the agent deletes it with grace 0 |
//! | is a Namespace | phase Terminating; the namespace controller empties it and removes `spec.finalizers` |
//! | else | it is gone |
//!
//! A later delete can shorten a grace period, never lengthen it, and while one runs it cannot change what becomes of the
//! dependents. What is special to a resource is in [`policy`].

mod policy;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use wherry_api::facts::Schema;
use wherry_api::meta;
use wherry_api::status::{GroupResource, MODIFIED, Status};
use wherry_store::{Entry, Precondition};

use crate::admission::{Attributes, Notes, Operation};
use crate::engine::{Call, read_body};
use crate::negotiate::Accepted;
use crate::objects::{self, Held, Written};
use crate::options::{check_dry_run, invalid};
use crate::{input, times};

const TRIES: usize = 32;

pub(crate) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let options = Options::read(call, body).await?;
    let gone = delete(call, call.name(), &options).await?;
    answer(call, accepted, gone, &options)
}

/// The answer of upstream: the object while it goes on existing, else a Status of success.
pub(crate) fn answer(call: &Call, accepted: Accepted, gone: Gone, options: &Options) -> Result<Response, Status> {
    match gone {
        Gone::Now(object) if policy::shows_what_it_deleted(&call.resource) => {
            objects::tree_response(call, accepted, StatusCode::OK, input::from_storage(call, object))
        }
        Gone::Now(object) => {
            let resource = &call.resource;
            let status = Status::success(&resource.group, &resource.plural, meta::name(&object), meta::uid(&object));
            objects::status_response(accepted, StatusCode::OK, &status, &call.headers)
        }
        Gone::Later(entry) => {
            let code = if options.orphan_dependents == Some(false) { StatusCode::ACCEPTED } else { StatusCode::OK };
            objects::entry_response(call, accepted, code, &entry)
        }
        Gone::DryRun(object) => {
            objects::tree_response(call, accepted, StatusCode::OK, input::from_storage(call, object))
        }
    }
}

/// What became of the object.
pub(crate) enum Gone {
    /// It is no more; as it was.
    Now(Value),
    /// It will be, once its finalizers or its grace period are.
    Later(Arc<Entry>),
    /// Nothing happened.
    DryRun(Value),
}

/// `DeleteOptions`, from the body or the query.
#[derive(Debug, Default)]
pub(crate) struct Options {
    grace: Option<i64>,
    uid: Option<String>,
    resource_version: Option<String>,
    orphan_dependents: Option<bool>,
    propagation: Option<String>,
    pub(crate) dry_run: bool,
}

impl Options {
    pub(crate) async fn read(call: &Call, body: Body) -> Result<Self, Status> {
        let bytes = read_body(body).await?;
        if bytes.is_empty() {
            return Self::from_query(call);
        }
        let options = input::document(call, &bytes, Schema::machinery("DeleteOptions"))?;
        if !matches!(meta::kind(&options), "" | "DeleteOptions") {
            return Err(Status::bad_request(format!("expected DeleteOptions, got {:?}", meta::kind(&options))));
        }
        let mut found = Self::from_value(&options)?;
        found.dry_run |= call.query().dry_run()?;
        Ok(found)
    }

    pub(crate) fn from_value(options: &Value) -> Result<Self, Status> {
        let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        let mut dry_run = false;
        for value in options["dryRun"].as_array().into_iter().flatten() {
            check_dry_run(value.as_str().unwrap_or_default())?;
            dry_run = true;
        }
        let found = Self {
            grace: options["gracePeriodSeconds"].as_i64(),
            uid: text(&options["preconditions"]["uid"]),
            resource_version: text(&options["preconditions"]["resourceVersion"]),
            orphan_dependents: options["orphanDependents"].as_bool(),
            propagation: text(&options["propagationPolicy"]),
            dry_run,
        };
        found.check()
    }

    fn from_query(call: &Call) -> Result<Self, Status> {
        let query = call.query();
        let found = Self {
            grace: query.integer("gracePeriodSeconds")?,
            uid: None,
            resource_version: None,
            orphan_dependents: query.boolean("orphanDependents"),
            propagation: query.get("propagationPolicy").map(str::to_owned),
            dry_run: query.dry_run()?,
        };
        found.check()
    }

    fn check(self) -> Result<Self, Status> {
        use wherry_api::field::{FieldError, Path};
        let failed = |error| Err(invalid("DeleteOptions", error));
        if self.orphan_dependents.is_some() && self.propagation.is_some() {
            let path = Path::new("propagationPolicy");
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            return failed(FieldError::invalid(&path, self.propagation.unwrap_or_default(), detail));
        }
        if let Some(policy) = self.propagation.as_deref()
            && !matches!(policy, "Orphan" | "Background" | "Foreground")
        {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            return failed(FieldError::not_supported(&Path::new("propagationPolicy"), policy, &supported));
        }
        Ok(self)
    }

    /// The seconds of grace; a negative number counts as one second, as upstream has it.
    fn grace(&self) -> Option<i64> {
        self.grace.map(|seconds| if seconds < 0 { 1 } else { seconds })
    }

    /// Whether the dependents shall be orphaned, or go first; `None` leaves it to what the object's finalizers say.
    fn dependents(&self) -> (Option<bool>, Option<bool>) {
        match (self.orphan_dependents, self.propagation.as_deref()) {
            (Some(orphan), _) => (Some(orphan), Some(false)),
            (None, Some("Orphan")) => (Some(true), Some(false)),
            (None, Some("Foreground")) => (Some(false), Some(true)),
            (None, Some(_)) => (Some(false), Some(false)),
            (None, None) => (None, None),
        }
    }
}

/// Deletes the object `name` of the resource and namespace of `call`.
pub(crate) async fn delete(call: &Call, name: &str, options: &Options) -> Result<Gone, Status> {
    let key = call.key_of(name);
    let missing = || Status::not_found(&call.group_resource(), name);
    let notes = Notes::default();
    let attributes = Attributes { name, dry_run: options.dry_run, ..Attributes::of(call, Operation::Delete, &notes) };
    call.engine.admission.admit(&attributes, &mut Value::Null).await?;
    call.engine.admission.validate(&attributes, &Value::Null).await?;
    for _ in 0..TRIES {
        let entry = call.engine.store.get(&key).ok_or_else(missing)?;
        let old = objects::stored_tree(&entry)?;
        check_preconditions(call, &old, options)?;
        let step = step(call, &old, options);
        if options.dry_run {
            return Ok(Gone::DryRun(match step {
                Step::Mark(marked) => marked,
                Step::Keep | Step::Remove => old,
            }));
        }
        let written = match step {
            Step::Keep => return Ok(Gone::Later(entry)),
            Step::Mark(marked) => {
                let precondition = Precondition::Revision(entry.revision);
                match call.engine.put(&call.stored, entry.key.clone(), precondition, &marked, Held::default()).await? {
                    Written::Done(entry) => return Ok(Gone::Later(entry)),
                    other => other,
                }
            }
            Step::Remove => {
                let reservation = input::allocates(&call.resource).then(|| call.engine.services.release_all(&old));
                match call.engine.remove(&call.resource, &entry, &old, Held::new(reservation, Vec::new())).await? {
                    Written::Done(_) => return Ok(Gone::Now(old)),
                    other => other,
                }
            }
        };
        if matches!(written, Written::NotFound) {
            return Err(missing());
        }
    }
    Err(Status::conflict(&call.group_resource(), name, MODIFIED))
}

fn check_preconditions(call: &Call, object: &Value, options: &Options) -> Result<(), Status> {
    let failed = |what: &str, asked: &str, is: &str, why: &str| {
        let detail =
            format!("the {what} in the precondition ({asked}) does not match the {what} in record ({is}). {why}");
        // Upstream names the kind here, not the resource.
        let kind = GroupResource::new(call.resource.group.as_str(), call.resource.kind.as_str());
        Err(Status::conflict(&kind, meta::name(object), detail))
    };
    if let Some(uid) = options.uid.as_deref().filter(|u| *u != meta::uid(object)) {
        return failed("UID", uid, meta::uid(object), "The object might have been deleted and then recreated");
    }
    let version = meta::resource_version(object);
    if let Some(asked) = options.resource_version.as_deref().filter(|v| *v != version) {
        return failed("ResourceVersion", asked, version, "The object might have been modified");
    }
    Ok(())
}

enum Step {
    /// It is on its way already, and this delete asks for nothing more.
    Keep,
    /// It is to be stored like this: on its way.
    Mark(Value),
    Remove,
}

/// What is to be done with `old`, decided from it and the options alone.
fn step(call: &Call, old: &Value, options: &Options) -> Step {
    let deleting = meta::deletion_timestamp(old).map(str::to_owned);
    let before = meta::deletion_grace_period_seconds(old).unwrap_or(0);
    let mut new = old.clone();
    // How long it may take from now on, and when it ends; none for what does not get any time.
    let running = match &deleting {
        Some(at) if before > 0 => match options.grace().filter(|seconds| *seconds < before) {
            Some(seconds) => Some(shortened(at, before, seconds)),
            // It is on its way, and nothing about it changes.
            None => return Step::Keep,
        },
        Some(_) => None,
        None => Some(call.stored.strategy.grace(old, options.grace())).filter(|s| *s > 0).map(|s| (times::after(s), s)),
    };
    policy::set_finalizers(&call.resource, &mut new, options.dependents());
    let is_namespace = call.resource.group.is_empty() && call.resource.kind == "Namespace";
    let held = meta::finalizers(&new).next().is_some()
        || is_namespace && new["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    let (at, seconds) = match running {
        Some((at, seconds)) if seconds > 0 || held => (at, seconds),
        None if held => (deleting.clone().unwrap_or_else(times::now), 0),
        _ => return Step::Remove,
    };
    let metadata = meta::metadata_mut(&mut new);
    metadata.insert("deletionTimestamp".to_owned(), at.into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
    if deleting.is_none() {
        count_generation(metadata);
        if is_namespace {
            meta::map_mut(&mut new, "status").insert("phase".to_owned(), "Terminating".into());
        }
    }
    if new == *old { Step::Keep } else { Step::Mark(new) }
}

/// The end and the length of a grace period that was `before` seconds long, ended at `at` and is to be `seconds` long. It does not
/// end in the past; whoever sees to a graceful end has a second left.
fn shortened(at: &str, before: i64, seconds: i64) -> (String, i64) {
    let (end, now) = (times::shifted(at, seconds - before), times::now());
    // Times of this form are ordered as texts are.
    if end < now { (now, seconds.min(1)) } else { (end, seconds) }
}

fn count_generation(metadata: &mut serde_json::Map<String, Value>) {
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
}
