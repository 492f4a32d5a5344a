//! A cluster in one process: API server, controllers, and an agent without a runtime.

use std::{collections::HashSet, fmt::Debug, future::Future, sync::Arc, time::Duration};

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Event, Node, Pod},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use wherry_api::certificates::Request;
use wherry_controllers::{Authority, Config};
use wherry_reconcile::{Informer, Informers, Recorders, informer::Kind};
use wherry_server::pki::Pki;
use wherry_server::{Issuer, Server, User};
use wherry_store::MemoryStore;

pub(crate) const ROOT_CA: &str = "-----BEGIN CERTIFICATE-----";
pub(crate) const NODE: &str = "node-1";
/// Long enough that only something that will never happen takes longer.
const NEVER: Duration = Duration::from_secs(60);

/// The cluster's keys, as the binary joins them.
struct Keys {
    pki: Pki,
    issuer: Arc<Issuer>,
}

impl Authority for Keys {
    fn certificate(&self, request: &Request, usages: &[&str], seconds: i64) -> Result<String, String> {
        self.pki.sign(request, usages, seconds).map_err(|error| error.to_string())
    }

    fn token(&self, namespace: &str, name: &str, uid: &str, secret: &str) -> Result<String, String> {
        self.issuer.legacy_token(namespace, name, uid, secret).map_err(|error| error.to_string())
    }
}

pub(crate) struct Cluster {
    client: Client,
    informers: Informers,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    /// Whether the agent keeps Pods that are being deleted.
    holding: watch::Sender<bool>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let issuer = Arc::new(Issuer::of_cluster("cluster.local", pki.service_account_keys().unwrap()));
        let mut config = wherry_server::Config::new(Arc::new(MemoryStore::new()));
        config.issuer = Some(issuer.clone());
        let server = Server::new(config).unwrap();
        server.bootstrap().await.unwrap();
        let client = server.client(User::admin());
        let cancel = CancellationToken::new();
        let informers = Informers::new(client.clone(), cancel.clone());
        let config = Config {
            client: server.client(User::component("kube-controller-manager")),
            clients: {
                let server = server.clone();
                Arc::new(move |account| server.client(User::controller(account)))
            },
            informers: Informers::new(server.client(User::component("kube-controller-manager")), cancel.clone()),
            recorders: Recorders::new(client.clone(), cancel.clone()),
            authority: Arc::new(Keys { pki, issuer }),
            root_ca_pem: ROOT_CA.into(),
            cluster_cidr: "10.128.0.0/9".into(),
            node_mask: 18,
        };
        let holding = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(wherry_controllers::run(config, cancel.clone()));
        tasks.spawn(agent(client.clone(), informers.clone(), holding.subscribe(), cancel.clone()));
        Self { client, informers, cancel, tasks, holding }
    }

    pub(crate) async fn stop(mut self) {
        self.cancel.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        limited("the controllers to end", ended).await;
        self.informers.closed().await;
    }

    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn cluster_api<K: Resource<DynamicType = (), Scope = ClusterResourceScope>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Adds a Node that is Ready.
    pub(crate) async fn add_node(&self, name: &str) {
        register(&self.client, name).await;
    }

    pub(crate) async fn patch<K>(&self, api: &Api<K>, name: &str, patch: serde_json::Value)
    where
        K: Clone + DeserializeOwned + Debug,
    {
        api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    /// Waits until `look` finds in the informer what it looks for; looks again after every change.
    async fn reached<K: Kind<DynamicType = ()>, T>(&self, what: &str, look: impl Fn(&Informer<K>) -> Option<T>) -> T {
        let informer = self.informers.get::<K>();
        let mut changes = informer.subscribe();
        let search = async {
            informer.synced().await;
            loop {
                if let Some(found) = look(&informer) {
                    return found;
                }
                changes.next().await;
            }
        };
        match tokio::time::timeout(NEVER, search).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {} {what}; there is {:#?}", K::kind(&()), informer.list()),
        }
    }

    /// Waits for an object to be as wanted.
    pub(crate) async fn until<K: Kind<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&K) -> bool,
    ) -> Arc<K> {
        let look = |informer: &Informer<K>| informer.get(namespace, name).filter(|object| wanted(object));
        self.reached(name, look).await
    }

    pub(crate) async fn until_gone<K: Kind<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        let look = |informer: &Informer<K>| informer.get(namespace, name).is_none().then_some(());
        self.reached(&format!("{name} to be gone"), look).await;
    }

    pub(crate) async fn until_gone_all<K: Kind<DynamicType = ()>>(&self, namespace: &str) {
        self.until_count::<K>(namespace, 0).await;
    }

    pub(crate) async fn until_count<K: Kind<DynamicType = ()>>(&self, namespace: &str, count: usize) -> Vec<Arc<K>> {
        let look =
            |informer: &Informer<K>| Some(informer.list_namespace(namespace)).filter(|objects| objects.len() == count);
        self.reached(&format!("{count} in {namespace}"), look).await
    }

    /// Waits until the objects of a namespace are as wanted.
    pub(crate) async fn until_all<K: Kind<DynamicType = ()>>(
        &self,
        what: &str,
        wanted: impl Fn(&[Arc<K>]) -> bool,
    ) -> Vec<Arc<K>> {
        self.reached(what, |informer: &Informer<K>| {
            Some(informer.list_namespace("default")).filter(|objects| wanted(objects))
        })
        .await
    }

    pub(crate) async fn until_event(&self, reason: &str) -> Vec<Event> {
        let look = |informer: &Informer<Event>| {
            let events: Vec<_> = informer.list().iter().map(|event| Event::clone(event)).collect();
            Some(events).filter(|events| events.iter().any(|event| event.reason.as_deref() == Some(reason)))
        };
        self.reached(reason, look).await
    }

    pub(crate) async fn until_slice(
        &self,
        service: &str,
        wanted: impl Fn(&EndpointSlice) -> bool,
    ) -> Arc<EndpointSlice> {
        let look =
            |informer: &Informer<EndpointSlice>| slices(informer, service).into_iter().find(|slice| wanted(slice));
        self.reached(service, look).await
    }

    pub(crate) async fn until_no_slice(&self, service: &str) {
        let look = |informer: &Informer<EndpointSlice>| slices(informer, service).is_empty().then_some(());
        self.reached(&format!("none for {service}"), look).await;
    }

    /// The most Pods of an app that existed, and the fewest that were Ready, until its Deployment is complete again.
    pub(crate) fn watch_bounds(&self, app: &str) -> JoinHandle<(usize, usize)> {
        let pods = self.informers.get::<Pod>();
        let deployments = self.informers.get::<Deployment>();
        let app = app.to_owned();
        let generation = deployments.get("default", &app).unwrap().metadata.generation;
        tokio::spawn(async move {
            let mut changes = deployments.subscribe();
            let mut pod_changes = pods.subscribe();
            let (mut most, mut fewest) = (0, usize::MAX);
            loop {
                let all = pods.list_namespace("default");
                let alive: Vec<_> = all
                    .iter()
                    .filter(|pod| pod.labels().get("app") == Some(&app) && pod.metadata.deletion_timestamp.is_none())
                    .collect();
                most = most.max(alive.len());
                fewest = fewest.min(alive.iter().filter(|pod| is_ready(pod)).count());
                let done = deployments.get("default", &app).is_some_and(|deployment| {
                    deployment.metadata.generation > generation
                        && super::is_rolled_out(
                            &deployment,
                            deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0]
                                .image
                                .as_deref()
                                .unwrap(),
                            deployment.spec.as_ref().unwrap().replicas.unwrap(),
                        )
                        && deployment.spec.as_ref().unwrap().paused != Some(true)
                });
                if done {
                    return (most, fewest);
                }
                tokio::select! {
                    _ = changes.next() => {}
                    _ = pod_changes.next() => {}
                }
            }
        })
    }

    pub(crate) fn hold_deletions(&self) {
        self.holding.send_replace(true);
    }

    pub(crate) async fn release_deletions(&self) {
        self.holding.send_replace(false);
    }
}

