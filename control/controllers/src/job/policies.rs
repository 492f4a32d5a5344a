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
                // A smaller Job may have none of them left: nothing is met by nothing.
                (counted, counted > 0 && counted == wanted.len())
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
    use proptest::prelude::*;
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

    /// A rule: whether it asks for exit codes (of which container, listed or not, which) or a condition; and its action.
    fn rule() -> impl Strategy<Value = serde_json::Value> {
        let codes = (prop::option::of(0usize..3), any::<bool>(), prop::collection::btree_set(1i32..6, 1..4)).prop_map(
            |(container, listed, values)| {
                let operator = if listed { "In" } else { "NotIn" };
                let container = container.map(|n| format!("c{n}"));
                json!({ "onExitCodes": { "containerName": container, "operator": operator, "values": values } })
            },
        );
        let condition = (0usize..3, any::<bool>()).prop_map(|(kind, status)| {
            let status = if status { "True" } else { "False" };
            json!({ "onPodConditions": [{ "type": format!("T{kind}"), "status": status }] })
        });
        let action = prop::sample::select(vec!["Ignore", "FailIndex", "FailJob", "Count"]);
        (prop_oneof![codes, condition], action).prop_map(|(mut rule, action)| {
            rule["action"] = json!(action);
            rule
        })
    }

    /// The exit codes of three containers, the last of them an init container, and the Pod's conditions.
    fn failed(codes: &[Option<i32>], conditions: &[(usize, bool)]) -> Pod {
        let container = |(n, code): (usize, &Option<i32>)| {
            let state =
                code.map_or_else(|| json!({ "running": {} }), |code| json!({ "terminated": { "exitCode": code } }));
            json!({ "name": format!("c{n}"), "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state })
        };
        let mut containers: Vec<_> = codes.iter().enumerate().map(container).collect();
        let init = containers.split_off(2);
        let condition = |(kind, status): &(usize, bool)| json!({ "type": format!("T{kind}"), "status": if *status { "True" } else { "False" } });
        let conditions: Vec<_> = conditions.iter().map(condition).collect();
        let status = json!({
            "containerStatuses": containers, "initContainerStatuses": init, "conditions": conditions, "phase": "Failed",
        });
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": status })).unwrap()
    }

    fn exits() -> impl Strategy<Value = Vec<Option<i32>>> {
        prop::collection::vec(prop::option::of(0i32..6), 3)
    }

    fn action(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Count => "Count",
            Verdict::Ignore => "Ignore",
            Verdict::FailIndex => "FailIndex",
            Verdict::FailJob(_) => "FailJob",
        }
    }

    proptest! {
        #[test]
        fn the_first_rule_that_would_match_alone_decides(
            rules in prop::collection::vec(rule(), 0..5), codes in exits(),
            conditions in prop::collection::vec((0usize..3, any::<bool>()), 0..3),
        ) {
            let pod = failed(&codes, &conditions);
            let alone = |rule: &serde_json::Value| {
                let mut rule = rule.clone();
                rule["action"] = json!("Ignore");
                judge(&job(json!([rule])), &pod) == Verdict::Ignore
            };
            let first = rules.iter().position(alone);
            let verdict = judge(&job(json!(rules)), &pod);
            let expected = first.map_or("Count", |n| rules[n]["action"].as_str().unwrap());
            prop_assert_eq!(action(&verdict), expected);
            if let Verdict::FailJob(why) = verdict {
                let ending = format!("rule at index {}", first.unwrap());
                prop_assert!(why.ends_with(&ending), "{}", why);
            }
            // In which order the Pod tells of its containers and conditions does not matter.
            let mut turned = pod.clone();
            let status = turned.status.as_mut().unwrap();
            status.container_statuses.as_mut().unwrap().reverse();
            status.conditions.as_mut().unwrap().reverse();
            prop_assert_eq!(action(&judge(&job(json!(rules)), &turned)), expected);
        }

        #[test]
        fn an_exit_code_is_listed_or_not_and_success_is_neither(
            code in 0i32..6, values in prop::collection::btree_set(1i32..6, 1..4), other in 0i32..6,
        ) {
            let pod = failed(&[Some(code), Some(other), None], &[]);
            let matches = |operator: &str| {
                let codes = json!({ "containerName": "c0", "operator": operator, "values": values });
                judge(&job(json!([{ "action": "Ignore", "onExitCodes": codes }])), &pod) == Verdict::Ignore
            };
            prop_assert_eq!(usize::from(matches("In")) + usize::from(matches("NotIn")), usize::from(code != 0));
            prop_assert_eq!(matches("In"), values.contains(&code));
        }

        #[test]
        fn more_successes_meet_what_fewer_met_and_none_meet_nothing(
            rules in prop::collection::vec(
                (prop::option::of(prop::collection::btree_set(0i32..8, 1..6)), prop::option::of(1i32..6)), 1..4,
            ),
            some in prop::collection::btree_set(0i32..6, 0..7), more in prop::collection::btree_set(0i32..6, 0..7),
            completions in 1i32..7,
        ) {
            let within = |indexes: &Indexes| indexes.iter().copied().filter(|n| *n < completions).collect::<Indexes>();
            let (some, more) = (within(&some), within(&more));
            let all: Indexes = some.union(&more).copied().collect();
            // Indexes beyond the completions are left over where an elastic Job was made smaller.
            let rule = |(wanted, count): &(Option<Indexes>, Option<i32>)| {
                json!({ "succeededIndexes": wanted.as_ref().map(indexes::format), "succeededCount": count })
            };
            let given: Vec<_> = rules.iter().map(rule).collect();
            let policy: SuccessPolicy = serde_json::from_value(json!({ "rules": given })).unwrap();
            prop_assert!(met(&policy, &Indexes::new(), completions).is_none());
            if met(&policy, &some, completions).is_some() {
                prop_assert!(met(&policy, &all, completions).is_some());
            }
            // What is not asked for does not help.
            let asked: Indexes = rules.iter().flat_map(|(wanted, count)| match (wanted, count) {
                (Some(wanted), _) => wanted.clone(),
                (None, Some(_)) => (0..8).collect(),
                (None, None) => Indexes::new(),
            }).collect();
            let of_use: Indexes = all.intersection(&asked).copied().collect();
            prop_assert_eq!(met(&policy, &all, completions), met(&policy, &of_use, completions));
        }
    }
}
