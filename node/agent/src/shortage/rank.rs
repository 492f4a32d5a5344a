//! Who goes first when a node is short, and what is told of it: as kubelet ranks and words it.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::Pod;
use wherry_api::quantity::{Format, Quantity};
use wherry_reconcile::resources;

use super::LocalUse;
use super::threshold::{Met, Resource};

/// A Pod of which is known what it uses of what its node is short of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate<K> {
    key: K,
    priority: i32,
    used: u64,
    requested: u64,
    /// Each of its containers that uses more than it requests: name, use and request.
    greedy: Vec<(String, Quantity, Quantity)>,
}

impl<K> Candidate<K> {
    /// A Pod that is known to use so much of it, by container and beside them. None where it uses nothing: its end would give
    /// nothing back.
    fn new(key: K, pod: &Pod, resource: Resource, containers: &[(String, u64)], beside: u64) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let used = containers.iter().map(|(_, used)| used).sum::<u64>() + beside;
        let requests = resources::requests(spec);
        let requested = match resource {
            Resource::Memory => requests.memory,
            Resource::Disk => requests.ephemeral,
            Resource::Inodes | Resource::Pids => 0,
        };
        let listed = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let greedy = containers.iter().filter_map(|(name, used)| {
            let container = listed().find(|container| container.name == *name)?;
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let request = requests.and_then(|requests| requests.get(resource.as_str()));
            let request = request.map_or(Some(Quantity::ZERO), |request| Quantity::parse(&request.0).ok())?;
            let used = Quantity::new(i64::try_from(*used).unwrap_or(i64::MAX), Format::BinarySi);
            (used > request).then(|| (name.clone(), used, request))
        });
        // Of inodes nothing is told container by container.
        let greedy = if resource == Resource::Inodes { Vec::new() } else { greedy.collect() };
        let priority = spec.priority.unwrap_or_default();
        let requested = u64::try_from(requested).unwrap_or_default();
        (used > 0).then_some(Self { key, priority, used, requested, greedy })
    }

    /// By the memory of its containers, all of which are known.
    pub(crate) fn by_memory(key: K, pod: &Pod, containers: &[(String, u64)]) -> Option<Self> {
        Self::new(key, pod, Resource::Memory, containers, 0)
    }

    /// By what it has on the disk: bytes or files.
    pub(crate) fn by_disk(key: K, pod: &Pod, resource: Resource, used: &LocalUse) -> Option<Self> {
        let count =
            |used: &wherry_runtime::DiskUse| if resource == Resource::Inodes { used.inodes } else { used.bytes };
        let containers: Vec<_> = used.containers.iter().map(|(name, used)| (name.clone(), count(used))).collect();
        Self::new(key, pod, resource, &containers, used.volumes.values().map(count).sum())
    }

    /// What is told of it.
    pub(crate) fn message(&self, met: &Met) -> String {
        let resource = met.resource.as_str();
        let mut text = format!(
            "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
            met.quantity, met.available
        );
        for (name, used, request) in &self.greedy {
            text += &format!(
                "Container {name} was using {used}, request is {request}, has larger consumption of {resource}. "
            );
        }
        text
    }

    /// Which Pod it is.
    pub(crate) fn into_key(self) -> K {
        self.key
    }
}

/// Who goes first: who uses more than it requests before who does not, then by priority, then who uses the most beyond its request.
pub(crate) fn first<K: Ord + Clone>(candidates: Vec<Candidate<K>>) -> Option<Candidate<K>> {
    candidates.into_iter().min_by_key(|one| {
        let beyond = i128::from(one.used) - i128::from(one.requested);
        (Reverse(beyond > 0), one.priority, Reverse(beyond), one.key.clone())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(priority: i32, requests: &[(&str, u64)]) -> Pod {
        let containers: Vec<_> = requests
            .iter()
            .map(|(name, bytes)| {
                let text = bytes.to_string();
                json!({ "name": name, "resources": { "requests": { "memory": text, "ephemeral-storage": text } } })
            })
            .collect();
        serde_json::from_value(json!({ "spec": { "priority": priority, "containers": containers } })).unwrap()
    }

    fn memory(key: u32, priority: i32, requested: u64, used: u64) -> Option<Candidate<u32>> {
        Candidate::by_memory(key, &pod(priority, &[("c", requested)]), &[("c".to_owned(), used)])
    }

    #[test]
    fn the_message_names_what_its_containers_used() {
        let met = Met {
            resource: Resource::Memory,
            quantity: Quantity::parse("100Mi").unwrap(),
            available: Quantity::parse("90Mi").unwrap(),
        };
        let pod = pod(0, &[("a", 1 << 20), ("b", 64 << 20)]);
        let used = [("a".to_owned(), 3 << 20), ("b".to_owned(), 64 << 20), ("debug".to_owned(), 9 << 20)];
        let found = Candidate::by_memory((), &pod, &used).unwrap();
        assert_eq!(
            found.message(&met),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. Container a was using 3Mi, request \
             is 1048576, has larger consumption of memory. "
        );
    }

    #[test]
    fn files_count_where_they_are_what_is_short() {
        let disk = |bytes, inodes| wherry_runtime::DiskUse { bytes, inodes };
        let used = LocalUse {
            volumes: [("v".to_owned(), disk(1 << 20, 5))].into(),
            containers: [("c".to_owned(), disk(1 << 10, 100))].into(),
        };
        let pod = pod(0, &[("c", 0)]);
        let by = |resource| Candidate::by_disk((), &pod, resource, &used).unwrap();
        assert_eq!((by(Resource::Disk).used, by(Resource::Inodes).used), ((1 << 20) + (1 << 10), 105));
        assert_eq!((by(Resource::Disk).greedy.len(), by(Resource::Inodes).greedy.len()), (1, 0));
    }

    #[test]
    fn nobody_goes_who_gives_nothing_back() {
        assert_eq!(memory(1, 0, 0, 0), None);
        assert_eq!(first::<u32>(Vec::new()), None);
    }

    proptest! {
        #[test]
        fn nobody_is_left_who_should_have_gone_before(
            pods in prop::collection::vec((0..3_i32, 0..100_u64, 1..100_u64), 1..12)
        ) {
            let candidates: Vec<_> = pods
                .iter()
                .zip(0..)
                .filter_map(|(&(priority, requested, used), key)| memory(key, priority, requested, used))
                .collect();
            let chosen = first(candidates.clone()).unwrap();
            let beyond = |one: &Candidate<u32>| i128::from(one.used) - i128::from(one.requested);
            for other in candidates {
                if beyond(&other) > 0 {
                    prop_assert!(beyond(&chosen) > 0, "who keeps to its request goes last");
                }
                if (beyond(&other) > 0) == (beyond(&chosen) > 0) {
                    prop_assert!(chosen.priority <= other.priority);
                    if chosen.priority == other.priority {
                        prop_assert!(beyond(&chosen) >= beyond(&other));
                    }
                }
            }
        }
    }
}
