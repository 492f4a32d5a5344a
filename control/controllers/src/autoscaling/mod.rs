//! HorizontalPodAutoscaler: as many Pods as the work needs.
//!
//! Flow of a pass, every 15 seconds: read the target's size; [`ask`] for each metric, and [`sample`] or [`value`] say how many
//! Pods there should be; the greatest wish counts, limited by bounds, windows and rates ([`behavior`]); write the size to the target's
//! scale subresource, and report.
//!
//! A target of an autoscaler with `minReplicas: 0` sleeps where no metric wants a Pod. Nodes hold connections to the Services before it
//! and say so ([`waking`](wherry_reconcile::waking)): then a pass comes at once, and makes the first Pod without asking for metrics.
//!
//! Metrics come from the APIs that upstream's controller asks: `metrics.k8s.io`, `custom.metrics.k8s.io` (which this server has for
//! Pods and Services) and `external.metrics.k8s.io` (which nobody serves yet: such a metric says so in the condition ScalingActive).
//!
//! Caveat: what was wished and done lately is in memory: after a restart a window begins anew with the size that is found.

mod ask;
mod behavior;
mod decide;
mod metrics;
mod sample;
mod value;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ask::Asker;
use behavior::Memory;
use decide::{Size, Word};
use k8s_openapi::{
    api::{
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Node, Pod, Service},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_api::selector::LabelSelector;
use wherry_reconcile::{
    Change, EventType, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder,
    status::{Precondition, patch_status},
    waking,
};

use crate::{
    context::Context,
    error::{self, Error},
    sleepers::{Sleepers, may_sleep},
};

const NAME: &str = "horizontal-pod-autoscaler";
/// Usage changes without an event: this often it is looked at.
const PERIOD: Duration = Duration::from_secs(15);

struct Controller {
    context: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    services: Informer<Service>,
    sleepers: Sleepers,
    recorder: Recorder,
    memories: Mutex<HashMap<ObjectKey, Memory>>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        autoscalers: context.informers.get(),
        pods: context.informers.get(),
        nodes: context.informers.get(),
        services: context.informers.get(),
        sleepers: Sleepers::new(&context),
        recorder: context.recorders.component(NAME),
        memories: Mutex::default(),
        context,
    });
    let waiting = controller.clone();
    let feeds = Feeds::new()
        // Its own reports are no news.
        .on(&controller.autoscalers, |change| {
            let generation =
                |side: &Option<Arc<HorizontalPodAutoscaler>>| side.as_ref().map(|hpa| hpa.metadata.generation);
            (generation(&change.old) != generation(&change.new)).then(|| change.key())
        })
        .reading(&controller.pods)
        .on(&controller.nodes, move |change| waiting.waited_at(change));
    controller.sleepers.read(feeds).run(NAME, 5, controller.clone(), cancel).await;
}

/// A target's scale subresource.
struct Target {
    api: Api<DynamicObject>,
    name: String,
    replicas: i32,
    /// How many Pods it has.
    present: i32,
    selector: String,
}

impl Controller {
    /// The autoscalers of those for whom connections begin to wait on a node. When they no longer do, the next look is soon enough.
    fn waited_at(&self, change: &Change<Node>) -> Vec<ObjectKey> {
        let [old, new] =
            [&change.old, &change.new].map(|side| side.as_ref().map_or_else(Vec::new, |node| waking::waited_for(node)));
        let begun = new.iter().filter(|key| !old.contains(key));
        let services = begun.filter_map(|key| self.services.get_key(key));
        services.flat_map(|service| self.sleepers.behind(&service)).collect()
    }

    /// The Service at which somebody waits for a Pod of the target.
    fn waited(&self, key: &ObjectKey, hpa: &HorizontalPodAutoscaler) -> Option<String> {
        if !may_sleep(hpa) {
            return None;
        }
        let nodes = self.nodes.list();
        let mut waited = nodes.iter().flat_map(|node| waking::waited_for(node));
        let leads_here = |service: &ObjectKey| {
            service.namespace == key.namespace
                && self.services.get_key(service).is_some_and(|service| self.sleepers.behind(&service).contains(key))
        };
        waited.find(leads_here).map(|service| service.name)
    }

