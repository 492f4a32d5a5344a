//! podFailurePolicy and successPolicy: which failures count, and when enough has succeeded. Pure.

use k8s_openapi::api::{
    batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, SuccessPolicy},
    core::v1::Pod,
};

use super::indexes::{self, Indexes};

/// What a failed Pod means to its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One of the failures that backoffLimit allows.
    Count,
    /// As if it had not been.
    Ignore,
    /// The Pod's index is given up.
    FailIndex,
    /// The whole Job is given up, for this reason.
    FailJob(String),
}

/// What the first rule that matches says.
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let rules = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref()).map(|policy| &policy.rules);
    for (n, rule) in rules.into_iter().flatten().enumerate() {
        let codes = rule.on_exit_codes.as_ref().and_then(|codes| by_exit_code(codes, pod));
        let conditions = rule.on_pod_conditions.as_deref().and_then(|patterns| by_condition(patterns, pod));
        let Some(what) = codes.or(conditions) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{what} matching FailJob rule at index {n}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn name(pod: &Pod) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

fn by_exit_code(requirement: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let wanted = containers.filter(|c| requirement.container_name.as_ref().is_none_or(|name| *name == c.name));
    wanted
        .filter_map(|container| Some((container, container.state.as_ref()?.terminated.as_ref()?.exit_code)))
        .find(|(_, code)| {
            let listed = requirement.values.contains(code);
            *code != 0 && if requirement.operator == "NotIn" { !listed } else { listed }
        })
        .map(|(container, code)| {
            format!("Container {} for pod {} failed with exit code {code}", container.name, name(pod))
        })
}

fn by_condition(patterns: &[PodFailurePolicyOnPodConditionsPattern], pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let matched = conditions.iter().find(|condition| {
        patterns.iter().any(|pattern| {
            pattern.type_ == condition.type_ && pattern.status.as_deref().unwrap_or("True") == condition.status
        })
    })?;
    Some(format!("Pod {} has condition {}", name(pod), matched.type_))
}

/// The rule that is met, in the words of the condition.
pub(super) fn met(policy: &SuccessPolicy, succeeded: &Indexes, completions: i32) -> Option<String> {
    let met = policy.rules.iter().position(|rule| {
        let (counted, all) = match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = indexes::parse(text, completions);
                let counted = wanted.intersection(succeeded).count();
                (counted, counted == wanted.len())
            }
            None => (succeeded.len(), false),
        };
        all || rule.succeeded_count.is_some_and(|count| counted >= usize::try_from(count).unwrap_or(0))
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(rules: serde_json::Value) -> Job {
        serde_json::from_value(json!({ "metadata": {}, "spec": {
            "podFailurePolicy": { "rules": rules }, "template": {},
        } }))
        .unwrap()
    }

    fn pod(code: i32, condition: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "namespace": "default", "name": "p" },
            "status": {
                "containerStatuses": [{ "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "terminated": { "exitCode": code } } }],
                "conditions": [{ "type": condition, "status": "True" }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let job = job(json!([
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            { "action": "FailJob", "onExitCodes": { "containerName": "main", "operator": "In", "values": [42] } },
            { "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [7] } },
            { "action": "FailJob", "onExitCodes": { "containerName": "other", "operator": "NotIn", "values": [0] } },
        ]));
        assert_eq!(judge(&job, &pod(42, "DisruptionTarget")), Verdict::Ignore);
        let why = "Container main for pod default/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&job, &pod(42, "Ready")), Verdict::FailJob(why.to_owned()));
        assert_eq!(judge(&job, &pod(7, "Ready")), Verdict::FailIndex);
        assert_eq!(judge(&job, &pod(1, "Ready")), Verdict::Count);
    }

    #[test]
    fn success_by_indexes_by_count_or_both() {
        let policy = |rules| serde_json::from_value::<SuccessPolicy>(json!({ "rules": rules })).unwrap();
        let succeeded = Indexes::from([0, 2, 3]);
        let listed = policy(json!([{ "succeededIndexes": "1" }, { "succeededIndexes": "0,2-3" }]));
        assert_eq!(met(&listed, &succeeded, 5).as_deref(), Some("Matched rules at index 1"));
        let both = policy(json!([{ "succeededIndexes": "0-2", "succeededCount": 2 }]));
        assert!(met(&both, &succeeded, 5).is_some());
        assert!(met(&policy(json!([{ "succeededCount": 4 }])), &succeeded, 5).is_none());
    }
}
