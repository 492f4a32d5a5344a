//! POST: a new object.
//!
//! ```text
//! decode -> scope, system metadata -> default -> admit -> prepare -> allocate -> validate (the kind, the plugins) -> store
//! ```
//!
//! Nothing is stored unless all of it went well, and nothing at all with `dryRun=All`.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use rand::Rng as _;
use serde_json::Value;
use wherry_api::meta;
use wherry_api::status::Status;
use wherry_api::strategy::Sub;
use wherry_store::Precondition;

use crate::admission::{Attributes, Notes, Operation};
use crate::engine::{Call, read_body};
use crate::input::{self, Decoded};
use crate::layers::authorize;
use crate::layers::info::Verb;
use crate::objects::{self, Held, Written};
use crate::ownership::{self, Manager};
use crate::{respond, times};

/// How many names are tried for an object with generateName (upstream's figure).
const NAME_TRIES: usize = 8;
/// Names are cut so that base and suffix fit the length of a label.
const MAX_BASE: usize = 58;
/// No vowels and no digits that look like letters: names should not spell words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub(crate) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let query = call.query();
    let dry_run = query.dry_run()?;
    if call.info.name.is_some() {
        return Err(call.not_supported());
    }
    let validation = input::field_validation(&query)?;
    let bytes = read_body(body).await?;
    let Decoded { object, mut warnings } = input::object(call, &bytes, validation)?;
    let manager = ownership::manager(call, &query)?;
    let created = create(call, object, Some(&manager), dry_run, &mut warnings).await?;
    let mut response = match created {
        Created::Stored(entry) => objects::entry_response(call, accepted, StatusCode::CREATED, &entry)?,
        Created::DryRun(object) => objects::tree_response(call, accepted, StatusCode::CREATED, object)?,
    };
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// What became of a new object.
pub(crate) enum Created {
    Stored(std::sync::Arc<wherry_store::Entry>),
    DryRun(Value),
}

/// Creates `object` (decoded, in the served version). `manager` is who manages its fields from now on; `None` if it says so itself.
pub(crate) async fn create(
    call: &Call,
    mut object: Value,
    manager: Option<&str>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<Created, Status> {
    may_create(call)?;
    let resource = &call.resource;
    input::check_namespace(call, &mut object)?;
    if !meta::resource_version(&object).is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    meta::set(&mut object, "uid", &uuid::Uuid::new_v4().to_string());
    meta::set(&mut object, "creationTimestamp", &times::now());
    let mut object = input::to_storage(call, object);
    let generated = meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty();
    let mut tries = if generated { NAME_TRIES } else { 1 };
    loop {
        tries -= 1;
        let mut attempt = if tries > 0 { object.clone() } else { std::mem::take(&mut object) };
        if generated {
            let name = generate(meta::generate_name(&attempt));
            meta::set(&mut attempt, "name", &name);
        }
        let name = meta::name(&attempt).to_owned();
        call.stored.strategy.default(&mut attempt);
        if let Some(name) = manager {
            meta::metadata_mut(&mut attempt).remove("managedFields");
            ownership::update(call, None, &mut attempt, Manager { name, sub: Sub::Main, subresource: "" });
        }
        let notes = Notes::default();
        let attributes = Attributes { name: &name, dry_run, ..Attributes::of(call, Operation::Create, &notes) };
        call.engine.admission.admit(&attributes, &mut attempt).await?;
        call.stored.strategy.prepare_create(&mut attempt);
        call.stored.schema.complete(&mut attempt);
        let reservation = input::allocates(resource).then(|| call.engine.services.prepare(&mut attempt, None));
        let reservation = reservation.transpose()?;
        let errors = call.stored.strategy.validate(&attempt);
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group, &resource.kind, &name, &errors));
        }
        call.engine.admission.validate(&attributes, &attempt).await?;
        let mut new_warnings = call.stored.strategy.warnings(&attempt);
        new_warnings.append(&mut notes.take_warnings());
        let held = Held::new(reservation, notes.take_charges());
        let key = call.key_of(&name);
        let written = if dry_run {
            match call.engine.store.get(&key) {
                Some(_) => Written::Exists,
                None => {
                    warnings.extend(new_warnings);
                    return Ok(Created::DryRun(input::from_storage(call, attempt)));
                }
            }
        } else {
            call.engine.put(&call.stored, key, Precondition::Absent, &attempt, held).await?
        };
        match written {
            Written::Done(entry) => {
                warnings.extend(new_warnings);
                return Ok(Created::Stored(entry));
            }
            _ if tries > 0 => {}
            _ if generated => {
                return Err(Status::generate_name_conflict(&call.group_resource(), &name));
            }
            _ => return Err(Status::already_exists(&call.group_resource(), &name)),
        }
    }
}

/// Who makes an object by a PUT or PATCH of it needs the verb `create` as well.
fn may_create(call: &Call) -> Result<(), Status> {
    if call.info.verb == Verb::Create {
        return Ok(());
    }
    let asked = authorize::Attributes { verb: Verb::Create.as_str(), ..call.info.as_ref().into() };
    authorize::check(call.engine.authorizer.as_ref(), &call.user, &asked)
}

/// `base` with a random end.
pub(crate) fn generate(base: &str) -> String {
    let end = base.char_indices().map(|(i, _)| i).take_while(|i| *i <= MAX_BASE).last().unwrap_or(0);
    let mut name = if base.len() <= MAX_BASE { base.to_owned() } else { base[..end].to_owned() };
    let mut rng = rand::rng();
    name.extend((0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate(&"x".repeat(100)).len(), 63);
        assert!(generate(&"é".repeat(100)).len() <= 63);
    }
}
