//! Read, change, check, write: what PUT, PATCH and the subresources share.
//!
//! ```text
//! get -> change -> system metadata, version -> admit -> prepare -> allocate -> validate (the kind, the
//!  ^                                                                plugins) -> write if unchanged since -+
//!  +------------------------------------- somebody was faster ---------------------------------------------+
//! ```
//!
//! A change that names a resource version is refused if the object is at another; one that names none is applied to the
//! newest state, again and again until it meets no other writer. A change that changes nothing writes
//! nothing. A change that takes the last finalizer from an object that is being deleted deletes it.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::status::{MODIFIED, Status};
use wherry_api::strategy::Sub;
use wherry_store::{Entry, Precondition};

use crate::admission::{Attributes, Notes, Operation};
use crate::engine::{Call, converts};
use crate::input;
use crate::negotiate::Accepted;
use crate::objects::{self, Held, Written};
use crate::ownership::{self, Manager};
use crate::respond;

/// How often a change is tried on a newer state. Each failure means that another writer succeeded.
const TRIES: usize = 32;

/// What became of an object.
pub(crate) enum Outcome {
    /// It is stored (or was already what it should become).
    Stored(Arc<Entry>),
    /// It would have been stored: the tree in the stored version.
    DryRun(Value),
}

/// A change to the object that the path of `call` names.
pub(crate) struct Mutation<'a> {
    pub(crate) call: &'a Call,
    pub(crate) sub: Sub,
    /// The subresource's name for admission, empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) dry_run: bool,
    /// Who manages what is changed from now on; `None` if the changed object says so itself.
    pub(crate) manager: Option<&'a str>,
}

