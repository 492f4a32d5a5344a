//! `/metrics/cadvisor`: the names that cAdvisor made common, for both kinds of container.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use wherry_api::exposition::{Exposition, Family, Kind};
use wherry_runtime::{MemoryUse, Stats, Traffic};

use super::{ContainerSample, Meter, PodSample, Sample, float, seconds};
use crate::node::register::KUBELET_VERSION;

/// The period over which `limits.cpu` holds, microseconds.
const PERIOD: f64 = 100_000.0;

/// Writes all of them.
pub(crate) fn write(meter: &Meter, sample: &Sample, to: &mut Exposition) {
    machine(meter, to);
    cpu(sample, to);
    memory(sample, to);
    specs(sample, to);
    network(sample, to);
}

fn machine(meter: &Meter, to: &mut Exposition) {
    let capacity = &meter.machine.capacity;
    let whole = |value: i64| float(u64::try_from(value).unwrap_or(0));
    to.family(
        "cadvisor_version_info",
        Kind::Gauge,
        "A metric with a constant '1' value labeled by kernel version, OS version, and versions of the agent.",
    )
    .sample(&[("cadvisorVersion", ""), ("kubeletVersion", KUBELET_VERSION)], 1.0);
    to.family("machine_cpu_cores", Kind::Gauge, "Number of logical CPU cores.")
        .sample(&[], whole(capacity.cpu_millis) / 1000.0);
    to.family("machine_memory_bytes", Kind::Gauge, "Amount of memory installed on the machine.")
        .sample(&[], whole(capacity.memory_bytes));
}

/// A figure of every container, and of the node as `id="/"`.
fn each(sample: &Sample, family: &mut Family<'_>, of: impl Fn(&Stats) -> Option<f64>) {
    let millis = millis(sample.at);
    let node = Stats { cpu_nanos: sample.node.cpu_nanos, memory: sample.node.memory, ..Stats::default() };
    if let Some(value) = of(&node) {
        let labels = [("container", ""), ("id", "/"), ("image", ""), ("name", ""), ("namespace", ""), ("pod", "")];
        family.sample_at(&labels, value, millis);
    }
    for (pod, container) in containers(sample) {
        let Some(value) = of(&container.stats) else { continue };
        labelled(pod, container, |labels| family.sample_at(labels, value, millis));
    }
}

fn containers(sample: &Sample) -> impl Iterator<Item = (&PodSample, &ContainerSample)> {
    sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

fn labelled(pod: &PodSample, container: &ContainerSample, with: impl FnOnce(&[(&str, &str)])) {
    let id = format!("{}/{}", group(pod), container.id);
    let image = spec(pod, &container.name).and_then(|spec| spec.image.as_deref()).unwrap_or_default();
    with(&[
        ("container", &container.name),
        ("id", &id),
        ("image", image),
        ("name", &container.id.0),
        ("namespace", pod.namespace()),
        ("pod", pod.name()),
    ]);
}

fn group(pod: &PodSample) -> String {
    format!("/wherry/pod{}", pod.uid())
}

fn spec<'a>(pod: &'a PodSample, name: &str) -> Option<&'a Container> {
    let spec = pod.pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|container| container.name == name)
}

fn cpu(sample: &Sample, to: &mut Exposition) {
    let mut family =
        to.family("container_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed in seconds.");
    each(sample, &mut family, |stats| Some(seconds(stats.cpu_nanos)));
    let mut family =
        to.family("container_cpu_cfs_periods_total", Kind::Counter, "Number of elapsed enforcement period intervals.");
    each(sample, &mut family, |stats| stats.throttling.map(|it| float(it.periods)));
    let mut family =
        to.family("container_cpu_cfs_throttled_periods_total", Kind::Counter, "Number of throttled period intervals.");
    each(sample, &mut family, |stats| stats.throttling.map(|it| float(it.throttled_periods)));
    let mut family = to.family(
        "container_cpu_cfs_throttled_seconds_total",
        Kind::Counter,
        "Total time duration the container has been throttled.",
    );
    each(sample, &mut family, |stats| stats.throttling.map(|it| seconds(it.throttled_nanos)));
    let mut family = to.family(
        "container_start_time_seconds",
        Kind::Gauge,
        "Start time of the container since unix epoch in seconds.",
    );
    each(sample, &mut family, |stats| stats.started_at.map(since_epoch));
    let seen = since_epoch(sample.at).floor();
    let mut family = to.family("container_last_seen", Kind::Gauge, "Last time a container was seen by the exporter");
    each(sample, &mut family, |_| Some(seen));
}

