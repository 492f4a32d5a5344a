//! Conversions between versions that show one stored object.
//!
//! Each works in place, never fails on an object of any shape, and loses nothing on the way there and back.

use serde_json::{Map, Value};

pub mod event;
pub mod horizontal_pod_autoscaler;

/// Moves `from` to `to` if it is there.
fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}
