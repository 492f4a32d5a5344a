//! HorizontalPodAutoscaler: as many Pods as the work needs.
//!
//! Flow of a pass, every 15 seconds: read the target's size; for each metric ask what Pods use, and [`sample`] says how many there
//! should be; the greatest wish counts, limited by bounds, windows and rates ([`behavior`]); write the size to the target's
//! scale subresource, and report.
//!
//! Caveats: resource and container resource metrics only: there is no API of custom or external metrics, and a metric of these
//! types says so in the condition ScalingActive. What was wished and done lately is in memory: after a restart windows are open.

mod behavior;
mod decide;
mod metrics;
mod sample;

use std::{collections::HashMap, sync::Arc, time::Duration};

use behavior::Memory;
use decide::{Size, Word};
use k8s_openapi::{
    api::{
        autoscaling::v2::{
            ContainerResourceMetricStatus, HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget,
            MetricValueStatus, ResourceMetricStatus,
        },
        core::v1::Pod,
    },
    apimachinery::pkg::{api::resource::Quantity as Text, apis::meta::v1::Time},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use parking_lot::Mutex;
use sample::{Aim, Answer, Question};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_api::{quantity::Quantity, selector::LabelSelector};
use wherry_reconcile::{
    EventType, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder,
    status::{Precondition, patch_status},
};

use crate::{
    context::Context,
    error::{self, Error},
};

const NAME: &str = "horizontal-pod-autoscaler";
/// Usage changes without an event: this often it is looked at.
const PERIOD: Duration = Duration::from_secs(15);
const TOLERANCE: f64 = 0.1;

struct Controller {
    context: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    recorder: Recorder,
    memories: Mutex<HashMap<ObjectKey, Memory>>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        autoscalers: context.informers.get(),
        pods: context.informers.get(),
        recorder: context.recorders.component(NAME),
        memories: Mutex::default(),
        context,
    });
    Feeds::new()
        // Its own reports are no news.
        .on(&controller.autoscalers, |change| {
            let generation =
                |side: &Option<Arc<HorizontalPodAutoscaler>>| side.as_ref().map(|hpa| hpa.metadata.generation);
            (generation(&change.old) != generation(&change.new)).then(|| change.key())
        })
        .reading(&controller.pods)
        .run(NAME, 5, controller.clone(), cancel)
        .await;
}

/// A target's scale subresource.
struct Target {
    api: Api<DynamicObject>,
    name: String,
    replicas: i32,
    selector: String,
}

impl Controller {
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
        Ok(Target {
            api,
            name: wanted.name.clone(),
            replicas: scale.spec.and_then(|spec| spec.replicas).unwrap_or(0),
            selector: scale.status.and_then(|status| status.selector).unwrap_or_default(),
        })
    }

    /// What a metric wants, and what it shows.
    async fn ask(
        &self,
        key: &ObjectKey,
        target: &Target,
        hpa: &HorizontalPodAutoscaler,
        spec: &MetricSpec,
    ) -> (Word, Option<MetricStatus>) {
        let (resource, container, aim) = match (&spec.resource, &spec.container_resource) {
            (Some(source), _) => (&source.name, None, &source.target),
            (None, Some(source)) => (&source.name, Some(source.container.as_str()), &source.target),
            (None, None) => return (foreign(&spec.type_), None),
        };
        let failed = |why: String| {
            let reason =
                if container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
            let text =
                format!("the HPA was unable to compute the replica count: failed to get {resource} utilization: {why}");
            Word::Unknown(reason, text)
        };
        let usage = metrics::usage(&self.context.client, &key.namespace, &target.selector, resource, container).await;
        let usage = match usage {
            Ok(usage) => usage,
            Err(error) => {
                let why = format!("unable to fetch metrics from resource metrics API: {}", error::message(&error));
                return (failed(why), None);
            }
        };
        let Some(aim) = aimed(aim) else { return (failed("no target is set".to_owned()), None) };
        let pods = self.selected(key, &target.selector);
        let tolerance = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
            let own = rules.and_then(|rules| rules.tolerance.as_ref()).and_then(|text| Quantity::parse(&text.0).ok());
            own.map_or(TOLERANCE, |quantity| quantity.as_f64())
        };
        let behavior = hpa.spec.behavior.as_ref();
        let question = Question {
            cpu: resource == "cpu",
            aim,
            current: target.replicas,
            tolerance: (
                tolerance(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
                tolerance(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
            ),
            pods: &pods,
            usage: &usage,
            request: &|pod| metrics::request(pod, resource, container),
            now: Timestamp::now(),
        };
        match question.answer() {
            Err(why) => (failed(why), None),
            Ok(answer) => {
                let unit = if answer.utilization.is_some() { "utilization (percentage of request)" } else { "" };
                let place = container.map_or(String::new(), |container| format!(" of container {container}"));
                let name = format!("{resource}{place} resource {unit}").trim_end().to_owned();
                (Word::Wants(answer.replicas, name), Some(shown(resource, container, answer)))
            }
        }
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

fn foreign(kind: &str) -> Word {
    let (reason, what) = match kind {
        "Pods" => ("FailedGetPodsMetric", "custom"),
        "Object" => ("FailedGetObjectMetric", "custom"),
        "External" => ("FailedGetExternalMetric", "external"),
        _ => ("InvalidMetricSourceType", "such"),
    };
    Word::Unknown(reason, format!("the HPA was unable to compute the replica count: there is no API of {what} metrics"))
}

fn aimed(target: &MetricTarget) -> Option<Aim> {
    let average = target.average_value.as_ref().and_then(|text| Quantity::parse(&text.0).ok());
    target
        .average_utilization
        .map(Aim::Utilization)
        .or_else(|| average.map(|quantity| Aim::Average(quantity.milli_value())))
}

fn shown(resource: &str, container: Option<&str>, answer: Answer) -> MetricStatus {
    let milli = format!("{}m", answer.average);
    let value = MetricValueStatus {
        average_utilization: answer.utilization,
        average_value: Some(Text(
            wherry_api::quantity::canonical(&milli).map_or_else(|_| milli.clone(), |text| text.into_owned()),
        )),
        value: None,
    };
    let name = resource.to_owned();
    match container {
        None => MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricStatus { name, current: value }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricStatus {
                name,
                container: container.to_owned(),
                current: value,
            }),
            ..MetricStatus::default()
        },
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
                for spec in hpa.spec.metrics.iter().flatten() {
                    let (word, metric) = self.ask(&key, &target, &hpa, spec).await;
                    if let Word::Unknown(reason, text) = &word {
                        self.recorder.on(&*hpa, EventType::Warning, reason, &**text);
                    }
                    words.push(word);
                    metrics.extend(metric);
                }
                let mut memory = self.memories.lock().remove(&key).unwrap_or_default();
                let mut size = decide::size(&hpa, &mut memory, target.replicas, &words, now);
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
                status.current_metrics = (!metrics.is_empty()).then_some(metrics);
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
