//! What must be true once nothing changes any more: every workload exactly as its newest template says, every Job complete with
//! each index once, and no Pod that nobody wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::guard::condition;
use crate::load::{Asked, GUARDS, Kind, NAMESPACE, NODES, SETTLED};

/// Everything that the load's namespace holds.
pub(crate) struct State {
    pods: Vec<Pod>,
    deployments: Vec<Deployment>,
    replica_sets: Vec<ReplicaSet>,
    stateful_sets: Vec<StatefulSet>,
    daemon_sets: Vec<DaemonSet>,
    jobs: Vec<Job>,
    budgets: Vec<PodDisruptionBudget>,
}

async fn list<K>(client: &Client) -> kube::Result<Vec<K>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    Ok(Api::<K>::namespaced(client.clone(), NAMESPACE).list(&ListParams::default()).await?.items)
}

/// What is not as it should be, a line each.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

impl State {
    pub(crate) async fn read(client: &Client) -> kube::Result<Self> {
        Ok(Self {
            pods: list(client).await?,
            deployments: list(client).await?,
            replica_sets: list(client).await?,
            stateful_sets: list(client).await?,
            daemon_sets: list(client).await?,
            jobs: list(client).await?,
            budgets: list(client).await?,
        })
    }

    /// The running Pods of a node, by uid.
    pub(crate) fn running_on(&self, node: &str) -> BTreeSet<String> {
        let pods = self.pods.iter().filter(|pod| {
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node) && phase(pod) == "Running"
        });
        pods.filter_map(ResourceExt::uid).collect()
    }

    /// What differs from the workloads at `version` and the Jobs that were asked for.
    pub(crate) fn wrong(&self, version: &str, asked: &[Asked]) -> Vec<String> {
        let mut wrong = Wrong::default();
        for kind in Kind::ALL.map(Kind::name) {
            self.deployment(&format!("web-{kind}"), SETTLED, version, &mut wrong);
            self.deployment(&format!("guard-{kind}"), GUARDS, "v0", &mut wrong);
            self.stateful_set(&format!("set-{kind}"), version, &mut wrong);
            self.budget(&format!("guard-{kind}"), &mut wrong);
        }
        self.daemon_set(version, &mut wrong);
        self.jobs(asked, &mut wrong);
        self.nobody_else(&mut wrong);
        wrong.0
    }

    fn of(&self, app: &str) -> Vec<&Pod> {
        self.pods.iter().filter(|pod| pod.labels().get("app").is_some_and(|label| label == app)).collect()
    }

    /// A workload has so many Pods, all of them ready and of the newest template.
    fn serving(&self, app: &str, count: usize, version: &str, wrong: &mut Wrong) {
        let pods = self.of(app);
        wrong.unless(pods.len() == count, || format!("{app} has {} Pods instead of {count}", pods.len()));
        for pod in pods {
            let of = pod.labels().get("version").map(String::as_str).unwrap_or_default();
            wrong.unless(of == version, || format!("{} is of {of}, not {version}", pod.name_any()));
            wrong.unless(condition(pod, "Ready").is_some(), || {
                format!("{} is not ready: {}", pod.name_any(), told(&pod.status))
            });
            wrong.unless(pod.metadata.deletion_timestamp.is_none(), || format!("{} is on its way out", pod.name_any()));
        }
    }

    fn deployment(&self, name: &str, replicas: i32, version: &str, wrong: &mut Wrong) {
        self.serving(name, usize::try_from(replicas).unwrap_or_default(), version, wrong);
        let found = self.deployments.iter().find(|found| found.name_any() == name);
        let Some((found, status)) = found.and_then(|found| Some((found, found.status.as_ref()?))) else {
            return wrong.0.push(format!("there is no Deployment {name}"));
        };
        let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
        wrong.unless(
            status.observed_generation == found.metadata.generation
                && counts == [Some(replicas); 4]
                && status.unavailable_replicas.unwrap_or(0) == 0,
            || format!("Deployment {name} tells {}", told(status)),
        );
        let uid = found.uid();
        let sets: Vec<_> = self.replica_sets.iter().filter(|set| owner(*set) == uid).collect();
        let wanted = sets.iter().filter(|set| set.spec.as_ref().and_then(|spec| spec.replicas) != Some(0));
        wrong.unless(wanted.count() == 1, || format!("Deployment {name} has several ReplicaSets with Pods"));
        // The newest, and one of the history.
        wrong.unless(sets.len() <= 2, || format!("Deployment {name} keeps {} ReplicaSets", sets.len()));
    }

    fn stateful_set(&self, name: &str, version: &str, wrong: &mut Wrong) {
        self.serving(name, usize::try_from(SETTLED).unwrap_or_default(), version, wrong);
        let ordinals: BTreeSet<String> = self.of(name).into_iter().map(ResourceExt::name_any).collect();
        let expected: BTreeSet<String> = (0..SETTLED).map(|ordinal| format!("{name}-{ordinal}")).collect();
        wrong.unless(ordinals == expected, || format!("{name} consists of {ordinals:?}"));
        let found = self.stateful_sets.iter().find(|found| found.name_any() == name);
        let Some((found, status)) = found.and_then(|found| Some((found, found.status.as_ref()?))) else {
            return wrong.0.push(format!("there is no StatefulSet {name}"));
        };
        let counts = [status.current_replicas, status.updated_replicas, status.ready_replicas];
        wrong.unless(
            status.observed_generation == found.metadata.generation
                && status.replicas == SETTLED
                && counts == [Some(SETTLED); 3]
                && status.current_revision == status.update_revision,
            || format!("StatefulSet {name} tells {}", told(status)),
        );
    }

    fn daemon_set(&self, version: &str, wrong: &mut Wrong) {
        self.serving("everywhere", NODES.len(), version, wrong);
        let places = self.of("everywhere").into_iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref());
        let places: BTreeSet<&str> = places.collect();
        wrong.unless(places == BTreeSet::from(NODES), || format!("the DaemonSet is on {places:?}"));
        let Some((found, status)) = self.daemon_sets.iter().find_map(|found| Some((found, found.status.as_ref()?)))
        else {
            return wrong.0.push("there is no DaemonSet".to_owned());
        };
        wrong.unless(
            status.observed_generation == found.metadata.generation
                && status.number_ready == 2
                && status.updated_number_scheduled == Some(2),
            || format!("the DaemonSet tells {}", told(status)),
        );
    }

    fn budget(&self, name: &str, wrong: &mut Wrong) {
        let found = self.budgets.iter().find(|found| found.name_any() == name);
        let status = found.and_then(|found| found.status.as_ref());
        wrong.unless(
            status.is_some_and(|status| [status.current_healthy, status.expected_pods] == [Some(GUARDS); 2]),
            || format!("the budget {name} tells {}", told(&status)),
        );
    }

    fn jobs(&self, asked: &[Asked], wrong: &mut Wrong) {
        let completions: BTreeMap<&str, &Asked> = asked.iter().map(|asked| (asked.name.as_str(), asked)).collect();
        for asked in asked.iter().filter(|asked| asked.acknowledged) {
            let found = self.jobs.iter().any(|job| job.name_any() == asked.name);
            wrong.unless(found, || format!("{} was acknowledged and is not there", asked.name));
        }
        for job in &self.jobs {
            let name = job.name_any();
            let Some(asked) = completions.get(name.as_str()) else {
                wrong.0.push(format!("nobody asked for {name}"));
                continue;
            };
            let Some(status) = &job.status else {
                wrong.0.push(format!("{name} tells nothing"));
                continue;
            };
            let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
            let complete =
                status.conditions.iter().flatten().any(|told| told.type_ == "Complete" && told.status == "True");
            wrong.unless(
                complete
                    && status.succeeded == Some(asked.completions)
                    && status.completed_indexes == Some(format!("0-{}", asked.completions - 1)).map(one_range)
                    && status.active.unwrap_or(0) == 0
                    && uncounted.succeeded.unwrap_or_default().is_empty()
                    && uncounted.failed.unwrap_or_default().is_empty(),
                || format!("{name} of {} completions tells {}", asked.completions, told(status)),
            );
            self.indexes(job, wrong);
        }
    }

    /// No index succeeded twice, no Pod of a Job that ended runs on, none waits to be counted.
    fn indexes(&self, job: &Job, wrong: &mut Wrong) {
        let mut succeeded = BTreeSet::new();
        for pod in self.pods.iter().filter(|pod| owner(*pod) == job.uid()) {
            let name = pod.name_any();
            let index = pod.annotations().get("batch.kubernetes.io/job-completion-index").cloned();
            match phase(pod) {
                "Succeeded" => wrong.unless(succeeded.insert(index.clone()), || {
                    format!("index {index:?} of {} succeeded twice, again as {name}", job.name_any())
                }),
                "Failed" => {}
                other => wrong.0.push(format!("{name} is {other} after its Job")),
            }
            wrong.unless(pod.finalizers().is_empty(), || format!("{name} keeps {:?}", pod.finalizers()));
        }
    }

    /// Every Pod has an owner that is there.
    fn nobody_else(&self, wrong: &mut Wrong) {
        let mut owners: BTreeSet<String> = BTreeSet::new();
        owners.extend(self.replica_sets.iter().filter_map(ResourceExt::uid));
        owners.extend(self.stateful_sets.iter().filter_map(ResourceExt::uid));
        owners.extend(self.daemon_sets.iter().filter_map(ResourceExt::uid));
        owners.extend(self.jobs.iter().filter_map(ResourceExt::uid));
        for pod in &self.pods {
            let orphan = owner(pod).is_none_or(|owner| !owners.contains(&owner));
            wrong.unless(!orphan, || format!("{} is nobody's", pod.name_any()));
        }
    }
}

/// Completed indexes as a Job tells them: two neighbours are listed, more are a range.
fn one_range(range: String) -> String {
    if range == "0-1" { "0,1".to_owned() } else { range }
}

fn told(status: &impl serde::Serialize) -> String {
    serde_json::to_string(status).unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The uid of the controller of an object.
fn owner(object: &impl ResourceExt) -> Option<String> {
    let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    owner.map(|owner| owner.uid.clone())
}
