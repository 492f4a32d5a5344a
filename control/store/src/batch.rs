//! What a write makes of the state: a pure function, shared by every store of this crate.

use std::sync::{Arc, OnceLock};

use crate::{Entry, Event, Op, Precondition, StoreError, Write, cache::State};

/// Checks `write` against `state` and gives the event it causes at `revision`. The state is not changed.
pub(crate) fn decide(state: &State, write: Write, revision: u64) -> Result<Event, StoreError> {
    let Write { key, precondition, op, .. } = write;
    let previous = state.get(&key).cloned();
    match (precondition, &previous) {
        (Precondition::Absent, Some(current)) => {
            return Err(StoreError::Exists { current: current.clone() });
        }
        (Precondition::Revision(_), None) => return Err(StoreError::NotFound),
        (Precondition::Revision(expected), Some(current)) if current.revision != expected => {
            return Err(StoreError::Conflict { current: current.clone() });
        }
        _ => {}
    }
    // An object keeps the key that came first: its strings are shared by all its versions.
    let key = previous.as_ref().map_or(key, |p| p.key.clone());
    let created = previous.as_ref().map_or(revision, |p| p.created);
    let (object, attributes, uid, deleted) = match (op, &previous) {
        (Op::Put { object, attributes, uid }, _) => (object, attributes, uid, false),
        (Op::Delete { .. }, None) => return Err(StoreError::NotFound),
        (Op::Delete { object }, Some(last)) => (object, last.attributes.clone(), last.uid.clone(), true),
    };
    let entry =
        Entry { key, revision, created, json: object.splice(revision), attributes, uid, message: OnceLock::new() };
    Ok(Event { revision, entry: Arc::new(entry), previous, deleted })
}
