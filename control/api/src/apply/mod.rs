//! Server-side apply, and the account of who manages which fields that every write keeps.
//!
//! [`update`] is for all writes but apply: whoever changes a field manages it from then on. [`apply`] lays a configuration over
//! an object: what others manage is a conflict unless it is forced, and what the manager named before and names no
//! more goes, unless somebody else manages it too.
//!
//! Upstream: structured-merge-diff `merge/update.go` and apimachinery `util/managedfields`. Sets are kept by version: an
//! object is looked at in the version in which a manager wrote ([`Versions`]).

use std::sync::LazyLock;

use serde_json::Value;

use crate::facts::Schema;
use crate::meta;

mod compare;
mod managed;
mod merge;
mod set;
mod shape;

use compare::{Changes, compare};
use managed::{Entry, Identity, Managers, Operation};
pub use set::FieldSet;

/// Written by `kubectl apply` on the client's side: the configuration that it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who manages what was there before the first apply, if nobody kept account until then.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The only manager that takes over what client-side apply left.
const KUBECTL: &str = "kubectl";

/// Who writes, by which endpoint, when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// `fieldManager`, or what stands for it.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
    /// What this endpoint does not let its clients change; nobody manages it by writing here.
    pub reset: &'a FieldSet,
}

/// The versions in which a kind is served.
pub trait Versions {
    /// The version that the written object has.
    fn schema(&self) -> &Schema;
    /// The object in another version and that version's schema; `None` if the kind is not served at it any more.
    fn at(&self, api_version: &str, object: &Value) -> Option<(Schema, Value)>;
}

/// Fields that others manage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manager, as upstream's messages name it: `"x" using v1`.
    pub manager: String,
    /// `.spec.replicas`
    pub path: String,
}

/// Why a configuration cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// Others manage some of the fields.
    Conflicts(Vec<Conflict>),
    /// The configuration does not fit the type.
    Invalid(String),
}

/// Sets `metadata.managedFields` of `new`, which takes the place of `live` (of an empty object when it is created).
pub fn update(versions: &dyn Versions, live: &Value, new: &mut Value, writer: Writer<'_>) {
    let asked = meta::metadata_mut(new).remove("managedFields");
    let kept = || Managers::parse(live["metadata"].get("managedFields")).unwrap_or_default();
    let managers = if !writer.subresource.is_empty() {
        kept()
    } else if managed::is_reset(asked.as_ref()) {
        Managers::default()
    } else {
        // Who leaves them out, or writes what cannot be read, does not know them.
        Managers::parse(asked.as_ref()).ok().filter(|asked| !asked.0.is_empty()).unwrap_or_else(kept)
    };
    // An object whose account was thrown away has none until it is applied.
    let untracked = managers.0.is_empty() && !meta::uid(live).is_empty();
    let managers = if untracked { managers } else { updated(versions, managers, live, new, writer) };
    write(new, &managers);
}

fn write(object: &mut Value, managers: &Managers) {
    if !managers.0.is_empty() {
        meta::metadata_mut(object).insert("managedFields".to_owned(), managers.to_value());
    }
}

fn updated(versions: &dyn Versions, mut managers: Managers, live: &Value, new: &Value, writer: Writer<'_>) -> Managers {
    let changes = compare(versions.schema(), live, new).without(writer.reset);
    take(versions, &mut managers, live, new, &changes, None, writer.reset);
    let taken = stripped(&changes.set()).without(writer.reset);
    if !taken.is_empty() {
        let api_version = versions.schema().api_version().to_owned();
        let who = Identity {
            operation: Operation::Update,
            manager: writer.manager.to_owned(),
            api_version: api_version.clone(),
            subresource: writer.subresource.to_owned(),
        };
        let before = managers.get(&who).map(|entry| entry.fields.clone()).unwrap_or_default();
        managers.put(Entry { who, api_version, time: Some(writer.now.to_owned()), fields: before.union(taken) });
    }
    managers.cap();
    managers
}

/// Takes from all managers but one what was changed or went; gives what was changed under them.
fn take(
    versions: &dyn Versions,
    managers: &mut Managers,
    old: &Value,
    new: &Value,
    changes: &Changes,
    but: Option<&Identity>,
    reset: &FieldSet,
) -> Vec<(Identity, FieldSet)> {
    let mut taken = Vec::new();
    let set = changes.set();
    managers.0.retain_mut(|entry| {
        if Some(&entry.who) == but {
            return true;
        }
        let converted;
        let (set, removed) = if entry.api_version == versions.schema().api_version() {
            (&set, &changes.removed)
        } else {
            let (Some((schema, old)), Some((_, new))) =
                (versions.at(&entry.api_version, old), versions.at(&entry.api_version, new))
            else {
                return false;
            };
            let changes = compare(&schema, &old, &new).without(reset);
            converted = (changes.set(), changes.removed);
            (&converted.0, &converted.1)
        };
        let lost = entry.fields.intersection(set);
        if !lost.is_empty() || !removed.is_empty() {
            entry.fields = entry.fields.difference(&lost).difference(removed);
        }
        if !lost.is_empty() {
            taken.push((entry.who.clone(), lost));
        }
        !entry.fields.is_empty()
    });
    taken
}