    async fn target(&self, key: &ObjectKey, hpa: &HorizontalPodAutoscaler) -> Result<Target, String> {
        let wanted = &hpa.spec.scale_target_ref;
        let api_version = wanted.api_version.clone().unwrap_or_else(|| "v1".to_owned());
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &wanted.kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), &key.namespace, &kind);
        let scale = api.get_scale(&wanted.name).await;
        let scale = scale.map_err(|error| {
            format!("the HPA controller was unable to get the target's current scale: {}", error::message(&error))
        })?;
        let status = scale.status.unwrap_or_default();
        Ok(Target {
            api,
            name: wanted.name.clone(),
            replicas: scale.spec.and_then(|spec| spec.replicas).unwrap_or(0),
            present: status.replicas,
            selector: status.selector.unwrap_or_default(),
        })
    }

    fn selected(&self, key: &ObjectKey, selector: &str) -> Vec<Arc<Pod>> {
        let selector = LabelSelector::parse(selector).unwrap_or_else(|_| LabelSelector::nothing());
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(&pod.metadata.labels.clone().unwrap_or_default()));
        pods
    }

    async fn rescale(&self, hpa: &HorizontalPodAutoscaler, target: &Target, size: &mut Size) -> Result<(), Error> {
        let patch = json!({ "spec": { "replicas": size.replicas } });
        match target.api.patch_scale(&target.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                let text = format!("New size: {}; reason: {}", size.replicas, size.reason);
                self.recorder.on(hpa, EventType::Normal, "SuccessfulRescale", text);
                let text = format!("the HPA controller was able to update the target scale to {}", size.replicas);
                size.condition("AbleToScale", true, "SucceededRescale", &text);
                Ok(())
            }
            Err(error) => {
                let text =
                    format!("New size: {}; reason: {}; error: {}", size.replicas, size.reason, error::message(&error));
                self.recorder.on(hpa, EventType::Warning, "FailedRescale", text);
                Err(error.into())
            }
        }
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(hpa) = self.autoscalers.get_key(&key) else {
            self.memories.lock().remove(&key);
            return Ok(Outcome::Done);
        };
        let mut status = hpa.status.clone().unwrap_or_default();
        status.observed_generation = hpa.metadata.generation;
        let now = Timestamp::now();
        let mut failure = Ok(());
        match self.target(&key, &hpa).await {
            Err(why) => {
                let mut size = Size { replicas: 0, reason: String::new(), conditions: Vec::new() };
                self.recorder.on(&*hpa, EventType::Warning, "FailedGetScale", &*why);
                size.condition("AbleToScale", false, "FailedGetScale", &why);
                size.report(&mut status, now);
            }
            Ok(target) => {
                let mut words = Vec::new();
                let mut metrics = Vec::new();
                let waited = self.waited(&key, &hpa);
                let asks = decide::needs_metrics(target.replicas, waited.as_deref());
                let pods = self.selected(&key, &target.selector);
                let asker = Asker {
                    client: &self.context.client,
                    namespace: &key.namespace,
                    hpa: &hpa,
                    selector: &target.selector,
                    pods: &pods,
                    wanted: target.replicas,
                    present: target.present,
                };
                for spec in hpa.spec.metrics.iter().flatten().filter(|_| asks) {
                    let (word, metric) = asker.ask(spec).await;
                    if let Word::Unknown(reason, text) = &word {
                        self.recorder.on(&*hpa, EventType::Warning, reason, &**text);
                    }
                    words.push(word);
                    // One a metric, in its place, also where it is not known.
                    metrics.push(metric);
                }
                if let Some(text) = decide::failure(&words, target.replicas) {
                    self.recorder.on(&*hpa, EventType::Warning, "FailedComputeMetricsReplicas", text);
                }
                let mut memory = self.memories.lock().remove(&key).unwrap_or_default();
                let mut size = decide::size(&hpa, &mut memory, target.replicas, &words, waited.as_deref(), now);
                if size.replicas != target.replicas {
                    failure = self.rescale(&hpa, &target, &mut size).await;
                    if failure.is_ok() {
                        memory.scaled(target.replicas, size.replicas, now);
                        status.last_scale_time = Some(Time(now));
                    }
                }
                self.memories.lock().insert(key.clone(), memory);
                status.current_replicas = crate::counts::positive(target.replicas);
                status.desired_replicas = size.replicas;
                if asks {
                    status.current_metrics = (!metrics.is_empty()).then_some(metrics);
                }
                size.report(&mut status, now);
            }
        }
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let patched = patch_status(&api, &*hpa, hpa.status.as_ref(), &status, Precondition::Uid).await;
        error::gone_is_fine(patched)?;
        failure?;
        Ok(Outcome::After(PERIOD))
    }
}
