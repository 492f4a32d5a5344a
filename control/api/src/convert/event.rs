//! `events.k8s.io/v1` Events are stored as `v1` Events: the same facts under other names.

use serde_json::Value;

use super::rename;

/// The name in `events.k8s.io/v1`, and in `v1`.
const NAMES: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// From `events.k8s.io/v1` to `v1`.
pub fn to_core(event: &mut Value) {
    let Some(map) = event.as_object_mut() else {
        return;
    };
    for (new, core) in NAMES {
        rename(map, new, core);
    }
    map.insert("apiVersion".into(), "v1".into());
}

/// From `v1` to `events.k8s.io/v1`.
pub fn from_core(event: &mut Value) {
    let Some(map) = event.as_object_mut() else {
        return;
    };
    for (new, core) in NAMES {
        rename(map, core, new);
    }
    map.insert("apiVersion".into(), "events.k8s.io/v1".into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "note": "n", "reason": "r",
            "regarding": {"kind": "Pod"}, "reportingController": "c", "deprecatedCount": 2, "deprecatedSource": {"component": "x"},
        });
        let mut core = event.clone();
        to_core(&mut core);
        assert_eq!(core["message"], "n");
        assert_eq!(core["involvedObject"]["kind"], "Pod");
        assert_eq!(core["apiVersion"], "v1");
        from_core(&mut core);
        assert_eq!(core, event);
    }
}
