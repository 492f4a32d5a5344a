//! What is said of an APIService: pure decisions, in upstream's words.

use serde_json::{Value, json};
use wherry_api::discovery::{AUTOMANAGED, LOCAL};

use super::registration::Registration;

/// The condition `Available`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) available: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    pub(super) fn passed() -> Self {
        Self { available: true, reason: "Passed", message: "all checks passed".to_owned() }
    }

    pub(super) fn failed(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }

    pub(super) fn local() -> Self {
        let (reason, message) = LOCAL;
        Self { available: true, reason, message: message.to_owned() }
    }

    /// The conditions of an APIService with this one among them; `None` if that changes nothing.
    pub(super) fn applied(&self, object: &Value, now: &str) -> Option<Value> {
        let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let at = all.iter().position(|known| known["type"] == "Available");
        let status = if self.available { "True" } else { "False" };
        let before = at.map(|at| &all[at]);
        let since =
            before.filter(|before| before["status"] == status).map(|before| before["lastTransitionTime"].clone());
        let after = json!({
            "type": "Available", "status": status, "lastTransitionTime": since.unwrap_or_else(|| now.into()),
            "reason": self.reason, "message": self.message,
        });
        if before == Some(&after) {
            return None;
        }
        match at {
            Some(at) => all[at] = after,
            None => all.push(after),
        }
        Some(all.into())
    }
}

/// What is wrong with the Service before its server is asked.
pub(super) fn obstacle(registration: &Registration, service: Option<&Value>, slices: &[Value]) -> Option<Condition> {
    let Registration { namespace, service: name, port, .. } = registration;
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Condition::failed("ServiceNotFound", message));
    };
    if service["spec"]["type"] != "ClusterIP" {
        return None;
    }
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(known) = ports.iter().find(|known| known["port"] == *port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Condition::failed("ServicePortError", message));
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Condition::failed("EndpointsNotFound", message));
    }
    let port = known["name"].as_str().unwrap_or_default();
    if crate::backends::places(slices, namespace, port).is_empty() {
        let message =
            format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}");
        return Some(Condition::failed("MissingEndpoints", message));
    }
    None
}

/// What becomes of an APIService that no Service is named for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// It is missing: this server serves what it stands for.
    Make,
    /// It was made for what this server serves no more.
    Remove,
    /// It says what it must say once its condition does.
    Tell,
    /// It is somebody else's, or not there and not missed.
    Leave,
}

/// `served` tells whether this server serves the group and version of its name.
pub(super) fn keeping(existing: Option<&Value>, served: bool) -> Keeping {
    match existing {
        None if served => Keeping::Make,
        None => Keeping::Leave,
        Some(object) if !object["spec"]["service"].is_null() => Keeping::Leave,
        Some(object) if !served && object["metadata"]["labels"][AUTOMANAGED].is_string() => Keeping::Remove,
        Some(_) => Keeping::Tell,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_service_must_lead_somewhere() {
        let object = json!({"spec": {"group": "x.io", "version": "v1", "service": {"namespace": "n", "name": "s", "port": 443}}});
        let registration = Registration::read(&object).unwrap();
        let service = |port: u16| json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": port}]}});
        let slice = |endpoints: Value| json!({"ports": [{"name": "https", "port": 8443}], "endpoints": endpoints});
        let unready = slice(json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": false}}]));
        let ready = slice(json!([{"addresses": ["192.0.2.1"]}]));
        let table = [
            (None, vec![], "ServiceNotFound", "service/s in \"n\" is not present"),
            (Some(service(80)), vec![], "ServicePortError", "service/s in \"n\" is not listening on port 443"),
            (Some(service(443)), vec![], "EndpointsNotFound", "cannot find endpointslices for service/s in \"n\""),
            (
                Some(service(443)),
                vec![unready],
                "MissingEndpoints",
                "endpointslices for service/s in \"n\" have no addresses with port name \"https\"",
            ),
        ];
        for (service, slices, reason, message) in table {
            let found = obstacle(&registration, service.as_ref(), &slices).unwrap();
            assert_eq!((found.available, found.reason, found.message.as_str()), (false, reason, message));
        }
        assert_eq!(obstacle(&registration, Some(&service(443)), &[ready]), None);
        let external = json!({"spec": {"type": "ExternalName", "externalName": "localhost"}});
        assert_eq!(obstacle(&registration, Some(&external), &[]), None);
    }

    #[test]
    fn a_condition_is_written_when_it_changes_and_keeps_its_time() {
        let mut object = json!({"status": {"conditions": [{"type": "Other", "status": "True"}]}});
        let conditions = Condition::passed().applied(&object, "t1").unwrap();
        assert_eq!(
            (conditions[0]["type"].as_str(), conditions[1]["lastTransitionTime"].as_str()),
            (Some("Other"), Some("t1"))
        );
        object["status"]["conditions"] = conditions;
        assert_eq!(Condition::passed().applied(&object, "t2"), None);
        let failed = |why: &str| Condition::failed("FailedDiscoveryCheck", why.to_owned());
        object["status"]["conditions"] = failed("a").applied(&object, "t2").unwrap();
        let again = failed("b").applied(&object, "t3").unwrap();
        assert_eq!((again[1]["lastTransitionTime"].as_str(), again[1]["message"].as_str()), (Some("t2"), Some("b")));
    }

    #[test]
    fn what_is_served_here_has_one_and_nothing_else_is_touched() {
        let kept = json!({"metadata": {"labels": {AUTOMANAGED: "onstart"}}, "spec": {}});
        let own = json!({"metadata": {}, "spec": {}});
        let taken = json!({"metadata": {"labels": {AUTOMANAGED: "true"}}, "spec": {"service": {"name": "s"}}});
        let table = [
            (None, true, Keeping::Make),
            (None, false, Keeping::Leave),
            (Some(&kept), true, Keeping::Tell),
            (Some(&kept), false, Keeping::Remove),
            (Some(&own), false, Keeping::Tell),
            (Some(&taken), true, Keeping::Leave),
        ];
        for (existing, served, expected) in table {
            assert_eq!(keeping(existing, served), expected, "{existing:?} {served}");
        }
    }
}