fn slices(informer: &Informer<EndpointSlice>, service: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = informer.list_namespace("default");
    slices.retain(|slice| slice.labels().get("kubernetes.io/service-name").is_some_and(|name| name == service));
    slices
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn limited<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(NEVER, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A Node that is always Ready, on which every Pod runs at once.
async fn agent(client: Client, informers: Informers, mut holding: watch::Receiver<bool>, cancel: CancellationToken) {
    register(&client, NODE).await;
    let pods = informers.get::<Pod>();
    let mut changes = pods.subscribe();
    // A Pod begins once: when its binding is told, its status may be on the way already, and what a test made of it then.
    let mut begun = HashSet::new();
    loop {
        let change = tokio::select! {
            () = cancel.cancelled() => return,
            change = changes.next() => change,
            _ = holding.changed() => {
                let held = *holding.borrow();
                for pod in pods.list() {
                    end(&client, &pod, held).await;
                }
                continue;
            }
        };
        let Some(change) = change else { return };
        let Some(pod) = change.new else { continue };
        if pod.metadata.deletion_timestamp.is_some() {
            let held = *holding.borrow();
            end(&client, &pod, held).await;
        } else if pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_none() && begun.insert(pod.uid()) {
            begin(&client, &pod, u32::try_from(begun.len()).unwrap()).await;
        }
    }
}

/// Makes a Node that is Ready.
async fn register(client: &Client, name: &str) {
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let ready = json!({ "status": { "conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] } });
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();
}

/// The node that a Pod's affinity names, as a DaemonSet's Pods have it.
fn destination(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
}

async fn begin(client: &Client, pod: &Pod, address: u32) {
    let namespace = pod.namespace().unwrap();
    let name = pod.name_any();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    if pod.spec.as_ref().unwrap().node_name.is_none() {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": name }, "target": { "apiVersion": "v1", "kind": "Node", "name": destination(pod).unwrap_or(NODE.to_owned()) },
        });
        let params = PostParams::default();
        // It may have been deleted meanwhile.
        let bound: Result<serde_json::Value, _> = api.create_subresource("binding", &name, &params, &binding).await;
        if bound.is_err() {
            return;
        }
    }
    let ip = format!("10.128.{}.{}", address / 250, address % 250 + 1);
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let status = json!({ "status": {
        "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }],
    } });
    let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await;
}

async fn end(client: &Client, pod: &Pod, held: bool) {
    if held || pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
    let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
}

pub(crate) fn meta_name<K: Resource>(object: &K) -> String {
    object.name_any()
}

pub(crate) fn deployment(name: &str, image: &str, replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{
                    "name": "app", "image": image, "ports": [{ "name": "http", "containerPort": 8080 }],
                }] },
            },
        },
    }))
    .unwrap()
}