fn memory(sample: &Sample, to: &mut Exposition) {
    type Of = fn(&MemoryUse) -> u64;
    let gauges: [(&str, &str, Of); 5] = [
        (
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |memory| memory.usage,
        ),
        ("container_memory_working_set_bytes", "Current working set in bytes.", |memory| memory.working_set),
        ("container_memory_rss", "Size of RSS in bytes.", |memory| memory.rss),
        ("container_memory_cache", "Number of bytes of page cache memory.", |memory| memory.cache),
        ("container_memory_swap", "Container swap usage in bytes.", |memory| memory.swap),
    ];
    for (name, help, of) in gauges {
        each(sample, &mut to.family(name, Kind::Gauge, help), |stats| Some(float(of(&stats.memory))));
    }
}

/// What the manifests allow and ask for.
fn specs(sample: &Sample, to: &mut Exposition) {
    let millis = millis(sample.at);
    let limits: [(&str, &str, &str, f64); 2] = [
        ("container_spec_memory_limit_bytes", "Memory limit for the container.", "memory", 1.0),
        ("container_spec_cpu_quota", "CPU quota of the container.", "cpu", PERIOD),
    ];
    for (name, help, resource, scale) in limits {
        let mut family = to.family(name, Kind::Gauge, help);
        for (pod, container) in containers(sample) {
            let limits = spec(pod, &container.name).and_then(|spec| spec.resources.as_ref()?.limits.as_ref());
            let limit = limits.and_then(|limits| limits.get(resource)).and_then(amount);
            if let Some(limit) = limit {
                labelled(pod, container, |labels| family.sample_at(labels, limit * scale, millis));
            }
        }
    }
    let mut family = to.family("container_spec_cpu_period", Kind::Gauge, "CPU period of the container.");
    for (pod, container) in containers(sample) {
        labelled(pod, container, |labels| family.sample_at(labels, PERIOD, millis));
    }
}

fn amount(quantity: &Quantity) -> Option<f64> {
    Some(quantity.0.parse::<wherry_api::quantity::Quantity>().ok()?.as_f64())
}

fn network(sample: &Sample, to: &mut Exposition) {
    type Of = fn(&Traffic) -> u64;
    let counters: [(&str, &str, Of); 8] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |it| it.received.bytes),
        ("container_network_receive_packets_total", "Cumulative count of packets received", |it| it.received.packets),
        (
            "container_network_receive_packets_dropped_total",
            "Cumulative count of packets dropped while receiving",
            |it| it.received.dropped,
        ),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |it| {
            it.received.errors
        }),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |it| it.sent.bytes),
        ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |it| it.sent.packets),
        (
            "container_network_transmit_packets_dropped_total",
            "Cumulative count of packets dropped while transmitting",
            |it| it.sent.dropped,
        ),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |it| it.sent.errors,
        ),
    ];
    let millis = millis(sample.at);
    for (name, help, of) in counters {
        let mut family = to.family(name, Kind::Counter, help);
        for (pod, traffic) in sample.pods.iter().filter_map(|pod| Some((pod, pod.traffic?))) {
            let labels = [
                ("id", &*group(pod)),
                ("image", ""),
                ("interface", "eth0"),
                ("name", ""),
                ("namespace", pod.namespace()),
                ("pod", pod.name()),
            ];
            family.sample_at(&labels, float(of(&traffic)), millis);
        }
    }
}

pub(super) fn since_epoch(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

pub(super) fn millis(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
