//! Who runs beside whom: which containers are wanted now, and whom a sidecar outlives.

use k8s_openapi::api::core::v1::Pod;

use super::Slot;
use super::restart::is_over;
use super::spec::is_sidecar;
use super::state::PodState;

/// The containers that are to be started or kept now.
pub(super) fn wanted(pod: &Pod, state: &PodState) -> Vec<Slot> {
    // Once a container has run, the Pod is initialised for good (an agent that restarts may have lost the init runs).
    let begun = state.begun();
    let mut slots = Vec::new();
    for (n, container) in state.init.iter().enumerate() {
        let slot = Slot::Init(n);
        if is_sidecar(pod, slot) {
            slots.push(slot);
            // One that is restarted holds nobody up who went past it before.
            let passed = begun || state.init[n + 1..].iter().any(|later| later.begun());
            if !passed && !container.started() {
                return slots;
            }
        } else if !begun && !container.completed() {
            slots.push(slot);
            return slots;
        }
    }
    slots.extend((0..state.containers.len()).map(Slot::Main));
    slots
}

/// Every container (sidecars apart) has ended for good.
pub(super) fn is_over_all(pod: &Pod, state: &PodState) -> bool {
    state.containers.iter().enumerate().all(|(n, container)| is_over(pod, Slot::Main(n), container))
}

/// Nothing runs any more that this container outlives when the Pod ends: a sidecar goes after all containers and after the
/// sidecars behind it.
pub(super) fn is_its_turn(pod: &Pod, state: &PodState, slot: Slot) -> bool {
    let Slot::Init(n) = slot else { return true };
    if !is_sidecar(pod, slot) {
        return true;
    }
    let mut later = (n + 1..state.init.len()).filter(|m| is_sidecar(pod, Slot::Init(*m)));
    !state.containers.iter().any(|container| container.run.is_live()) && !later.any(|m| state.init[m].run.is_live())
}
