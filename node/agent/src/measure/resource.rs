//! `/metrics/resource`: CPU and memory alone, what metrics-server reads.

use wherry_api::exposition::{Exposition, Kind};

use super::cadvisor::{millis, since_epoch};
use super::{PodSample, Sample, float, seconds};

/// Writes all of them.
pub(crate) fn write(sample: &Sample, to: &mut Exposition) {
    let at = millis(sample.at);
    let mut containers = |name: &str, kind: Kind, help: &str, of: fn(&wherry_runtime::Stats) -> Option<f64>| {
        let mut family = to.family(name, kind, help);
        for pod in &sample.pods {
            for container in &pod.containers {
                let Some(value) = of(&container.stats) else { continue };
                let labels = [("container", &*container.name), ("namespace", pod.namespace()), ("pod", pod.name())];
                family.sample_at(&labels, value, at);
            }
        }
    };
    containers(
        "container_cpu_usage_seconds_total",
        Kind::Counter,
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        |stats| Some(seconds(stats.cpu_nanos)),
    );
    containers(
        "container_memory_working_set_bytes",
        Kind::Gauge,
        "[STABLE] Current working set of the container in bytes",
        |stats| Some(float(stats.memory.working_set)),
    );
    containers(
        "container_start_time_seconds",
        Kind::Gauge,
        "[STABLE] Start time of the container since unix epoch in seconds",
        |stats| stats.started_at.map(since_epoch),
    );
    containers(
        "container_swap_usage_bytes",
        Kind::Gauge,
        "[ALPHA] Current amount of the container swap usage in bytes.",
        |stats| Some(float(stats.memory.swap)),
    );
    let node = &sample.node;
    let mut one = |name: &str, kind: Kind, help: &str, value: f64| {
        to.family(name, kind, help).sample_at(&[], value, at);
    };
    one(
        "node_cpu_usage_seconds_total",
        Kind::Counter,
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        seconds(node.cpu_nanos),
    );
    one(
        "node_memory_working_set_bytes",
        Kind::Gauge,
        "[STABLE] Current working set of the node in bytes",
        float(node.memory.working_set),
    );
    one(
        "node_swap_usage_bytes",
        Kind::Gauge,
        "[ALPHA] Current swap usage of the node in bytes.",
        float(node.memory.swap),
    );
    let mut pods = |name: &str, kind: Kind, help: &str, of: fn(&PodSample) -> f64| {
        let mut family = to.family(name, kind, help);
        for pod in &sample.pods {
            family.sample_at(&[("namespace", pod.namespace()), ("pod", pod.name())], of(pod), at);
        }
    };
    pods(
        "pod_cpu_usage_seconds_total",
        Kind::Counter,
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        |pod| seconds(pod.cpu_nanos()),
    );
    pods("pod_memory_working_set_bytes", Kind::Gauge, "[STABLE] Current working set of the pod in bytes", |pod| {
        float(pod.memory().working_set)
    });
    to.family(
        "resource_scrape_error",
        Kind::Gauge,
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    )
    .sample(&[], 0.0);
}