impl Mutation<'_> {
    /// Applies `change`, which makes the new object out of the present one, both in the served version.
    pub(crate) async fn run(
        &self,
        warnings: &mut Vec<String>,
        mut change: impl FnMut(&Value, &mut Vec<String>) -> Result<Value, Status> + Send,
    ) -> Result<Outcome, Status> {
        let call = self.call;
        let key = call.key();
        for _ in 0..TRIES {
            let entry = call.engine.store.get(&key).ok_or_else(|| call.not_found())?;
            let stored = objects::stored_tree(&entry)?;
            let converted = converts(&call.resource).then(|| input::from_storage(call, stored.clone()));
            let mut new_warnings = Vec::new();
            let new = change(converted.as_ref().unwrap_or(&stored), &mut new_warnings)?;
            if let Some(outcome) = self.attempt(&entry, &stored, new, &mut new_warnings).await? {
                warnings.append(&mut new_warnings);
                return Ok(outcome);
            }
        }
        Err(Status::conflict(&call.group_resource(), call.name(), MODIFIED))
    }

    /// One try; `None` if another writer was faster.
    async fn attempt(
        &self,
        entry: &Arc<Entry>,
        old: &Value,
        mut new: Value,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Outcome>, Status> {
        let call = self.call;
        let resource = &call.resource;
        input::check_name(call, &mut new)?;
        input::check_namespace(call, &mut new)?;
        self.check_version(&new, old)?;
        self.check_uid(&mut new, old)?;
        let mut new = input::to_storage(call, new);
        let version = meta::resource_version(old).to_owned();
        meta::set(&mut new, "resourceVersion", &version);
        call.stored.strategy.default(&mut new);
        if let Some(name) = self.manager {
            ownership::update(
                call,
                Some(old),
                &mut new,
                Manager { name, sub: self.sub, subresource: self.subresource },
            );
        }
        let notes = Notes::default();
        let attributes = Attributes {
            subresource: self.subresource,
            old: Some(old),
            dry_run: self.dry_run,
            ..Attributes::of(call, Operation::Update, &notes)
        };
        call.engine.admission.admit(&attributes, &mut new).await?;
        call.stored.strategy.prepare_update(&mut new, old, self.sub);
        let reservation = (self.sub == Sub::Main && input::allocates(resource))
            .then(|| call.engine.services.prepare(&mut new, Some(old)))
            .transpose()?;
        let errors = call.stored.strategy.validate_update(&new, old, self.sub);
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group, &resource.kind, call.name(), &errors));
        }
        call.engine.admission.validate(&attributes, &new).await?;
        warnings.append(&mut notes.take_warnings());
        if self.warns(&new, old) {
            warnings.extend(call.stored.strategy.warnings(&new));
        }
        if self.dry_run {
            return Ok(Some(Outcome::DryRun(new)));
        }
        if is_finished(&new) {
            // The numbers of a Service that goes for good go back.
            drop(reservation);
            let reservation = input::allocates(resource).then(|| call.engine.services.release_all(old));
            return self.finish(entry, &new, reservation).await;
        }
        if ownership::is_unchanged(&new, old) {
            return Ok(Some(Outcome::Stored(Arc::clone(entry))));
        }
        let precondition = Precondition::Revision(entry.revision);
        let held = Held::new(reservation, notes.take_charges());
        match call.engine.put(&call.stored, entry.key.clone(), precondition, &new, held).await? {
            Written::Done(entry) => Ok(Some(Outcome::Stored(entry))),
            Written::NotFound => Err(call.not_found()),
            Written::Conflict | Written::Exists => Ok(None),
        }
    }

    /// Whether the writer should hear what is odd about the object: who wrote what can be odd, not who reports its status or
    /// labels it. Nobody writes a Pod a second time by hand.
    fn warns(&self, new: &Value, old: &Value) -> bool {
        let resource = &self.call.resource;
        let pod = resource.group.is_empty() && resource.plural == "pods";
        let same = meta::generation(new) != 0 && meta::generation(new) == meta::generation(old);
        self.sub == Sub::Main && !pod && !same
    }

    /// Removes an object whose last finalizer went with this change.
    async fn finish(
        &self,
        entry: &Arc<Entry>,
        last: &Value,
        reservation: Option<crate::allocate::services::Reservation>,
    ) -> Result<Option<Outcome>, Status> {
        let call = self.call;
        match call.engine.remove(&call.resource, entry, last, Held::new(reservation, Vec::new())).await? {
            Written::Done(entry) => Ok(Some(Outcome::Stored(entry))),
            Written::NotFound => Err(call.not_found()),
            Written::Conflict | Written::Exists => Ok(None),
        }
    }

    fn check_version(&self, new: &Value, old: &Value) -> Result<(), Status> {
        let asked = meta::resource_version(new);
        if asked.is_empty() {
            if self.call.stored.strategy.allow_unconditional_update {
                return Ok(());
            }
            let path = Path::new("metadata.resourceVersion");
            let error = FieldError::invalid(&path, "", "must be specified for an update");
            let resource = &self.call.resource;
            return Err(Status::invalid(&resource.group, &resource.kind, self.call.name(), &[error]));
        }
        if asked == meta::resource_version(old) {
            return Ok(());
        }
        Err(Status::conflict(&self.call.group_resource(), self.call.name(), MODIFIED))
    }

    fn check_uid(&self, new: &mut Value, old: &Value) -> Result<(), Status> {
        let (asked, uid) = (meta::uid(new), meta::uid(old));
        if asked == uid {
            return Ok(());
        }
        if !asked.is_empty() {
            let detail = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
            return Err(Status::conflict(&self.call.group_resource(), self.call.name(), detail));
        }
        meta::set(new, "uid", uid);
        Ok(())
    }
}

/// Whether nothing keeps an object that is being deleted any more.
fn is_finished(object: &Value) -> bool {
    let kept_by_spec = meta::kind(object) == "Namespace"
        && object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    meta::deletion_timestamp(object).is_some()
        && meta::deletion_grace_period_seconds(object).unwrap_or(0) == 0
        && meta::finalizers(object).next().is_none()
        && !kept_by_spec
}

/// The outcome as the answer.
pub(crate) fn answer(
    call: &Call,
    accepted: Accepted,
    outcome: Outcome,
    warnings: &[String],
) -> Result<Response, Status> {
    let mut response = match outcome {
        Outcome::Stored(entry) => objects::entry_response(call, accepted, StatusCode::OK, &entry)?,
        Outcome::DryRun(object) => {
            objects::tree_response(call, accepted, StatusCode::OK, input::from_storage(call, object))?
        }
    };
    respond::warn(&mut response, warnings);
    Ok(response)
}
