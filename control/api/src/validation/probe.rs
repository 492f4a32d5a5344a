//! Probes and lifecycle hooks.

use serde_json::Value;

use super::container::{PodFacts, port_or_name};
use super::{At, Errors, is_set, items, names, not_negative, text};

/// The fields that hold probes.
pub(super) const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

pub(super) fn probes(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    for key in PROBES {
        let probe = &container[key];
        if probe.is_null() {
            continue;
        }
        let at = at.field(key);
        handler(probe, facts.grace, &at, errors);
        for count in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            not_negative(&probe[count], &at.field(count), errors);
        }
        let grace = &probe["terminationGracePeriodSeconds"];
        if grace.as_i64().is_some_and(|g| g <= 0) {
            errors.invalid(&at.field("terminationGracePeriodSeconds"), grace.clone(), "must be greater than 0");
        }
        if key == "readinessProbe" {
            if is_set(probe, "terminationGracePeriodSeconds") {
                errors.invalid(
                    &at.field("terminationGracePeriodSeconds"),
                    grace.clone(),
                    "must not be set for readinessProbes",
                );
            }
        } else if probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
            errors.invalid(&at.field("successThreshold"), probe["successThreshold"].clone(), "must be 1");
        }
    }
}

pub(super) fn lifecycle(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    let (lifecycle, at) = (&container["lifecycle"], at.field("lifecycle"));
    for hook in ["postStart", "preStop"].into_iter().filter(|hook| is_set(lifecycle, hook)) {
        handler(&lifecycle[hook], facts.grace, &at.field(hook), errors);
    }
}

fn handler(holder: &Value, grace: Option<i64>, at: &At, errors: &mut Errors) {
    let mut given = HANDLERS.into_iter().filter(|kind| is_set(holder, kind));
    let Some(kind) = given.next() else {
        return errors.required(at, "must specify a handler type");
    };
    for more in given {
        errors.forbidden(&at.field(more), "may not specify more than 1 handler type");
    }
    let (action, at) = (&holder[kind], at.field(kind));
    match kind {
        "exec" => {
            if items(action, "command").is_empty() {
                errors.required(&at.field("command"), "");
            }
        }
        "httpGet" => {
            if text(action, "path").is_empty() {
                errors.required(&at.field("path"), "");
            }
            port_or_name(&action["port"], &at.field("port"), errors);
            errors.one_of(&at.field("scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
            for header in items(action, "httpHeaders") {
                errors.rule(&at.field("httpHeaders"), text(header, "name"), names::http_header);
            }
        }
        "tcpSocket" | "grpc" => port_or_name(&action["port"], &at.field("port"), errors),
        _ => {
            let seconds = action["seconds"].as_i64().unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                errors.invalid(
                    &at,
                    seconds,
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                );
            }
        }
    }
}
