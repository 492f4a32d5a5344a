//! `/metrics`: the agent itself, by kubelet's names.

use std::collections::BTreeMap;

use wherry_api::exposition::{Exposition, Kind, Process};

use super::{Meter, Sample, float};

/// Writes all of them.
pub(crate) fn write(node: &str, meter: &Meter, sample: &Sample, to: &mut Exposition) {
    to.family("kubelet_node_name", Kind::Gauge, "[ALPHA] The node's name. The count is always 1.")
        .sample(&[("node", node)], 1.0);
    to.family("kubelet_running_pods", Kind::Gauge, "[ALPHA] Number of pods that have a running pod sandbox")
        .sample(&[], float(sample.pods.len() as u64));
    let mut running: BTreeMap<&str, u64> = BTreeMap::new();
    let runtimes: Vec<_> =
        sample.pods.iter().flat_map(|pod| &pod.containers).map(|container| container.runtime.info().name).collect();
    for runtime in &runtimes {
        *running.entry(runtime).or_default() += 1;
    }
    to.family("kubelet_running_containers", Kind::Gauge, "[ALPHA] Number of containers currently running")
        .sample(&[("container_state", "running")], float(runtimes.len() as u64));
    let mut kinds =
        to.family("wherry_running_containers", Kind::Gauge, "Number of containers currently running, by runtime");
    for (runtime, count) in running {
        kinds.sample(&[("runtime", runtime)], float(count));
    }
    to.family(
        "kubelet_desired_pods",
        Kind::Gauge,
        "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
    )
    .sample(&[("static", "")], float(meter.pods() as u64));
    process(to);
}

/// The agent's process, which may be the control plane's, too.
fn process(to: &mut Exposition) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, limits, machine) = (read("/proc/self/stat"), read("/proc/self/limits"), read("/proc/stat"));
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Process { stat: &stat, limits: &limits, machine: &machine, descriptors }.write(to);
}
