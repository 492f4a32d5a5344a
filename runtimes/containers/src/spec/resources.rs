//! Limits, as control groups take them.

use serde_json::{Map, Value, json};
use wherry_runtime::Limits;

use crate::cgroup::Cgroups;

/// The kernel's accounting period for CPU limits, microseconds: the kubelet's.
const PERIOD: u64 = 100_000;
/// The kernel refuses less.
const MIN_QUOTA: u64 = 1_000;

pub(super) fn build(limits: &Limits, cgroups: &Cgroups, privileged: bool) -> Value {
    let mut resources = Map::new();
    let mut cpu = Map::new();
    cpu.insert("shares".into(), json!(limits.shares()));
    if let Some(millis) = limits.cpu_millis.filter(|millis| *millis > 0) {
        cpu.insert("period".into(), json!(PERIOD));
        cpu.insert("quota".into(), json!((millis.saturating_mul(PERIOD) / 1000).clamp(MIN_QUOTA, i64::MAX as u64)));
    }
    resources.insert("cpu".into(), cpu.into());
    if let Some(bytes) = limits.memory_bytes {
        let bytes = bytes.min(i64::MAX as u64);
        let mut memory = json!({"limit": bytes});
        // The limit of memory and swap together: no swap.
        if cgroups.limits_swap() {
            memory["swap"] = json!(bytes);
        }
        resources.insert("memory".into(), memory);
    }
    // runc adds the harmless devices of its own accord.
    resources.insert("devices".into(), json!([{"allow": privileged, "access": "rwm"}]));
    resources.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millicores_become_shares_and_quota() {
        let of = |limits: Limits| build(&limits, &Cgroups::V2("/".into()), false);
        let none = of(Limits::default());
        assert_eq!((&none["cpu"], &none["memory"]), (&json!({"shares": 2}), &Value::Null));
        let some = of(Limits { cpu_millis: Some(250), cpu_request_millis: Some(100), memory_bytes: Some(64 << 20) });
        assert_eq!(some["cpu"], json!({"shares": 102, "period": 100_000, "quota": 25_000}));
        assert_eq!(some["memory"], json!({"limit": 64 << 20, "swap": 64 << 20}));
        assert_eq!(of(Limits { cpu_millis: Some(1), ..Limits::default() })["cpu"]["quota"], 1_000);
    }
}
