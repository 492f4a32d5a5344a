//! The measuring itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Mutex;
use tokio::time::Instant;
use wherry_runtime::{ContainerId, MemoryUse, Runtime, Stats, Traffic};

use super::machine::Machine;
use super::points::{Point, Points, SHORTEST};
use crate::driver::shared::View;
use crate::ports::NodeNet;

/// A measurement serves those who ask within this time of it.
const FRESH: Duration = Duration::from_millis(500);
/// Containers that are asked for at once.
const AT_ONCE: usize = 16;
/// The node's own name among the points; no container has it.
const NODE: &str = "";

/// All that was measured at one moment.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) at: SystemTime,
    clock: Instant,
    pub(crate) node: NodeSample,
    pub(crate) pods: Vec<PodSample>,
}

/// The node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NodeSample {
    pub(crate) cpu_nanos: u64,
    pub(crate) memory: MemoryUse,
}

/// One Pod that has a live container.
#[derive(Debug)]
pub(crate) struct PodSample {
    pub(crate) pod: Arc<Pod>,
    pub(crate) dir: PathBuf,
    pub(crate) containers: Vec<ContainerSample>,
    pub(crate) traffic: Option<Traffic>,
}

/// One live container.
pub(crate) struct ContainerSample {
    pub(crate) name: String,
    pub(crate) id: ContainerId,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) stats: Stats,
}

impl std::fmt::Debug for ContainerSample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerSample").field("name", &self.name).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl PodSample {
    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// CPU time of its containers together.
    pub(crate) fn cpu_nanos(&self) -> u64 {
        self.containers.iter().map(|container| container.stats.cpu_nanos).sum()
    }

    /// Memory of its containers together.
    pub(crate) fn memory(&self) -> MemoryUse {
        sum(self.containers.iter().map(|container| container.stats.memory))
    }
}

fn sum(all: impl Iterator<Item = MemoryUse>) -> MemoryUse {
    all.fold(MemoryUse::default(), |sum, one| MemoryUse {
        usage: sum.usage + one.usage,
        working_set: sum.working_set + one.working_set,
        rss: sum.rss + one.rss,
        cache: sum.cache + one.cache,
        swap: sum.swap + one.swap,
        page_faults: sum.page_faults + one.page_faults,
        major_page_faults: sum.major_page_faults + one.major_page_faults,
    })
}

/// A sample and an older moment, between which rates can be told.
#[derive(Debug)]
pub(crate) struct Rated {
    pub(crate) sample: Arc<Sample>,
    base: Point,
}

impl Rated {
    /// Over how long the rates are.
    pub(crate) fn window(&self) -> Duration {
        self.sample.clock.saturating_duration_since(self.base.at)
    }

    /// Billionths of a core that the node uses.
    pub(crate) fn node(&self) -> Option<u64> {
        self.base.rate(NODE, self.sample.node.cpu_nanos, self.sample.clock, None)
    }

    /// Billionths of a core that a container uses; none for one that has just started.
    pub(crate) fn container(&self, container: &ContainerSample) -> Option<u64> {
        let age = container.stats.started_at.and_then(|start| self.sample.at.duration_since(start).ok());
        self.base.rate(&container.id.0, container.stats.cpu_nanos, self.sample.clock, age)
    }

    /// Thousandths of a request a second that come to a Pod's containers, where their runtime sees requests; none, too, where one
    /// of them has just started.
    pub(crate) fn milli_requests(&self, pod: &PodSample) -> Option<u64> {
        let serving = pod.containers.iter().filter(|container| container.stats.requests.is_some());
        let mut rates = serving
            .map(|container| {
                let age = container.stats.started_at.and_then(|start| self.sample.at.duration_since(start).ok());
                self.base.rate(&requests_of(container), milli_requests(container)?, self.sample.clock, age)
            })
            .peekable();
        rates.peek()?;
        rates.sum()
    }
}

/// The count of a container's requests among the points.
fn requests_of(container: &ContainerSample) -> String {
    format!("{} requests", container.id.0)
}

fn milli_requests(container: &ContainerSample) -> Option<u64> {
    container.stats.requests.map(|count| count.saturating_mul(1000))
}

