//! The Pod lifecycle: one pure function for both kinds of container.
//!
//! ```text
//!  Pod (spec, deletion) ─┐
//!  PodState (observed)  ─┼─► plan() ─► actions, when to look again     (plan.rs)
//!  now                  ─┘   status() ─► PodStatus                      (status.rs)
//! ```
//!
//! The driver applies each action to the state ([`apply`]) before it carries it out, so that planning twice
//! gives nothing twice; outcomes come back as changes of the state.
//!
//! # Guarantees
//! - A container has at most one live attempt; its restart count only grows.
//! - Init containers run one after the other, then all containers at once.
//! - A Pod that is being deleted, or whose phase is terminal, starts nothing.
//! - A Pod's object is deleted only after nothing of it runs, its ground is gone and its end was reported.

mod plan;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use plan::{Action, Deletion, Want, apply, plan};
pub(crate) use plan::{container, name};
pub(crate) use state::{
    ContainerState, Ended, Ground, Identity, Live, Phase, PodState, ProbeVerdict, Probes, Run, Why, add,
};
pub(crate) use status::{NodeFacts, recover_status, status};

/// Which container of a Pod: its place in `initContainers` or `containers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// `spec.initContainers[n]`.
    Init(usize),
    /// `spec.containers[n]`.
    Main(usize),
}

impl PodState {
    /// The state of a Pod that was never seen, its containers waiting.
    #[must_use]
    pub(crate) fn new(init: usize, containers: usize) -> Self {
        Self {
            init: vec![ContainerState::default(); init],
            containers: vec![ContainerState::default(); containers],
            ..Self::default()
        }
    }

    /// One container's state.
    #[must_use]
    pub(crate) fn container(&self, slot: Slot) -> Option<&ContainerState> {
        match slot {
            Slot::Init(n) => self.init.get(n),
            Slot::Main(n) => self.containers.get(n),
        }
    }

    /// As [`container`](Self::container).
    pub(crate) fn container_mut(&mut self, slot: Slot) -> Option<&mut ContainerState> {
        match slot {
            Slot::Init(n) => self.init.get_mut(n),
            Slot::Main(n) => self.containers.get_mut(n),
        }
    }

    /// Every container with its place.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, &ContainerState)> {
        let init = self.init.iter().enumerate().map(|(n, container)| (Slot::Init(n), container));
        init.chain(self.containers.iter().enumerate().map(|(n, container)| (Slot::Main(n), container)))
    }

    /// Something of it may run.
    #[must_use]
    pub(crate) fn is_live(&self) -> bool {
        self.slots().any(|(_, container)| container.run.is_live())
    }
}
