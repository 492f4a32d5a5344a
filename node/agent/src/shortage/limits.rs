//! What a Pod may take of its node's disk: `sizeLimit` of its emptyDirs, `limits.ephemeral-storage` of its containers, each and
//! together. emptyDirs in memory are not looked at: a tmpfs cannot outgrow its size.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use wherry_api::quantity::{Format, Quantity};
use wherry_runtime::DiskUse;

const RESOURCE: &str = "ephemeral-storage";

/// What a Pod has on its node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalUse {
    /// Its emptyDirs on disk.
    pub(crate) volumes: BTreeMap<String, DiskUse>,
    /// What its containers have written into their own root filesystem and to their logs.
    pub(crate) containers: BTreeMap<String, DiskUse>,
}

impl LocalUse {
    /// All of it, bytes.
    fn total(&self) -> u64 {
        self.volumes.values().chain(self.containers.values()).map(|used| used.bytes).sum()
    }
}

/// What a Pod may have there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LocalLimits {
    volumes: Vec<(String, Quantity)>,
    /// Of all its containers and volumes together.
    pod: Option<Quantity>,
    containers: Vec<(String, Quantity)>,
}

impl LocalLimits {
    /// Those of a manifest.
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let volumes = disk_volumes(spec).filter_map(|volume| {
            let text = &volume.empty_dir.as_ref()?.size_limit.as_ref()?.0;
            Some((volume.name.clone(), positive(text)?))
        });
        let containers = spec.containers.iter().filter_map(|one| Some((one.name.clone(), of_container(one)?)));
        Self { volumes: volumes.collect(), pod: together(spec), containers: containers.collect() }
    }

    /// Whether there is none: then nothing has to be measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.pod.is_none()
    }

    /// What is told of a Pod that uses this much, in kubelet's words and order; none where it may.
    pub(crate) fn exceeded(&self, used: &LocalUse) -> Option<String> {
        let volume =
            self.volumes.iter().find(|(name, most)| used.volumes.get(name).is_some_and(|used| over(used.bytes, *most)));
        if let Some((name, most)) = volume {
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{most}\". "));
        }
        if let Some(most) = self.pod.filter(|most| over(used.total(), *most)) {
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {most}. "));
        }
        let mut containers = self.containers.iter();
        let (name, most) =
            containers.find(|(name, most)| used.containers.get(name).is_some_and(|used| over(used.bytes, *most)))?;
        Some(format!("Container {name} exceeded its local ephemeral storage limit \"{most}\". "))
    }
}

/// The names of a Pod's emptyDirs on disk.
pub(crate) fn disk_volumes(spec: &PodSpec) -> impl Iterator<Item = &Volume> {
    let on_disk = |volume: &&Volume| {
        volume.empty_dir.as_ref().is_some_and(|empty| empty.medium.as_deref().unwrap_or_default().is_empty())
    };
    spec.volumes.iter().flatten().filter(on_disk)
}

fn over(used: u64, most: Quantity) -> bool {
    Quantity::new(i64::try_from(used).unwrap_or(i64::MAX), Format::BinarySi) > most
}

fn positive(text: &str) -> Option<Quantity> {
    Quantity::parse(text).ok().filter(|limit| !limit.is_zero() && !limit.is_negative())
}

fn of_container(container: &Container) -> Option<Quantity> {
    positive(&container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)?.0)
}

/// What a Pod's containers may have together: the sum of those that have a limit, or an init container beside the sidecars
/// before it, where that is more. None where none has one.
fn together(spec: &PodSpec) -> Option<Quantity> {
    let plus = |sum: Option<Quantity>, more: Option<Quantity>| match (sum, more) {
        (Some(sum), Some(more)) => Some(sum + more),
        (sum, more) => sum.or(more),
    };
    let mut running = spec.containers.iter().map(of_container).fold(None, plus);
    let (mut sidecars, mut starting) = (None, None);
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running = plus(running, own);
            sidecars = plus(sidecars, own);
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(plus(sidecars, own));
        }
    }
    running.max(starting)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn limits(spec: Value) -> LocalLimits {
        LocalLimits::of(&serde_json::from_value(json!({ "spec": spec })).unwrap())
    }

    fn container(name: &str, limit: Option<&str>) -> Value {
        json!({ "name": name, "resources": { "limits": limit.map(|limit| json!({ RESOURCE: limit })) } })
    }

    fn used(volumes: &[(&str, u64)], containers: &[(&str, u64)]) -> LocalUse {
        let disk = |bytes: u64| DiskUse { bytes, inodes: 1 };
        let owned =
            |list: &[(&str, u64)]| list.iter().map(|(name, bytes)| ((*name).to_owned(), disk(*bytes))).collect();
        LocalUse { volumes: owned(volumes), containers: owned(containers) }
    }

    #[test]
    fn each_limit_is_told_in_its_words_and_turn() {
        let limits = limits(json!({
            "containers": [container("a", Some("1Mi")), container("b", Some("3Mi")), container("c", None)],
            "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }, { "name": "w", "emptyDir": {} },
                { "name": "m", "emptyDir": { "sizeLimit": "1", "medium": "Memory" } }, { "name": "z", "emptyDir": { "sizeLimit": "0" } }],
        }));
        let told = |volumes: &[(&str, u64)], containers: &[(&str, u64)]| limits.exceeded(&used(volumes, containers));
        let mib = 1 << 20;
        assert_eq!(told(&[("v", mib), ("w", mib), ("z", mib)], &[("a", mib)]), None, "all that it may have");
        assert_eq!(
            told(&[("v", mib + 1), ("w", 9 * mib)], &[]).unwrap(),
            "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
        );
        assert_eq!(
            told(&[("w", 2 * mib)], &[("a", mib), ("b", mib), ("c", 1)]).unwrap(),
            "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. "
        );
        assert_eq!(
            told(&[], &[("a", mib + 1), ("b", mib)]).unwrap(),
            "Container a exceeded its local ephemeral storage limit \"1Mi\". "
        );
    }

    #[test]
    fn a_pod_may_have_what_its_hungriest_moment_may() {
        for (init, main, most) in [
            (vec![], vec![None, None], None),
            (vec![], vec![Some("1Mi"), None], Some("1Mi")),
            (vec![(Some("5Mi"), false)], vec![Some("1Mi"), Some("2Mi")], Some("5Mi")),
            (vec![(Some("2Mi"), true), (Some("5Mi"), false)], vec![Some("1Mi")], Some("7Mi")),
            (vec![(Some("2Mi"), true)], vec![Some("1Mi")], Some("3Mi")),
            (vec![(Some("2Mi"), false)], vec![None], Some("2Mi")),
        ] {
            let init: Vec<Value> = init
                .into_iter()
                .map(|(limit, sidecar)| {
                    let mut one = container("i", limit);
                    if sidecar {
                        one["restartPolicy"] = json!("Always");
                    }
                    one
                })
                .collect();
            let main: Vec<Value> = main.into_iter().map(|limit| container("c", limit)).collect();
            let found = limits(json!({ "initContainers": init, "containers": main })).pod;
            assert_eq!(found.map(|most| most.to_string()).as_deref(), most);
        }
    }

    #[test]
    fn without_limits_nothing_has_to_be_measured() {
        let volumes = json!([{ "name": "v", "emptyDir": {} }, { "name": "m", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }]);
        assert!(limits(json!({ "containers": [container("a", None)], "volumes": volumes })).is_empty());
    }
}
