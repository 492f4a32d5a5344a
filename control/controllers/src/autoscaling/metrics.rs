//! What Pods use and what objects say of themselves, asked of the APIs of metrics: `metrics.k8s.io`, `custom.metrics.k8s.io`,
//! `external.metrics.k8s.io`. Whoever serves these is asked; where nobody does, the answer says so in upstream's words.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier},
        core::v1::{ObjectReference, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Client,
    api::ObjectMeta,
    core::GroupVersionKind,
    discovery::{Scope, pinned_kind},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use wherry_api::{quantity::Quantity, selector::LabelSelector};

use super::sample::Usage;
use crate::error;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
/// The versions of it that are understood, the better first; those who serve only the older are still many.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// What cannot stand in a path as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Over how long a metric was measured that does not say so.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
struct ListOf<T> {
    items: Vec<T>,
}

/// What the containers of a Pod used.
#[derive(Debug, Deserialize)]
struct PodMetrics {
    metadata: ObjectMeta,
    timestamp: Timestamp,
    window: String,
    containers: Vec<OfContainer>,
}

#[derive(Debug, Deserialize)]
struct OfContainer {
    name: String,
    usage: BTreeMap<String, String>,
}

/// A metric of one object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: ObjectReference,
    timestamp: Timestamp,
    window_seconds: Option<u64>,
    value: String,
}

#[derive(Debug, Deserialize)]
struct ExternalValue {
    value: String,
}

/// What the Pods that a selector matches use of a resource, by name; in thousandths. With `container`, only what that one does.
/// A Pod of which a container's usage is not known is left out.
pub(super) async fn usage(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, Usage>, String> {
    let failed = |why: String| format!("unable to get metrics for resource {resource}: {why}");
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
    let found: ListOf<PodMetrics> = ask(client, &path, &[("labelSelector", selector)]).await.map_err(|error| {
        failed(format!("unable to fetch metrics from resource metrics API: {}", error::message(&error)))
    })?;
    if found.items.is_empty() {
        return Err(failed("no metrics returned from resource metrics API".to_owned()));
    }
    let read = |metrics: PodMetrics| -> Option<(String, Usage)> {
        let used = metrics.containers.iter().filter(|of| container.is_none_or(|name| name == of.name));
        let milli =
            used.map(|of| Some(Quantity::parse(of.usage.get(resource)?).ok()?.milli_value())).sum::<Option<i64>>()?;
        let window = metrics.window.trim_end_matches('s').parse().map_or(WINDOW, Duration::from_secs_f64);
        Some((metrics.metadata.name?, Usage { milli, at: metrics.timestamp, window }))
    };
    Ok(found.items.into_iter().filter_map(read).collect())
}

/// A metric of the Pods that a selector matches, by name.
pub(super) async fn of_pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &MetricIdentifier,
) -> Result<BTreeMap<String, Usage>, String> {
    let path = format!("namespaces/{namespace}/pods/*/{}", segment(&metric.name));
    let found = custom(client, &path, selector, metric).await;
    let found = found.map_err(|why| format!("unable to get metric {}: {why}", metric.name))?;
    let read = |value: MetricValue| {
        let milli = milli(&value.value)?;
        let window = value.window_seconds.map_or(WINDOW, Duration::from_secs);
        Some((value.described_object.name?, Usage { milli, at: value.timestamp, window }))
    };
    Ok(found.into_iter().filter_map(read).collect())
}

/// A metric of one object, in thousandths.
pub(super) async fn of_object(
    client: &Client,
    namespace: &str,
    object: &CrossVersionObjectReference,
    metric: &MetricIdentifier,
) -> Result<i64, String> {
    let asked = async {
        let path = path_of(client, namespace, object, &metric.name).await?;
        let found = custom(client, &path, "", metric).await?;
        let value = found.first().and_then(|value| milli(&value.value));
        value.ok_or_else(|| "no metrics returned from custom metrics API".to_owned())
    };
    // In upstream's order.
    asked.await.map_err(|why: String| {
        format!("unable to get metric {}: {} on {namespace} {}/{why}", metric.name, object.kind, object.name)
    })
}

async fn path_of(
    client: &Client,
    namespace: &str,
    object: &CrossVersionObjectReference,
    metric: &str,
) -> Result<String, String> {
    let (name, metric) = (segment(&object.name), segment(metric));
    let api_version = object.api_version.as_deref().unwrap_or("v1");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if (group, object.kind.as_str()) == ("", "Namespace") {
        return Ok(format!("namespaces/{name}/metrics/{metric}"));
    }
    let found = pinned_kind(client, &GroupVersionKind::gvk(group, version, &object.kind)).await;
    let (kind, capabilities) = found.map_err(|_| {
        format!("unable to map kind {}: no matches for kind {:?} in version {api_version:?}", object.kind, object.kind)
    })?;
    let resource = if group.is_empty() { kind.plural } else { format!("{}.{group}", kind.plural) };
    Ok(match capabilities.scope {
        Scope::Namespaced => format!("namespaces/{namespace}/{resource}/{name}/{metric}"),
        Scope::Cluster => format!("{resource}/{name}/{metric}"),
    })
}

/// What a group of APIs consists of.
#[derive(Debug, Deserialize)]
struct Group {
    versions: Vec<GroupVersion>,
}

