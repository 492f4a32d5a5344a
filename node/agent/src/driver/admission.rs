//! Whether the node takes a Pod that is bound to it. The scheduler has asked before; a Pod whose manifest names its node was weighed by
//! nobody. What kubelet asks of these is asked here, with its words (`pkg/kubelet/lifecycle/predicate.go`); what depends on the node's
//! labels and taints is not.

use wherry_reconcile::EventType;
use wherry_reconcile::host_ports::{self, NO_FREE_PORTS};
use wherry_reconcile::resources::{self, Resources};

use super::Driver;
use super::record::{Record, Uid};
use crate::lifecycle::Verdict;
use crate::node::Capacity;
use crate::shortage::{EVICTED, is_critical};

/// Why a Pod is not taken.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    reason: String,
    message: String,
}

impl Driver {
    /// Fails a Pod that comes and cannot be had.
    pub(super) fn admit(&self, uid: &Uid, record: &mut Record) {
        if record.state.started_at.is_some() || record.ending() || record.state.phase.is_terminal() {
            return;
        }
        let Some(Refusal { reason, message }) = self.refusal(uid, record) else { return };
        self.shared.event(&record.pod, EventType::Warning, &reason, message.clone());
        record.state.verdict = Some(Verdict::new(reason, format!("Pod was rejected: {message}")));
    }

    fn refusal(&self, uid: &Uid, record: &Record) -> Option<Refusal> {
        if !is_critical(&record.pod)
            && !self.is_static(uid)
            && let Some(message) = self.shared.pressure.borrow().refusal(&record.pod)
        {
            return Some(Refusal { reason: EVICTED.to_owned(), message });
        }
        self.lacking(record).or_else(|| self.taken_port(record))
    }

    /// Summing up what each Pod has takes long on a node of thousands: only where the account of them all does not show that there is room.
    fn lacking(&self, record: &Record) -> Option<Refusal> {
        let (wanted, node) = (resources::requests(record.pod.spec.as_ref()?), &self.shared.capacity);
        let places = i64::try_from(self.pods.len()).is_ok_and(|pods| pods < node.pods);
        if places && wanted.ephemeral == 0 && self.room.surely_has(&wanted, node) {
            return None;
        }
        let mut used = Resources::default();
        self.others().for_each(|other| used.add(&resources::held(&other.pod)));
        lacking(&wanted, &used, node)
    }

    /// Those that have something of the node.
    fn others(&self) -> impl Iterator<Item = &Record> {
        self.pods.values().filter(|record| !record.is_over() && !record.gone)
    }

    fn taken_port(&self, record: &Record) -> Option<Refusal> {
        let wanted = host_ports::of(record.pod.spec.as_ref()?);
        let taken = |other: &Record| {
            let ports = other.pod.spec.as_ref().map(host_ports::of).unwrap_or_default();
            ports.iter().any(|port| wanted.iter().any(|wanted| wanted.conflicts(port)))
        };
        (!wanted.is_empty() && self.others().any(taken)).then(|| Refusal {
            reason: "NodePorts".to_owned(),
            message: format!("Predicate NodePorts failed: {NO_FREE_PORTS}"),
        })
    }
}

/// The first resource of which there is too little: places for Pods, CPU, memory, disk.
fn lacking(wanted: &Resources, used: &Resources, node: &Capacity) -> Option<Refusal> {
    let resources = [
        ("pods", wanted.pods, used.pods, node.pods),
        ("cpu", wanted.milli_cpu, used.milli_cpu, node.cpu_millis),
        ("memory", wanted.memory, used.memory, node.memory_bytes),
        ("ephemeral-storage", wanted.ephemeral, used.ephemeral, node.storage_bytes),
    ];
    let short = resources.into_iter().find(|(_, wanted, used, capacity)| *wanted > 0 && used + wanted > *capacity);
    short.map(|(name, wanted, used, capacity)| Refusal {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_resource_that_is_lacking_is_told() {
        let node = Capacity { cpu_millis: 2000, memory_bytes: 1000, storage_bytes: 1000, pods: 3 };
        let of = |milli_cpu, memory, ephemeral, pods| Resources {
            milli_cpu,
            memory,
            ephemeral,
            pods,
            ..Resources::default()
        };
        let told = |wanted: Resources, used: Resources| lacking(&wanted, &used, &node).map(|refusal| refusal.reason);
        assert_eq!(told(of(1000, 500, 500, 1), of(1000, 500, 500, 2)), None, "to the last bit");
        assert_eq!(told(of(1001, 501, 0, 1), of(1000, 500, 0, 3)).as_deref(), Some("OutOfpods"));
        assert_eq!(told(of(1001, 501, 0, 1), of(1000, 500, 0, 2)).as_deref(), Some("OutOfcpu"));
        assert_eq!(
            told(of(0, 501, 0, 1), of(9000, 500, 0, 2)).as_deref(),
            Some("OutOfmemory"),
            "who wants none lacks none"
        );
        let refusal = lacking(&of(0, 0, 501, 1), &of(0, 0, 500, 2), &node);
        let message = "Node didn't have enough resource: ephemeral-storage, requested: 501, used: 500, capacity: 1000";
        assert_eq!(refusal.map(|refusal| refusal.message).as_deref(), Some(message));
    }
}
