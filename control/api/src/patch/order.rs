//! The order of the items of a merged list.
//!
//! Items that the patch speaks about come in the patch's order. Items that only the server knows keep their order and
//! are put in before the first item of the patch that stood behind them in the server's list.

use std::collections::HashMap;

use serde_json::Value;

/// What tells list items apart: the merge key's value, or the item itself.
pub(super) fn identity(item: &Value, merge_key: Option<&str>) -> String {
    match merge_key {
        Some(key) => item.get(key).map(Value::to_string).unwrap_or_default(),
        None => item.to_string(),
    }
}

fn positions(items: &[Value], merge_key: Option<&str>) -> HashMap<String, usize> {
    let mut positions = HashMap::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        positions.entry(identity(item, merge_key)).or_insert(i);
    }
    positions
}

/// Orders `merged`: what `wanted` names in that order, the rest as in `live`.
pub(super) fn arrange(merged: Vec<Value>, wanted: &[Value], live: &[Value], merge_key: Option<&str>) -> Vec<Value> {
    let wanted = positions(wanted, merge_key);
    let live = positions(live, merge_key);
    let live_position = |item: &Value| live.get(&identity(item, merge_key)).copied();

    let (mut named, mut others): (Vec<_>, Vec<_>) = merged
        .into_iter()
        .map(|item| (wanted.get(&identity(&item, merge_key)).copied(), item))
        .partition(|(position, _)| position.is_some());
    named.sort_by_key(|(position, _)| *position);
    others.sort_by_key(|(_, item)| live_position(item).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().map(|(_, item)| item).peekable();
    for (_, item) in named {
        if let Some(at) = live_position(&item) {
            while let Some(other) = others.next_if(|other| live_position(other).is_some_and(|position| position < at)) {
                arranged.push(other);
            }
        }
        arranged.push(item);
    }
    arranged.extend(others);
    arranged
}
