//! APIServices (upstream: `kube-aggregator/pkg/apis/apiregistration/validation`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{At, Errors, is_set, items, names, text};

const MAX_GROUP_PRIORITY: i64 = 20_000;
const MAX_VERSION_PRIORITY: i64 = 1_000;

/// A new or changed APIService.
pub(crate) fn api_service(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let (name, wanted) = (text(&object["metadata"], "name"), format!("{version}.{group}"));
    if !name.is_empty() && name != wanted && names::path_segment(name).is_empty() {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.invalid(&At::root("metadata").field("name"), name, why);
    }
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.required(&at.field("group"), why);
    }
    if !group.is_empty() {
        errors.rule(&at.field("group"), group, names::subdomain);
    }
    errors.rule(&at.field("version"), version, names::dns_1035_label);
    for (field, max) in [("groupPriorityMinimum", MAX_GROUP_PRIORITY), ("versionPriority", MAX_VERSION_PRIORITY)] {
        let priority = spec[field].as_i64().unwrap_or(0);
        if !(1..=max).contains(&priority) {
            errors.invalid(&at.field(field), priority, format!("must be positive and less than {max}"));
        }
    }
    let bundle = text(spec, "caBundle");
    let insecure = spec["insecureSkipTLSVerify"] == true;
    let insecure_at = at.field("insecureSkipTLSVerify");
    if !is_set(spec, "service") {
        if !bundle.is_empty() {
            let bytes = STANDARD.decode(bundle).map_or(0, |bundle| bundle.len());
            let why = "local APIServices may not have a caBundle";
            errors.invalid(&at.field("caBundle"), format!("{bytes} bytes"), why);
        }
        if insecure {
            errors.invalid(&insecure_at, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    let (service, service_at) = (&spec["service"], at.field("service"));
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.required(&service_at.field(field), "");
        }
    }
    let port = service["port"].as_i64().unwrap_or(0);
    if let Some(why) = names::port_number(port) {
        errors.invalid(&service_at.field("port"), port, format!("port is not valid: {why}"));
    }
    if insecure && !bundle.is_empty() {
        errors.invalid(&insecure_at, true, "may not be true if caBundle is present");
    }
}

/// A status that was written.
pub(crate) fn status(object: &Value, errors: &mut Errors) {
    let at_status = At::root("status");
    let at = at_status.field("conditions");
    for (n, condition) in items(&object["status"], "conditions").iter().enumerate() {
        errors.one_of(&at.index(n).field("status"), text(condition, "status"), &["True", "False", "Unknown"]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(change: &Value) -> Vec<String> {
        let mut object = json!({
            "metadata": {"name": "v1.x.io"},
            "spec": {
                "group": "x.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                "service": {"namespace": "n", "name": "s", "port": 443},
            },
        });
        json_patch::merge(&mut object, change);
        let mut errors = Errors::default();
        api_service(&object, &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn api_services_are_judged_as_upstream_does() {
        assert!(told(&json!({})).is_empty());
        assert!(told(&json!({"metadata": {"name": "v1."}, "spec": {"group": "", "service": null}})).is_empty());
        let table = [
            (
                json!({"metadata": {"name": "v2.x.io"}}),
                "metadata.name: Invalid value: \"v2.x.io\": must be `spec.version+\".\"+spec.group`: \"v1.x.io\"",
            ),
            (
                json!({"metadata": {"name": "v2."}, "spec": {"group": "", "version": "v2"}}),
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
            ),
            (
                json!({"spec": {"groupPriorityMinimum": 20001}}),
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            ),
            (
                json!({"spec": {"versionPriority": 0}}),
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            ),
            (
                json!({"spec": {"service": null, "caBundle": "YWJj"}}),
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
            ),
            (
                json!({"spec": {"service": null, "insecureSkipTLSVerify": true}}),
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ),
            (json!({"spec": {"service": {"name": ""}}}), "spec.service.name: Required value"),
            (
                json!({"spec": {"service": {"port": 65536}}}),
                "spec.service.port: Invalid value: 65536: port is not valid: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"spec": {"insecureSkipTLSVerify": true, "caBundle": "YWJj"}}),
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ),
        ];
        for (change, expected) in table {
            assert_eq!(told(&change), [expected], "{change}");
        }
    }

    #[test]
    fn a_condition_is_true_false_or_unknown() {
        let mut errors = Errors::default();
        status(&json!({"status": {"conditions": [{"status": "True"}, {"status": "Perhaps"}]}}), &mut errors);
        let told: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("status.conditions[1].status: Unsupported value: \"Perhaps\""), "{told:?}");
    }
}
