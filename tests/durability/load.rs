//! What runs in a cluster whose server is killed, and how it is changed all the while.
//!
//! ```text
//!  web-KIND    Deployment       scaled, rolled out, switched between the kinds of image, its Pods deleted
//!  set-KIND    StatefulSet      scaled, rolled out; each program of it holds its ordinal's lock while it runs
//!  everywhere  DaemonSet        rolled out, switched between the kinds of image
//!  work-N      indexed Jobs     a new one now and then
//!  guard-KIND  Deployment with a budget; nobody changes it, only drains of nodes move its Pods
//! ```
//!
//! Every change is written before it is asked for, so that an answer which never comes leaves no doubt about what may be there.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wherry_test::{Child, Cluster, echo_image, image_of, sample};

pub(crate) const NAMESPACE: &str = "load";
pub(crate) const NODES: [&str; 2] = ["wherry-0", "wherry-1"];
/// Pods of each Deployment with a budget, and how many of them must stay.
pub(crate) const GUARDS: i32 = 3;
pub(crate) const GUARDS_LEFT: usize = 2;
/// How many each workload has while nothing changes.
pub(crate) const SETTLED: i32 = 3;

const BOX: &str = "test.wherry.dev/box:1";
const TICKER: &str = "samples.wherry.dev/ticker:1";

/// The kinds of container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Native,
    Component,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Native, Self::Component];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Component => "component",
        }
    }

    fn server(self) -> &'static str {
        match self {
            Self::Native => "samples.wherry.dev/echo:container",
            Self::Component => "samples.wherry.dev/echo:wasm",
        }
    }
}

/// Puts the images of all workloads on the nodes.
pub(crate) fn images(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.load(&sample("echo"), Kind::Component.server())?;
    cluster.load(&echo_image()?, Kind::Native.server())?;
    cluster.load(&sample("ticker"), TICKER)?;
    let programs = [("/bin/busybox", "/usr/bin/busybox"), ("/bin/flock", "/usr/bin/flock")];
    cluster.load(&image_of("locks", "/bin/busybox", &programs)?, BOX)
}

/// A Job that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) completions: i32,
    pub(crate) acknowledged: bool,
}

/// What was asked for, and the dice.
pub(crate) struct Load {
    pub(crate) random: StdRng,
    pub(crate) jobs: Vec<Asked>,
    pub(crate) actions: usize,
    pub(crate) drains: usize,
    /// The newest template that was asked for.
    version: u64,
    made: usize,
    ledger: PathBuf,
    draining: Option<Child>,
}

/// Creates or changes an object. What an API refuses is an error; so is an answer that does not come.
async fn apply<K>(client: &Client, name: &str, object: Value) -> kube::Result<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    api.patch(name, &PatchParams::apply("load").force(), &Patch::Apply(object)).await
}

/// Whether an answer never came, or says that somebody else was faster.
fn is_passed(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if ![404, 409, 429].contains(&status.code))
}

impl Load {
    /// `ledger`: a directory in which the StatefulSets' programs lock their ordinals.
    pub(crate) fn new(random: StdRng, ledger: &Path) -> Self {
        let ledger = ledger.to_owned();
        Self { random, jobs: Vec::new(), actions: 0, drains: 0, version: 0, made: 0, ledger, draining: None }
    }

    /// The version that the workloads' newest templates have.
    pub(crate) fn version(&self) -> String {
        format!("v{}", self.version)
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version()
    }

    /// All workloads as they are while nothing changes, with a new template each. Jobs are left alone.
    pub(crate) async fn settle(&mut self, client: &Client) -> anyhow::Result<()> {
        self.draining = None;
        for node in NODES {
            cordon(client, node, false).await.with_context(|| format!("uncordon {node}"))?;
        }
        let version = self.next_version();
        for kind in Kind::ALL {
            self.web(client, kind, kind, SETTLED, &version).await?;
            self.set(client, kind, SETTLED, &version).await?;
        }
        everywhere(client, Kind::Component, &version).await?;
        Ok(())
    }