#[derive(Debug, Deserialize)]
struct GroupVersion {
    version: String,
}

/// The best version that whoever serves the group has; the best of all where that is not told.
fn version(group: Option<&Group>) -> &'static str {
    let has = |version: &&str| group.is_some_and(|group| group.versions.iter().any(|one| one.version == *version));
    VERSIONS.into_iter().find(has).unwrap_or(VERSIONS[0])
}

/// `path` is below the version.
async fn custom(
    client: &Client,
    path: &str,
    selector: &str,
    metric: &MetricIdentifier,
) -> Result<Vec<MetricValue>, String> {
    let series = series(metric)?;
    let query = [("labelSelector", selector), ("metricLabelSelector", series.as_str())];
    // Asked each time: who serves the group may change, and the answer is at hand.
    let group: Result<Group, _> = ask(client, CUSTOM, &[]).await;
    let path = format!("{CUSTOM}/{}/{path}", version(group.ok().as_ref()));
    let found: Result<ListOf<MetricValue>, _> = ask(client, &path, &query).await;
    match found {
        Err(error) => Err(format!("unable to fetch metrics from custom metrics API: {}", error::message(&error))),
        Ok(found) if found.items.is_empty() => Err("no metrics returned from custom metrics API".to_owned()),
        Ok(found) => Ok(found.items),
    }
}

/// An external metric, all its series together, in thousandths.
pub(super) async fn external(client: &Client, namespace: &str, metric: &MetricIdentifier) -> Result<i64, String> {
    let asked = async {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}", segment(&metric.name));
        let found: Result<ListOf<ExternalValue>, _> = ask(client, &path, &[("labelSelector", &series(metric)?)]).await;
        let found = found.map_err(|error| {
            let why = match &error {
                // The API itself is not there: clients of upstream add what they asked for.
                kube::Error::Api(status)
                    if status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty()) =>
                {
                    format!("{} (get {}.external.metrics.k8s.io)", status.message, metric.name)
                }
                error => error::message(error),
            };
            format!("unable to fetch metrics from external metrics API: {why}")
        })?;
        if found.items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        let values: Option<Vec<i64>> = found.items.iter().map(|item| milli(&item.value)).collect();
        values
            .map(|values| values.into_iter().fold(0, i64::saturating_add))
            .ok_or_else(|| "external metrics API answered with a value that is no quantity".to_owned())
    };
    asked
        .await
        .map_err(|why| format!("unable to get external metric {namespace}/{}/{}: {why}", metric.name, told(metric)))
}

/// The selector of a metric's series, as Go prints it.
pub(super) fn told(metric: &MetricIdentifier) -> String {
    let Some(selector) = &metric.selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten().map(|(name, value)| format!("{name}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", one.key, one.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}

/// The selector of a metric's series, as it is asked for.
fn series(metric: &MetricIdentifier) -> Result<String, String> {
    let Some(selector) = &metric.selector else { return Ok(String::new()) };
    let tree = serde_json::to_value(selector).map_err(|error| error.to_string())?;
    LabelSelector::from_object(Some(&tree)).map(|selector| selector.to_string()).map_err(|error| error.to_string())
}

fn milli(text: &str) -> Option<i64> {
    Quantity::parse(text).ok().map(|quantity| quantity.milli_value())
}

fn segment(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

async fn ask<T: DeserializeOwned>(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<T, kube::Error> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()))
        .finish();
    let request = http::Request::get(format!("{path}?{query}")).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// What a Pod requests of a resource, in thousandths; an error names the container that requests none.
pub(super) fn request(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let wanted = spec.containers.iter().filter(|of| container.is_none_or(|name| name == of.name));
    wanted
        .map(|of| {
            let requests = of.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let found =
                requests.and_then(|requests| requests.get(resource)).and_then(|text| Quantity::parse(&text.0).ok());
            found.map(|quantity| quantity.milli_value()).ok_or_else(|| {
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                format!("missing request for {resource} in container {} of Pod {pod}", of.name)
            })
        })
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_better_version_is_asked() {
        let group = |versions: &[&str]| -> Group {
            let versions: Vec<_> = versions.iter().map(|version| serde_json::json!({ "version": version })).collect();
            serde_json::from_value(serde_json::json!({ "versions": versions })).unwrap()
        };
        assert_eq!(version(Some(&group(&["v1beta1", "v1beta2"]))), "v1beta2");
        assert_eq!(version(Some(&group(&["v1beta1"]))), "v1beta1");
        assert_eq!((version(Some(&group(&["v2"]))), version(None)), ("v1beta2", "v1beta2"));
    }

    #[test]
    fn selectors_are_told_as_go_prints_them() {
        let metric = |json| -> MetricIdentifier { serde_json::from_value(json).unwrap() };
        assert_eq!(told(&metric(serde_json::json!({ "name": "queue" }))), "nil");
        let chosen =
            metric(serde_json::json!({ "name": "queue", "selector": { "matchLabels": { "queue": "tasks" } } }));
        assert_eq!(
            told(&chosen),
            "&LabelSelector{MatchLabels:map[string]string{queue: tasks,},MatchExpressions:[]LabelSelectorRequirement{},}"
        );
        assert_eq!(series(&chosen).unwrap(), "queue=tasks");
    }
}
