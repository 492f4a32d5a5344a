//! `fieldRef` and `resourceFieldRef`.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use wherry_api::quantity::Quantity;

use super::ConfigError;
use crate::node::Capacity;

/// What a Pod's fields cannot tell by themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodFacts {
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_ips: Vec<String>,
}

/// The value of `fieldRef.fieldPath`.
pub(crate) fn field(pod: &Pod, facts: &PodFacts, path: &str) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unknown(path)),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => map_text(meta.labels.as_ref()),
        "metadata.annotations" => map_text(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => text(facts.host_ips.first()),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => text(facts.pod_ips.first()),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(unknown(path)),
    })
}

fn unknown(path: &str) -> ConfigError {
    ConfigError::Invalid(format!("unsupported fieldPath: {path}"))
}

/// `key="value"` lines, sorted.
fn map_text(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef`; a limit that is not set is what the node has.
pub(crate) fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    node: &Capacity,
) -> Result<String, ConfigError> {
    let (kind, resource) = selector.resource.split_once('.').unwrap_or((&selector.resource, ""));
    let resources = container.resources.as_ref();
    let list = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(ConfigError::Invalid(format!("unsupported container resource: {}", selector.resource))),
    };
    let parse = |text: &str| Quantity::parse(text).map_err(|error| ConfigError::Invalid(format!("{text}: {error}")));
    let set = list.and_then(|list| list.get(resource)).map(|quantity| parse(&quantity.0)).transpose()?;
    let divisor = match selector.divisor.as_ref().filter(|divisor| !divisor.0.is_empty()) {
        Some(divisor) => parse(&divisor.0)?,
        None => parse("1")?,
    };
    let divide = |value: i64, by: i64| if by <= 0 { value } else { value.div_ceil_signed(by) };
    Ok(match resource {
        "cpu" => {
            let millis =
                set.map_or_else(|| if kind == "limits" { node.cpu_millis } else { 0 }, |set| set.milli_value());
            let by = if divisor.is_zero() { 1000 } else { divisor.milli_value() };
            divide(millis, by).to_string()
        }
        "memory" | "ephemeral-storage" => {
            let whole = if resource == "memory" { node.memory_bytes } else { node.storage_bytes };
            let bytes = set.map_or_else(|| if kind == "limits" { whole } else { 0 }, |set| set.value());
            let by = if divisor.is_zero() { 1 } else { divisor.value() };
            divide(bytes, by).to_string()
        }
        _ => set.map_or_else(|| "0".to_owned(), |set| divide(set.value(), divisor.value().max(1)).to_string()),
    })
}

trait DivCeil {
    fn div_ceil_signed(self, by: Self) -> Self;
}

impl DivCeil for i64 {
    fn div_ceil_signed(self, by: i64) -> i64 {
        self / by + i64::from(self % by != 0)
    }
}
