//! `/usage`: what the API server shows as `metrics.k8s.io` and of Pods as `custom.metrics.k8s.io`, ready-made but for their labels.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::sample::Rated;

/// `{timestamp, window, windowSeconds, node: {usage}, pods: [{namespace, name, uid, requests, containers: [{name, usage}]}]}`; requests, a second, where
/// the Pod's runtime sees any. A Pod of which a container has
/// just started is left out, as metrics-server does: half a figure misleads those who scale by it.
pub(crate) fn document(rated: &Rated) -> Value {
    let sample = &rated.sample;
    let pods: Vec<Value> = sample
        .pods
        .iter()
        .filter_map(|pod| {
            let containers = pod.containers.iter().map(|container| {
                let usage = usage(rated.container(container)?, container.stats.memory.working_set);
                Some(json!({ "name": container.name, "usage": usage }))
            });
            let containers = containers.collect::<Option<Vec<_>>>()?;
            let requests = rated.milli_requests(pod).map(|milli| format!("{milli}m"));
            Some(json!({
                "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid(), "containers": containers,
                "requests": requests,
            }))
        })
        .collect();
    json!({
        "timestamp": timestamp(sample.at),
        "window": window(rated.window()),
        "windowSeconds": rated.window().as_secs(),
        "node": { "usage": usage(rated.node().unwrap_or(0), sample.node.memory.working_set) },
        "pods": pods,
    })
}

/// As metrics-server writes quantities: billionths of a core, whole KiB.
fn usage(nano_cores: u64, memory: u64) -> Value {
    let cpu = if nano_cores == 0 { "0".to_owned() } else { format!("{nano_cores}n") };
    let kib = memory.div_ceil(1024);
    let memory = if kib == 0 { "0".to_owned() } else { format!("{kib}Ki") };
    json!({ "cpu": cpu, "memory": memory })
}

/// A time in whole seconds.
pub(super) fn timestamp(at: std::time::SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or_default();
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// As Go writes a `metav1.Duration` of milliseconds.
fn window(span: Duration) -> String {
    let (minutes, rest) = (span.as_secs() / 60, span.as_secs() % 60);
    let mut seconds = format!("{rest}.{:03}", span.subsec_millis());
    while seconds.ends_with('0') {
        seconds.pop();
    }
    let seconds = seconds.trim_end_matches('.');
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_and_durations_are_written_as_upstream_writes_them() {
        assert_eq!(usage(0, 0), json!({ "cpu": "0", "memory": "0" }));
        assert_eq!(usage(1_234_567, 2049), json!({ "cpu": "1234567n", "memory": "3Ki" }));
        assert_eq!(window(Duration::from_millis(15_250)), "15.25s");
        assert_eq!(window(Duration::from_millis(74_005)), "1m14.005s");
        assert_eq!(window(Duration::from_secs(10)), "10s");
    }
}
