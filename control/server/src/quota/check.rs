//! Whether a write fits into a quota, and what its usage is then. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use wherry_api::meta;

use super::measure::{Measure, owner};
use super::scopes;
use crate::admission::amounts::{self, Amounts};

/// A write that may be charged.
pub(crate) struct Change<'a> {
    pub(crate) measure: &'static Measure,
    /// The storage group-resource.
    pub(crate) resource: &'a str,
    /// The object as it was, if it was.
    pub(crate) old: Option<&'a Value>,
    /// The object as it shall be.
    pub(crate) new: &'a Value,
    pub(crate) now: Timestamp,
}

/// What a write adds to the usage of `quota`: empty if it adds nothing, an error in upstream's words if it does not fit.
pub(super) fn added(quota: &Value, change: &Change<'_>) -> Result<Amounts, String> {
    let status = &quota["status"];
    let (hard, used) = (amounts::of(&status["hard"]), amounts::of(&status["used"]));
    let concerned: BTreeSet<&str> =
        hard.keys().map(String::as_str).filter(|name| owner(name) == Some(change.resource)).collect();
    if concerned.is_empty() || !scopes::matches(change.measure, quota, change.new) {
        return Ok(Amounts::new());
    }
    let name = meta::name(quota);
    if let Some(lacking) = (change.measure.lacks)(&concerned, change.new) {
        return Err(format!("failed quota: {name}: {lacking}"));
    }
    let missing: Vec<&str> = concerned.iter().copied().filter(|name| !used.contains_key(*name)).collect();
    if !missing.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", missing.join(",")));
    }
    let usage = change.measure.usage(change.resource, change.new, change.now);
    let negative: Vec<&str> = usage.iter().filter(|(_, q)| q.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let before = match change.old.filter(|old| scopes::matches(change.measure, quota, old)) {
        Some(old) => change.measure.usage(change.resource, old, change.now),
        None => Amounts::new(),
    };
    let requested: Amounts = usage
        .into_iter()
        .filter(|(name, _)| hard.contains_key(name))
        .map(|(name, quantity)| match before.get(&name) {
            Some(had) => (name, quantity - *had),
            None => (name, quantity),
        })
        .filter(|(_, quantity)| !quantity.is_zero() && !quantity.is_negative())
        .collect();
    let exceeded: Vec<&str> = requested
        .iter()
        .filter(|(name, more)| used.get(*name).is_some_and(|used| *used + **more > hard[*name]))
        .map(|(name, _)| name.as_str())
        .collect();
    if exceeded.is_empty() {
        return Ok(requested);
    }
    let show = |amounts: &Amounts| {
        let shown = exceeded.iter().filter_map(|name| Some(format!("{name}={}", amounts.get(*name)?)));
        shown.collect::<Vec<_>>().join(",")
    };
    let (requested, used, hard) = (show(&requested), show(&used), show(&hard));
    Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {hard}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn ask(quota: &Value, resource: &str, old: Option<&Value>, new: &Value) -> String {
        let change = Change { measure: Measure::of(resource).unwrap(), resource, old, new, now: Timestamp::UNIX_EPOCH };
        match added(quota, &change) {
            Ok(added) => added.iter().map(|(name, q)| format!("{name}={q}")).collect::<Vec<_>>().join(","),
            Err(why) => why,
        }
    }

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    #[test]
    fn answers_are_upstreams() {
        let pod = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let full = quota(
            json!({"pods": "2", "requests.cpu": "1", "secrets": "1"}),
            json!({"pods": "2", "requests.cpu": "500m", "secrets": "0"}),
        );
        for (quota, resource, new, expected) in [
            (
                &full,
                "pods",
                pod("1"),
                "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=2,requests.cpu=500m, limited: pods=2,requests.cpu=1",
            ),
            (
                &full,
                "pods",
                json!({"spec": {"containers": [{"name": "c"}]}}),
                "failed quota: q: must specify requests.cpu for: c",
            ),
            (&full, "secrets", json!({}), "secrets=1"),
            (&full, "configmaps", json!({}), ""),
            (&quota(json!({"pods": "2"}), json!({})), "pods", pod("1"), "status unknown for quota: q, resources: pods"),
            (&quota(json!({"pods": "2"}), json!({"pods": "1"})), "pods", pod("1"), "pods=1"),
        ] {
            assert_eq!(ask(quota, resource, None, &new), expected);
        }
    }

    #[test]
    fn an_update_pays_the_difference() {
        let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{}]}});
        let quota = quota(
            json!({"services": "1", "services.nodeports": "1"}),
            json!({"services": "1", "services.nodeports": "0"}),
        );
        let (plain, open) = (service("ClusterIP"), service("NodePort"));
        assert_eq!(ask(&quota, "services", Some(&plain), &plain), "");
        assert_eq!(ask(&quota, "services", Some(&plain), &open), "services.nodeports=1");
        assert_eq!(ask(&quota, "services", Some(&open), &plain), "");
    }
}
