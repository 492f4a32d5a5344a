//! What a disruption budget says to an eviction. Pure.
//!
//! The disruption controller writes `disruptionsAllowed`; each eviction takes one of it and leaves the Pod's name, so that the
//! controller does not count a Pod as healthy that is about to go.

use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::selector::LabelSelector;
use wherry_api::status::{Cause, GroupResource, Status};

/// More evicted Pods than these are not noted: the controller cannot keep up.
const MOST_DISRUPTED: usize = 2000;

/// What an eviction needs of a budget.
#[derive(Debug, PartialEq)]
pub(super) enum Need {
    /// Nothing, as long as the Pod stays as it was looked at: not ready.
    Unchanged,
    /// One of the disruptions that are allowed.
    Disruption,
}

fn is_ready(pod: &Pod<'_>) -> bool {
    let conditions = pod.0["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A Pod's tree.
pub(super) struct Pod<'a>(pub(super) &'a Value);

impl Pod<'_> {
    /// Whether no budget is asked: the Pod has ended, is ending, or never began.
    pub(super) fn is_free(&self) -> bool {
        let phase = self.0["status"]["phase"].as_str().unwrap_or_default();
        matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::deletion_timestamp(self.0).is_some()
    }
}

/// Whether a budget selects a Pod.
pub(super) fn covers(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    !selector.is_null() && LabelSelector::from_object(Some(selector)).is_ok_and(|selector| selector.matches(&labels))
}

pub(super) fn need(budget: &Value, pod: &Pod<'_>) -> Need {
    if is_ready(pod) {
        return Need::Disruption;
    }
    let status = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    let sound = status("desiredHealthy") > 0 && status("currentHealthy") >= status("desiredHealthy");
    if always || sound { Need::Unchanged } else { Need::Disruption }
}

/// The budget with one disruption spent on the Pod `pod`, or why not.
pub(super) fn spend(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let name = meta::name(budget);
    let status = &budget["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let too_many = |message: &str, cause: String, seconds| {
        let cause = Cause { reason: "DisruptionBudget".to_owned(), message: cause, field: String::new() };
        Err(Status::too_many_requests(message, seconds).with_cause(cause))
    };
    let forbidden =
        |why: String| Err(Status::forbidden(&GroupResource::new("policy", "poddisruptionbudgets"), name, why));
    if number("observedGeneration") < meta::generation(budget) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return too_many("Cannot evict pod as it would violate the pod's disruption budget.", why, 10);
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative".to_owned());
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller".to_owned());
    }
    if allowed == 0 {
        let (healthy, wanted) = (number("currentHealthy"), number("desiredHealthy"));
        let why = format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently");
        return too_many("Cannot evict pod as it would violate the pod's disruption budget.", why, 0);
    }
    let mut spent = budget.clone();
    let status = meta::map_mut(&mut spent, "status");
    status.insert("disruptionsAllowed".to_owned(), (allowed - 1).into());
    let disrupted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    disrupted[pod] = now.into();
    if allowed == 1
        && let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut)
    {
        for condition in conditions.iter_mut().filter(|condition| condition["type"] == "DisruptionAllowed") {
            condition["status"] = "False".into();
            condition["reason"] = "InsufficientPods".into();
            condition["lastTransitionTime"] = now.into();
        }
    }
    Ok(spent)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn budget(allowed: i64, policy: Option<&str>) -> Value {
        json!({
            "metadata": { "name": "web", "generation": 1 },
            "spec": { "selector": { "matchLabels": { "app": "web" } }, "unhealthyPodEvictionPolicy": policy },
            "status": { "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 2 },
        })
    }

    fn pod(ready: &str) -> Value {
        json!({ "metadata": { "name": "a", "labels": { "app": "web" } },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] } })
    }

    #[test]
    fn disruptions_are_spent_one_by_one() {
        let mut budget = budget(2, None);
        assert!(covers(&budget, &pod("True")));
        budget = spend(&budget, "a", "2026-01-01T00:00:00Z").unwrap();
        budget = spend(&budget, "b", "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(budget["status"]["disruptedPods"].as_object().unwrap().len(), 2);
        let refused = spend(&budget, "c", "2026-01-01T00:00:00Z").unwrap_err();
        assert_eq!(refused.code, 429);
        assert!(refused.to_value().to_string().contains("needs 2 healthy pods and has 1 currently"));
        budget["metadata"]["generation"] = 2.into();
        assert!(spend(&budget, "c", "").unwrap_err().to_value().to_string().contains("still being processed"));
    }

    #[test]
    fn unhealthy_pods_go_where_the_policy_lets_them() {
        let unready = pod("False");
        assert_eq!(need(&budget(0, None), &Pod(&pod("True"))), Need::Disruption);
        assert_eq!(need(&budget(0, None), &Pod(&unready)), Need::Disruption, "fewer are healthy than should be");
        assert_eq!(need(&budget(0, Some("AlwaysAllow")), &Pod(&unready)), Need::Unchanged);
        let mut sound = budget(0, None);
        sound["status"]["currentHealthy"] = 2.into();
        assert_eq!(need(&sound, &Pod(&unready)), Need::Unchanged);
        let mut pending = pod("False");
        pending["status"]["phase"] = "Pending".into();
        assert!(Pod(&pending).is_free() && !Pod(&unready).is_free());
    }

    proptest::proptest! {
        /// However evictions follow each other, no more are granted than were allowed, and each leaves the Pod's name.
        #[test]
        fn no_more_is_spent_than_there_is(allowed in 0i64..6, pods in proptest::collection::vec(0u8..8, 0..12)) {
            let mut budget = budget(allowed, None);
            let mut granted = std::collections::BTreeSet::new();
            let mut count = 0;
            for pod in pods {
                let name = format!("p{pod}");
                match spend(&budget, &name, "2026-01-01T00:00:00Z") {
                    Ok(spent) => {
                        budget = spent;
                        count += 1;
                        granted.insert(name);
                    }
                    Err(refused) => {
                        proptest::prop_assert_eq!(refused.code, 429);
                        proptest::prop_assert_eq!(count, allowed);
                    }
                }
                proptest::prop_assert_eq!(budget["status"]["disruptionsAllowed"].as_i64(), Some(allowed - count));
                let noted: Vec<_> = budget["status"]["disruptedPods"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
                proptest::prop_assert_eq!(noted, granted.iter().cloned().collect::<Vec<_>>());
            }
        }
    }
}
