//! The account of who manages which fields, as the server keeps it at each write.

use serde_json::Value;
use wherry_api::apply::{self, ApplyError, Versions, Writer};
use wherry_api::decode;
use wherry_api::facts::Schema;
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::patch::PatchType;
use wherry_api::status::{Cause, Details, Reason, Status};
use wherry_api::strategy::Sub;

use crate::engine::{Call, converts};
use crate::options::{Query, invalid};
use crate::{input, times};

/// The longest name of a manager (upstream: `FieldManagerMaxLength`).
const MAX_NAME: usize = 128;

/// Who writes, and by which endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Manager<'a> {
    pub(crate) name: &'a str,
    pub(crate) sub: Sub,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
}

/// The name of who writes: `fieldManager`, else the beginning of the user agent.
pub(crate) fn manager(call: &Call, query: &Query<'_>) -> Result<String, Status> {
    let asked = query.get("fieldManager").unwrap_or_default();
    check(asked, "CreateOptions")?;
    if !asked.is_empty() {
        return Ok(asked.to_owned());
    }
    let agent = call.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    Ok(if name.is_empty() { "unknown".to_owned() } else { name })
}

fn check(name: &str, kind: &str) -> Result<(), Status> {
    let path = Path::new("fieldManager");
    if name.len() > MAX_NAME {
        return Err(invalid(kind, FieldError::too_long(&path, MAX_NAME)));
    }
    match name.chars().enumerate().find(|(_, c)| c.is_control()) {
        Some((at, c)) => {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            Err(invalid(kind, FieldError::invalid(&path, name, why)))
        }
        None => Ok(()),
    }
}

/// What only one kind of patch may, and must, say: who applies has a name, and only who applies uses force.
pub(crate) fn check_patch(query: &Query<'_>, kind: PatchType) -> Result<(), Status> {
    let name = query.get("fieldManager").unwrap_or_default();
    if kind == PatchType::Apply && name.is_empty() {
        let error = FieldError::required(&Path::new("fieldManager"), "is required for apply patch");
        return Err(invalid("PatchOptions", error));
    }
    if kind != PatchType::Apply && query.boolean("force").is_some() {
        let error = FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch");
        return Err(invalid("PatchOptions", error));
    }
    check(name, "PatchOptions")
}

/// The served versions of the kind that a call is about.
struct Served<'a>(&'a Call);

impl Versions for Served<'_> {
    fn schema(&self) -> &Schema {
        &self.0.resource.schema
    }

    fn at(&self, api_version: &str, object: &Value) -> Option<(Schema, Value)> {
        let ours = &self.0.resource;
        let same = |other: &&std::sync::Arc<wherry_api::resource::Resource>| {
            other.storage.resource == ours.storage.resource && other.api_version() == api_version
        };
        let other = self.0.engine.registry.resources().find(same)?;
        let mut object = object.clone();
        ours.to_storage(&mut object);
        other.from_storage(&mut object);
        Some((other.schema.clone(), object))
    }
}

/// Sets `managedFields` of `new`, which replaces `live` (nothing, if it is created); both as they are stored.
pub(crate) fn update(call: &Call, live: Option<&Value>, new: &mut Value, manager: Manager<'_>) {
    let now = times::now();
    let writer = writer(call, &manager, &now);
    if !converts(&call.resource) {
        match live {
            Some(live) => apply::update(&Served(call), live, new, writer),
            None => apply::update(&Served(call), &call.resource.schema.empty(), new, writer),
        }
        return;
    }
    let live = live.map_or_else(|| call.resource.schema.empty(), |live| input::from_storage(call, live.clone()));
    let mut served = input::from_storage(call, new.clone());
    apply::update(&Served(call), &live, &mut served, writer);
    let metadata = meta::metadata_mut(new);
    match meta::metadata_mut(&mut served).remove("managedFields") {
        Some(fields) => metadata.insert("managedFields".to_owned(), fields),
        None => metadata.remove("managedFields"),
    };
}

/// `config` laid over `live`, both in the served version; checked against the type.
pub(crate) fn apply(
    call: &Call,
    live: &Value,
    config: &Value,
    manager: Manager<'_>,
    force: bool,
) -> Result<Value, Status> {
    let now = times::now();
    let merged = apply::apply(&Served(call), live, config, writer(call, &manager, &now), force);
    let merged = merged.map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => conflict(&conflicts),
        ApplyError::Invalid(why) => Status::bad_request(format!("failed to merge config: {why}")),
    })?;
    decode::conformed(merged, &call.resource.schema)
}

fn writer<'a>(call: &Call, manager: &Manager<'a>, now: &'a str) -> Writer<'a> {
    let reset = call.stored.strategy.reset(manager.sub);
    Writer { manager: manager.name, subresource: manager.subresource, now, reset }
}

/// 409, as upstream's `NewConflictError`.
fn conflict(conflicts: &[apply::Conflict]) -> Status {
    let mut managers: Vec<&str> = conflicts.iter().map(|conflict| conflict.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let text = match conflicts {
        [only] => format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path),
        _ => {
            let mut lines = Vec::new();
            for manager in managers {
                lines.push(format!("conflicts with {manager}:"));
                let theirs = conflicts.iter().filter(|conflict| conflict.manager == manager);
                lines.extend(theirs.map(|conflict| format!("- {}", conflict.path)));
            }
            format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path.clone(),
    });
    Status::new(409, Reason::Conflict, text).with_details(Details { causes: causes.collect(), ..Details::default() })
}

/// Whether two objects differ at most in when managers took their fields: no reason to write.
pub(crate) fn is_unchanged(new: &Value, old: &Value) -> bool {
    if new == old {
        return true;
    }
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let meta_differs = |key: &String| key == "metadata";
    if new.len() != old.len() || new.iter().any(|(key, value)| !meta_differs(key) && old.get(key) != Some(value)) {
        return false;
    }
    let (Some(new), Some(old)) = (metadata(new), metadata(old)) else { return false };
    new.len() == old.len()
        && new.iter().all(|(key, value)| match (key.as_str(), old.get(key)) {
            ("managedFields", Some(before)) => same_but_times(value, before),
            (_, before) => before == Some(value),
        })
}

fn metadata(object: &serde_json::Map<String, Value>) -> Option<&serde_json::Map<String, Value>> {
    object.get("metadata")?.as_object()
}

fn same_but_times(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_array(), old.as_array()) else { return false };
    let timeless = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
        entry
    };
    // Their order follows the times.
    new.len() == old.len() && new.iter().all(|entry| old.iter().any(|other| timeless(other) == timeless(entry)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_alone_are_no_change() {
        let of = |name: &str, time: &str| json!({"metadata": {"name": name, "managedFields": [{"manager": "a", "time": time}]}, "data": {"k": "v"}});
        assert!(is_unchanged(&of("a", "1"), &of("a", "2")));
        assert!(!is_unchanged(&of("a", "1"), &of("b", "1")));
        assert!(!is_unchanged(&json!({"metadata": {}, "data": 1}), &json!({"metadata": {}, "data": 2})));
    }
}