    /// The Deployments with budgets. They stay as they are.
    pub(crate) async fn guard(&mut self, client: &Client) -> anyhow::Result<()> {
        for kind in Kind::ALL {
            let name = format!("guard-{}", kind.name());
            let budget = json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
                "spec": {"minAvailable": GUARDS_LEFT, "selector": {"matchLabels": {"app": name}}},
            });
            apply::<PodDisruptionBudget>(client, &name, budget).await?;
            apply::<Deployment>(client, &name, deployment(&name, GUARDS, &template(&name, kind.server(), "v0")))
                .await?;
        }
        Ok(())
    }

    /// One change after the other, until it is dropped.
    pub(crate) async fn go_on(&mut self, cluster: &Cluster, client: &Client, pace: Duration) -> anyhow::Result<()> {
        loop {
            self.act(cluster, client).await?;
            tokio::time::sleep(pace).await;
        }
    }

    /// One change, chosen by the dice. An answer that does not come is none of its affairs.
    async fn act(&mut self, cluster: &Cluster, client: &Client) -> anyhow::Result<()> {
        self.actions += 1;
        let kind = *Kind::ALL.choose(&mut self.random).context("no kinds")?;
        let done = match self.random.random_range(0..10) {
            0..2 => {
                let image = *Kind::ALL.choose(&mut self.random).context("no kinds")?;
                let (replicas, version) = (self.random.random_range(1..5), self.next_version());
                self.web(client, kind, image, replicas, &version).await
            }
            2..4 => {
                let (replicas, version) = (self.random.random_range(0..4), self.next_version());
                self.set(client, kind, replicas, &version).await
            }
            4 => {
                let version = self.next_version();
                everywhere(client, kind, &version).await
            }
            5..8 => self.job(client, kind).await,
            8 => self.drain(cluster, client).await?,
            _ => self.delete_some_pod(client, kind).await,
        };
        match done {
            Err(error) if !is_passed(&error) => Err(error).context("a change of the load"),
            _ => Ok(()),
        }
    }

    async fn web(&self, client: &Client, kind: Kind, image: Kind, replicas: i32, version: &str) -> kube::Result<()> {
        let name = format!("web-{}", kind.name());
        let object = deployment(&name, replicas, &template(&name, image.server(), version));
        apply::<Deployment>(client, &name, object).await.map(drop)
    }

    async fn set(&self, client: &Client, kind: Kind, replicas: i32, version: &str) -> kube::Result<()> {
        let name = format!("set-{}", kind.name());
        let mut template = template(&name, kind.server(), version);
        let mut management = "Parallel";
        if kind == Kind::Native {
            management = "OrderedReady";
            let script = "exec 9>>/ledger/$HOSTNAME; flock -n 9 || echo $HOSTNAME >>/ledger/conflicts; exec /bin/busybox httpd -f -p 8080";
            template["spec"]["volumes"] = json!([{"name": "ledger", "hostPath": {"path": self.ledger}}]);
            let container = &mut template["spec"]["containers"][0];
            container["image"] = json!(BOX);
            container["args"] = json!(["sh", "-c", script]);
            container["volumeMounts"] = json!([{"name": "ledger", "mountPath": "/ledger"}]);
            container["readinessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
        }
        let object = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
            "spec": {
                "serviceName": name, "replicas": replicas, "podManagementPolicy": management, "revisionHistoryLimit": 1,
                "selector": {"matchLabels": {"app": name}}, "template": template,
            },
        });
        apply::<StatefulSet>(client, &name, object).await.map(drop)
    }

    async fn job(&mut self, client: &Client, kind: Kind) -> kube::Result<()> {
        self.made += 1;
        let (name, completions) = (format!("work-{}", self.made), self.random.random_range(2..7));
        self.jobs.push(Asked { name: name.clone(), completions, acknowledged: false });
        // A module ends with the server: one that may be at work for longer begins anew in its Pod.
        let (image, arguments, ticks, policy) = match (kind, self.random.random_range(0..3)) {
            (Kind::Native, tenths) => (BOX, json!(["sleep", format!("0.{}", tenths * 3)]), "0", "Never"),
            (Kind::Component, 0) => (TICKER, json!([]), "2", "OnFailure"),
            (Kind::Component, _) => (TICKER, json!([]), "1", "Never"),
        };
        let object = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {
                "completions": completions, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 1000,
                "template": {"spec": {
                    "restartPolicy": policy, "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "args": arguments,
                        "env": [{"name": "TICKS", "value": ticks}],
                    }],
                }},
            },
        });
        let job: Job = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        Api::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &job).await?;
        if let Some(asked) = self.jobs.last_mut() {
            asked.acknowledged = true;
        }
        Ok(())
    }

    /// Drains a node where none is, else takes it back.
    async fn drain(&mut self, cluster: &Cluster, client: &Client) -> anyhow::Result<kube::Result<()>> {
        if self.draining.take().is_some() {
            for node in NODES {
                if let Err(error) = cordon(client, node, false).await {
                    return Ok(Err(error));
                }
            }
            return Ok(Ok(()));
        }
        self.drains += 1;
        let node = *NODES.choose(&mut self.random).context("no nodes")?;
        let mut drain = cluster.kubectl().command(["drain", node, "--ignore-daemonsets", "--timeout=30s"]);
        self.draining = Some(Child::start("kubectl drain", &mut drain)?);
        Ok(Ok(()))
    }

    async fn delete_some_pod(&mut self, client: &Client, kind: Kind) -> kube::Result<()> {
        let of = *["web", "set"].choose(&mut self.random).unwrap_or(&"web");
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let list = pods.list(&ListParams::default().labels(&format!("app={of}-{}", kind.name()))).await?;
        let Some(pod) = list.items.choose(&mut self.random) else { return Ok(()) };
        pods.delete(&pod.name_any(), &DeleteParams::default()).await.map(drop)
    }
}

async fn cordon(client: &Client, node: &str, cordoned: bool) -> kube::Result<()> {
    let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
    Api::<Node>::all(client.clone()).patch(node, &PatchParams::default(), &patch).await.map(drop)
}

async fn everywhere(client: &Client, image: Kind, version: &str) -> kube::Result<()> {
    let name = "everywhere";
    let object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}}, "revisionHistoryLimit": 1,
            "template": template(name, image.server(), version),
        },
    });
    apply::<DaemonSet>(client, name, object).await.map(drop)
}

fn deployment(name: &str, replicas: i32, template: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "revisionHistoryLimit": 1, "selector": {"matchLabels": {"app": name}}, "template": template,
        },
    })
}

/// Pods of echo that say which version of the template they are of.
fn template(app: &str, image: &str, version: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app, "version": version}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
            }],
        },
    })
}
