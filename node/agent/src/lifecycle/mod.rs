//! The Pod lifecycle: one pure function for both kinds of container.
//!
//! ```text
//!  Pod (spec, deletion) ─┐                                             (plan.rs; order.rs: who runs beside whom;
//!  PodState (observed)  ─┼─► plan() ─► actions, when to look again      restart.rs: what an exit leads to)
//!  now                  ─┘   status() ─► PodStatus                      (status.rs, phase.rs, conditions.rs)
//! ```
//!
//! The driver applies each action to the state ([`apply`]) before it carries it out, so that planning twice
//! gives nothing twice; outcomes come back as changes of the state.
//!
//! # Guarantees
//! - A container has at most one live attempt; its restart count only grows.
//! - Init containers run one after the other, then all containers at once. Of those that restart always (sidecars) the next
//!   waits only until they have started; they run until the containers have ended, the last one first to go.
//! - A Pod that is being deleted, or whose phase is terminal, starts nothing.
//! - A Pod's object is deleted only after nothing of it runs, its ground is gone and its end was reported.

mod apply;
mod conditions;
mod order;
mod phase;
mod plan;
mod recover;
pub(crate) mod resize;
mod restart;
mod spec;
mod state;
mod status;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Pod;

pub(crate) use apply::apply;
pub(crate) use conditions::{DISRUPTION_TARGET, TERMINATION_BY_KUBELET};
pub(crate) use plan::{Action, Deletion, Want, plan};
pub(crate) use recover::recover_status;
pub(crate) use spec::{container, field, in_known_order, name};
pub(crate) use state::{
    ContainerState, Ended, Given, Ground, Identity, Live, Pending, Phase, PodState, ProbeVerdict, Probes, Resize, Run,
    Verdict, Why, add,
};
pub(crate) use status::{NodeFacts, status};

/// Which container of a Pod: its place in `initContainers`, `containers` or `ephemeralContainers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// `spec.initContainers[n]`.
    Init(usize),
    /// `spec.containers[n]`.
    Main(usize),
    /// `spec.ephemeralContainers[n]`.
    Ephemeral(usize),
}

impl PodState {
    /// The state of a Pod that was never seen, its containers waiting.
    #[must_use]
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut state = Self::default();
        if let Some(spec) = &pod.spec {
            state.init.resize_with(spec.init_containers.as_ref().map_or(0, Vec::len), Default::default);
            state.containers.resize_with(spec.containers.len(), Default::default);
        }
        state.grow(pod);
        state
    }

    /// Ephemeral containers are added to a Pod while it runs.
    pub(crate) fn grow(&mut self, pod: &Pod) {
        let count = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref()).map_or(0, Vec::len);
        self.ephemeral.resize_with(count.max(self.ephemeral.len()), Default::default);
    }

    /// One container's state.
    #[must_use]
    pub(crate) fn container(&self, slot: Slot) -> Option<&ContainerState> {
        match slot {
            Slot::Init(n) => self.init.get(n),
            Slot::Main(n) => self.containers.get(n),
            Slot::Ephemeral(n) => self.ephemeral.get(n),
        }
    }

    /// As [`container`](Self::container).
    pub(crate) fn container_mut(&mut self, slot: Slot) -> Option<&mut ContainerState> {
        match slot {
            Slot::Init(n) => self.init.get_mut(n),
            Slot::Main(n) => self.containers.get_mut(n),
            Slot::Ephemeral(n) => self.ephemeral.get_mut(n),
        }
    }

    /// Every container with its place.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, &ContainerState)> {
        let init = self.init.iter().enumerate().map(|(n, container)| (Slot::Init(n), container));
        let main = self.containers.iter().enumerate().map(|(n, container)| (Slot::Main(n), container));
        let ephemeral = self.ephemeral.iter().enumerate().map(|(n, container)| (Slot::Ephemeral(n), container));
        init.chain(main).chain(ephemeral)
    }

    /// As [`slots`](Self::slots), to be changed.
    pub(crate) fn containers_mut(&mut self) -> impl Iterator<Item = &mut ContainerState> {
        self.init.iter_mut().chain(&mut self.containers).chain(&mut self.ephemeral)
    }

    /// A container has run since the Pod began (or was begun anew): its init containers are done for good.
    pub(crate) fn begun(&self) -> bool {
        self.containers.iter().any(ContainerState::begun)
    }

    /// Something of it may run.
    #[must_use]
    pub(crate) fn is_live(&self) -> bool {
        self.slots().any(|(_, container)| container.run.is_live())
    }
}
