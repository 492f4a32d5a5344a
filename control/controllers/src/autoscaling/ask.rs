//! One metric of an autoscaler: who is asked, what follows from the answer, how it is shown.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        autoscaling::v2::{
            ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, HPAScalingRules,
            HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource,
            ObjectMetricStatus, PodsMetricSource, PodsMetricStatus, ResourceMetricStatus,
        },
        core::v1::Pod,
    },
    apimachinery::pkg::api::resource::Quantity as Text,
    jiff::Timestamp,
};
use kube::Client;
use wherry_api::quantity::Quantity;

use super::{
    decide::Word,
    metrics,
    sample::{Aim, Question, Tolerance},
    value::{Goal, Measured},
};
use crate::{counts::saturate, pods};

const TOLERANCE: f64 = 0.1;

/// What is asked about.
pub(super) struct Asker<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    pub(super) hpa: &'a HorizontalPodAutoscaler,
    /// The target's Pods: their selector, and those that there are.
    pub(super) selector: &'a str,
    pub(super) pods: &'a [Arc<Pod>],
    /// How many the target should have, and has.
    pub(super) wanted: i32,
    pub(super) present: i32,
}

/// What a metric wants and shows, or why it says nothing.
type Answer = Result<(i32, String, MetricStatus), String>;

impl Asker<'_> {
    /// What a metric wants, and what it shows: where it says nothing, nothing.
    pub(super) async fn ask(&self, spec: &MetricSpec) -> (Word, MetricStatus) {
        let (reason, answer) = match (&*spec.type_, spec) {
            ("Resource", MetricSpec { resource: Some(source), .. }) => {
                ("FailedGetResourceMetric", self.resource(&source.name, None, &source.target).await)
            }
            ("ContainerResource", MetricSpec { container_resource: Some(source), .. }) => (
                "FailedGetContainerResourceMetric",
                self.resource(&source.name, Some(&source.container), &source.target).await,
            ),
            ("Pods", MetricSpec { pods: Some(source), .. }) => ("FailedGetPodsMetric", self.of_pods(source).await),
            ("Object", MetricSpec { object: Some(source), .. }) => {
                ("FailedGetObjectMetric", self.of_object(source).await)
            }
            ("External", MetricSpec { external: Some(source), .. }) => {
                ("FailedGetExternalMetric", self.external(source).await)
            }
            (kind, _) => ("InvalidMetricSourceType", Err(format!("unknown metric source type {kind:?}"))),
        };
        match answer {
            Ok((replicas, name, status)) => {
                (Word::Wants(replicas, name), MetricStatus { type_: spec.type_.clone(), ..status })
            }
            Err(why) => (Word::Unknown(reason, why), MetricStatus::default()),
        }
    }

    /// Whether there is no Pod, as it should be: then there is nothing to ask of any, and nothing that they want.
    fn sleeps(&self) -> bool {
        self.wanted == 0 && self.pods.is_empty()
    }

    fn tolerance(&self) -> Tolerance {
        let of = |rules: Option<&HPAScalingRules>| {
            let own = rules.and_then(|rules| rules.tolerance.as_ref()).and_then(|text| Quantity::parse(&text.0).ok());
            own.map_or(TOLERANCE, |quantity| quantity.as_f64())
        };
        let behavior = self.hpa.spec.behavior.as_ref();
        Tolerance {
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        }
    }

    async fn resource(&self, resource: &str, container: Option<&str>, target: &MetricTarget) -> Answer {
        let (aim, what) = match (target.average_utilization, milli(target.average_value.as_ref())) {
            (_, Some(average)) => (Aim::Average(average), "usage"),
            (Some(percent), None) => (Aim::Utilization(percent), "utilization"),
            (None, None) => {
                let text = "neither an average utilization target nor an average value (usage) target was set";
                return Err(format!("invalid resource metric source: {text}"));
            }
        };
        let unit = if matches!(aim, Aim::Utilization(_)) { " utilization (percentage of request)" } else { "" };
        let place = container.map_or(String::new(), |container| format!(" of container {container}"));
        let name = format!("{resource}{place} resource{unit}");
        if self.sleeps() {
            return Ok((0, name, MetricStatus::default()));
        }
        let asked = async {
            let usage = metrics::usage(self.client, self.namespace, self.selector, resource, container).await?;
            self.question(resource == "cpu", aim, &usage, &|pod| metrics::request(pod, resource, container)).answer()
        };
        let answer = asked.await.map_err(|why| format!("failed to get {resource} {what}: {why}"))?;
        let current = MetricValueStatus {
            average_utilization: answer.utilization,
            average_value: Some(text(answer.average)),
            value: None,
        };
        let status = match container {
            None => MetricStatus {
                resource: Some(ResourceMetricStatus { name: resource.to_owned(), current }),
                ..MetricStatus::default()
            },
            Some(container) => MetricStatus {
                container_resource: Some(ContainerResourceMetricStatus {
                    name: resource.to_owned(),
                    container: container.to_owned(),
                    current,
                }),
                ..MetricStatus::default()
            },
        };
        Ok((answer.replicas, name, status))
    }

    async fn of_pods(&self, source: &PodsMetricSource) -> Answer {
        let Some(average) = milli(source.target.average_value.as_ref()) else {
            return Err("invalid pods metric source: no average value target was set".to_owned());
        };
        let name = format!("pods metric {}", source.metric.name);
        if self.sleeps() {
            return Ok((0, name, MetricStatus::default()));
        }
        let usage = metrics::of_pods(self.client, self.namespace, self.selector, &source.metric).await?;
        let answer = self.question(false, Aim::Average(average), &usage, &|_| Ok(0)).answer()?;
        let current = MetricValueStatus { average_value: Some(text(answer.average)), ..MetricValueStatus::default() };
        let status = PodsMetricStatus { metric: source.metric.clone(), current };
        Ok((answer.replicas, name, MetricStatus { pods: Some(status), ..MetricStatus::default() }))
    }

    async fn of_object(&self, source: &ObjectMetricSource) -> Answer {
        let goal = goal(&source.target, "object")?;
        let asked = metrics::of_object(self.client, self.namespace, &source.described_object, &source.metric).await;
        let milli = asked.map_err(|why| match goal {
            Goal::Value(_) => why,
            Goal::Average(_) => format!("failed to get {} object metric: {why}", source.metric.name),
        })?;
        let measured = self.measured(milli, goal);
        let status = ObjectMetricStatus {
            metric: source.metric.clone(),
            described_object: source.described_object.clone(),
            current: current(&measured),
        };
        let name = format!("{} metric {}", source.described_object.kind, source.metric.name);
        Ok((measured.replicas(), name, MetricStatus { object: Some(status), ..MetricStatus::default() }))
    }

    async fn external(&self, source: &ExternalMetricSource) -> Answer {
        let (goal, name) = (goal(&source.target, "external")?, &source.metric.name);
        let milli = metrics::external(self.client, self.namespace, &source.metric).await.map_err(|why| match goal {
            Goal::Value(_) => format!("failed to get external metric {name}: {why}"),
            Goal::Average(_) => format!("failed to get {name} external metric: {why}"),
        })?;
        let measured = self.measured(milli, goal);
        let status = ExternalMetricStatus { metric: source.metric.clone(), current: current(&measured) };
        let name = format!("external metric {name}({})", metrics::told(&source.metric));
        Ok((measured.replicas(), name, MetricStatus { external: Some(status), ..MetricStatus::default() }))
    }

    fn question<'a>(
        &'a self,
        cpu: bool,
        aim: Aim,
        usage: &'a std::collections::BTreeMap<String, super::sample::Usage>,
        request: &'a (dyn Fn(&Pod) -> Result<i64, String> + Sync),
    ) -> Question<'a> {
        let (tolerance, now) = (self.tolerance(), Timestamp::now());
        Question { cpu, aim, current: self.wanted, tolerance, pods: self.pods, usage, request, now }
    }

    fn measured(&self, milli: i64, goal: Goal) -> Measured {
        let ready = self.pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
        Measured {
            milli,
            goal,
            current: self.wanted,
            present: self.present,
            ready: saturate(ready),
            tolerance: self.tolerance(),
        }
    }
}

fn goal(target: &MetricTarget, what: &str) -> Result<Goal, String> {
    let (value, average) = (milli(target.value.as_ref()), milli(target.average_value.as_ref()));
    // An object metric may have both; its type tells which one counts.
    let first = if target.type_ == "AverageValue" { average.map(Goal::Average) } else { value.map(Goal::Value) };
    first.or(average.map(Goal::Average)).ok_or_else(|| {
        format!("invalid {what} metric source: neither a value target nor an average value target was set")
    })
}

fn current(measured: &Measured) -> MetricValueStatus {
    let shown = Some(text(measured.shown()));
    match measured.goal {
        Goal::Value(_) => MetricValueStatus { value: shown, ..MetricValueStatus::default() },
        Goal::Average(_) => MetricValueStatus { average_value: shown, ..MetricValueStatus::default() },
    }
}

fn milli(quantity: Option<&Text>) -> Option<i64> {
    Quantity::parse(&quantity?.0).ok().map(|quantity| quantity.milli_value())
}

/// Thousandths, in the API's form.
fn text(milli: i64) -> Text {
    let text = format!("{milli}m");
    Text(wherry_api::quantity::canonical(&text).map_or_else(|_| text.clone(), |text| text.into_owned()))
}
