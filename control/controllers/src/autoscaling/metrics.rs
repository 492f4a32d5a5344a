//! What Pods use, asked of `metrics.k8s.io`, and what they request.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, ObjectMeta},
    core::ApiResource,
};
use serde::Deserialize;
use wherry_api::quantity::Quantity;

use super::sample::Usage;

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

/// What the Pods that a selector matches use of a resource, by name; in thousandths. With `container`, only what that one does.
/// A Pod of which a container's usage is not known is left out.
pub(super) async fn usage(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, Usage>, kube::Error> {
    let kind = ApiResource {
        group: "metrics.k8s.io".to_owned(),
        version: "v1beta1".to_owned(),
        api_version: "metrics.k8s.io/v1beta1".to_owned(),
        kind: "PodMetrics".to_owned(),
        plural: "pods".to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let found = api.list(&ListParams::default().labels(selector)).await?;
    let read = |object: DynamicObject| -> Option<(String, Usage)> {
        let metrics: PodMetrics = serde_json::to_value(object).and_then(serde_json::from_value).ok()?;
        let used = metrics.containers.iter().filter(|of| container.is_none_or(|name| name == of.name));
        let milli =
            used.map(|of| Some(Quantity::parse(of.usage.get(resource)?).ok()?.milli_value())).sum::<Option<i64>>()?;
        let window = Duration::from_secs_f64(metrics.window.trim_end_matches('s').parse().unwrap_or(60.0));
        Some((metrics.metadata.name?, Usage { milli, at: metrics.timestamp, window }))
    };
    Ok(found.items.into_iter().filter_map(read).collect())
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