/// Without what nobody manages: the object's identity and what the system keeps.
fn stripped(set: &FieldSet) -> FieldSet {
    static UNMANAGED: LazyLock<FieldSet> = LazyLock::new(|| {
        FieldSet::of(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    });
    set.difference(&UNMANAGED)
}

/// Lays `config` over `live`. The result has its `managedFields` and is not checked against the type yet; it
/// equals `live` if nothing changes.
pub fn apply(
    versions: &dyn Versions,
    live: &Value,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let managers = Managers::parse(live["metadata"].get("managedFields")).map_err(ApplyError::Invalid)?;
    let mut live = live.clone();
    meta::metadata_mut(&mut live).remove("managedFields");
    let managers = if managers.0.is_empty() && !meta::uid(&live).is_empty() {
        let first = Writer { manager: BEFORE_FIRST_APPLY, ..writer };
        updated(versions, managers, &versions.schema().empty(), &live, first)
    } else {
        managers
    };
    let (mut merged, mut managers) = match laid(versions, managers.clone(), &live, config, writer, force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == KUBECTL => {
            let theirs = applied_before(versions.schema(), &live);
            let rest: Vec<Conflict> =
                conflicts.into_iter().filter(|conflict| !theirs.contains(&conflict.path)).collect();
            if !rest.is_empty() {
                return Err(ApplyError::Conflicts(rest));
            }
            laid(versions, managers, &live, config, writer, true)?
        }
        outcome => outcome?,
    };
    if writer.manager == KUBECTL && meta::annotation(&live, LAST_APPLIED).is_some_and(|text| !text.is_empty()) {
        let mut applied = config.clone();
        if let Some(annotations) = applied["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        merged["metadata"]["annotations"][LAST_APPLIED] = format!("{applied}\n").into();
    }
    if merged != live
        && let Some(entry) = managers.0.iter_mut().find(|entry| is_applier(&entry.who, writer))
    {
        entry.time = Some(writer.now.to_owned());
    }
    write(&mut merged, &managers);
    Ok(merged)
}

fn is_applier(who: &Identity, writer: Writer<'_>) -> bool {
    who.operation == Operation::Apply && who.manager == writer.manager && who.subresource == writer.subresource
}

fn laid(
    versions: &dyn Versions,
    mut managers: Managers,
    live: &Value,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<(Value, Managers), ApplyError> {
    let schema = versions.schema();
    let who = Identity {
        operation: Operation::Apply,
        manager: writer.manager.to_owned(),
        api_version: String::new(),
        subresource: writer.subresource.to_owned(),
    };
    let last = managers.get(&who).cloned();
    let fields = stripped(&compare::fields(schema, config)).without(writer.reset);
    let merged = merge::merge(schema, live, config).map_err(ApplyError::Invalid)?;
    let time = last.as_ref().map_or_else(|| Some(writer.now.to_owned()), |last| last.time.clone());
    managers.put(Entry { who: who.clone(), api_version: schema.api_version().to_owned(), time, fields });
    let merged = match &last {
        Some(last) => prune(versions, &managers, &merged, last),
        None => merged,
    };
    let changes = compare(schema, live, &merged).without(writer.reset);
    let taken = take(versions, &mut managers, live, &merged, &changes, Some(&who), writer.reset);
    if !force && !taken.is_empty() {
        return Err(ApplyError::Conflicts(taken.iter().flat_map(|(who, lost)| conflicts(who, lost)).collect()));
    }
    Ok((merged, managers))
}

fn conflicts(who: &Identity, lost: &FieldSet) -> impl Iterator<Item = Conflict> {
    let manager = who.shown();
    lost.paths().into_iter().map(move |path| Conflict { manager: manager.clone(), path })
}

/// `merged` without what the manager applied last and does not any more, unless somebody manages it.
fn prune(versions: &dyn Versions, managers: &Managers, merged: &Value, last: &Entry) -> Value {
    let schema = versions.schema();
    // Fields of another version are let be: they cannot be named in this one.
    if last.api_version != schema.api_version() {
        return merged.clone();
    }
    let whole = |set: &FieldSet| merge::with_structs(schema, set);
    let of = |object: &Value| whole(&compare::fields(schema, object));
    let mut owned = FieldSet::default();
    for entry in managers.0.iter().filter(|entry| entry.api_version == last.api_version) {
        owned = owned.union(entry.fields.clone());
    }
    let last = whole(&last.fields);
    let all = of(merged);
    let left = of(&merge::remove(schema, merged, &last)).union(whole(&owned));
    let pruned = merge::remove(schema, merged, &all.difference(&left));
    // What somebody else put there without managing it stays as well.
    let gone = all.difference(&of(&pruned)).intersection(&last);
    merge::remove(schema, merged, &gone)
}

/// The paths that client-side apply set and that nobody has changed since.
fn applied_before(schema: &Schema, live: &Value) -> Vec<String> {
    let text = meta::annotation(live, LAST_APPLIED).unwrap_or_default();
    let Ok(applied) = serde_json::from_str::<Value>(text) else {
        return Vec::new();
    };
    if meta::api_version(&applied) != schema.api_version() {
        return Vec::new();
    }
    let changes = compare(schema, &applied, live);
    compare::fields(schema, &applied).difference(&changes.set()).difference(&changes.removed).paths()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