/// Measures a node.
pub(crate) struct Meter {
    view: Arc<View>,
    pub(crate) machine: Machine,
    network: OnceLock<Arc<dyn NodeNet>>,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    newest: Option<Arc<Sample>>,
    points: Points,
}

impl Meter {
    pub(crate) fn new(view: Arc<View>, machine: Machine) -> Arc<Self> {
        Arc::new(Self { view, machine, network: OnceLock::new(), past: Mutex::default() })
    }

    /// Tells it the node's network, once that is there.
    pub(crate) fn set_network(&self, network: Arc<dyn NodeNet>) {
        let _first = self.network.set(network);
    }

    /// How many Pods the node knows.
    pub(crate) fn pods(&self) -> usize {
        self.view.read().len()
    }

    /// What is used now.
    pub(crate) async fn sample(&self) -> Arc<Sample> {
        self.fresh(&mut *self.past.lock().await).await
    }

    /// What is used now, measured for this caller: nothing that began before the call is missing.
    pub(crate) async fn sample_anew(&self) -> Arc<Sample> {
        self.take(&mut *self.past.lock().await).await
    }

    /// What is used now, with rates. Waits for a second where nobody has asked for long.
    pub(crate) async fn rated(&self) -> Rated {
        let mut past = self.past.lock().await;
        loop {
            let sample = self.fresh(&mut past).await;
            if let Some(base) = past.points.base(sample.clock) {
                return Rated { base: base.clone(), sample };
            }
            tokio::time::sleep(SHORTEST).await;
        }
    }

    async fn fresh(&self, past: &mut Past) -> Arc<Sample> {
        if let Some(newest) = past.newest.as_ref().filter(|newest| newest.clock.elapsed() < FRESH) {
            return newest.clone();
        }
        self.take(past).await
    }

    async fn take(&self, past: &mut Past) -> Arc<Sample> {
        let sample = Arc::new(self.measure().await);
        let containers = sample.pods.iter().flat_map(|pod| &pod.containers);
        let mut counts = HashMap::new();
        for container in containers {
            counts.insert(container.id.0.clone(), container.stats.cpu_nanos);
            counts.extend(milli_requests(container).map(|count| (requests_of(container), count)));
        }
        counts.insert(NODE.to_owned(), sample.node.cpu_nanos);
        past.points.push(Point { at: sample.clock, counts });
        past.newest = Some(sample.clone());
        sample
    }

    async fn measure(&self) -> Sample {
        let (at, clock) = (SystemTime::now(), Instant::now());
        let seen: Vec<_> = self.view.read().values().cloned().collect();
        let carried = match self.network.get() {
            Some(network) => network.traffic().await,
            None => HashMap::new(),
        };
        let asked = seen.into_iter().map(|seen| async {
            let live = seen.containers.into_iter().filter_map(|one| Some((one.name, one.live?)));
            let mut containers = Vec::new();
            for (name, (id, runtime)) in live {
                // One that is not running (any more) uses nothing.
                if let Ok(stats) = runtime.stats(&id).await {
                    containers.push(ContainerSample { name, id, runtime, stats });
                }
            }
            (seen.pod, seen.dir, containers)
        });
        let mut pods: Vec<_> = stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .filter_map(|(pod, dir, containers)| {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                let traffic = carried.get(uid).copied().or_else(|| by_sockets(&containers));
                let found = (!containers.is_empty()).then_some(PodSample { pod, dir, containers, traffic });
                std::future::ready(found)
            })
            .collect()
            .await;
        pods.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
        let node = if self.machine.shared {
            NodeSample {
                cpu_nanos: pods.iter().map(PodSample::cpu_nanos).sum(),
                memory: sum(pods.iter().map(PodSample::memory)),
            }
        } else {
            NodeSample { cpu_nanos: Machine::cpu_nanos(), memory: Machine::memory() }
        };
        Sample { at, clock, node, pods }
    }
}

/// What the runtimes have counted, where the Pod has no interface of its own.
fn by_sockets(containers: &[ContainerSample]) -> Option<Traffic> {
    let mut all = None;
    for traffic in containers.iter().filter_map(|container| container.stats.traffic) {
        *all.get_or_insert_with(Traffic::default) += traffic;
    }
    all
}
