//! Specifying a budget: in numbers and percents, of those that stay and those that may leave; what kubectl shows of it, and whom
//! the eviction API refuses.
#![allow(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use serde_json::json;
use wherry_test::is_root;

use crate::lesson::{Lesson, play};
use crate::setting::cluster;

const BUDGET: &str = include_str!("tutorials/budget.yaml");

#[test]
fn a_budget_says_how_many_may_leave() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    play(&cluster, "budgets", |lesson| {
        lesson.apply(BUDGET)?;
        lesson.rolled_out("deployment/shop")?;
        for (spec, shown, allowed) in [
            (json!({"minAvailable": "60%"}), ["60%", "N/A"], "1"),
            (json!({"minAvailable": null, "maxUnavailable": "50%"}), ["N/A", "50%"], "2"),
            (json!({"minAvailable": null, "maxUnavailable": 0}), ["N/A", "0"], "0"),
            (json!({"minAvailable": 2, "maxUnavailable": null}), ["2", "N/A"], "1"),
        ] {
            lesson.patch("pdb/budget", &json!({"spec": spec}).to_string())?;
            let generation = lesson.ok("get pdb budget -o jsonpath={.metadata.generation}")?;
            lesson.wait(&format!("--for=jsonpath={{.status.observedGeneration}}={generation} pdb/budget"))?;
            lesson.wait(&format!("--for=jsonpath={{.status.disruptionsAllowed}}={allowed} pdb/budget"))?;
            let row = lesson.table("pdb")?.remove(0);
            let columns = ["NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS"];
            assert_eq!(columns.map(|column| row[column].as_str()), ["budget", shown[0], shown[1], allowed]);
        }
        let both = lesson
            .kubectl()
            .arguments(&["patch", "pdb", "budget", "-p", r#"{"spec":{"minAvailable":1,"maxUnavailable":1}}"#], "")?;
        ensure!(
            !both.success && both.stderr.contains("minAvailable and maxUnavailable cannot be both set"),
            "{both:?}"
        );
        one_may_leave(lesson)
    })
}

/// The second eviction waits for who replaces the first.
fn one_may_leave(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    // Who replaces is not ready before it is let in.
    lesson.ok("scale deployment shop --replicas=2")?;
    lesson.rolled_out("deployment/shop")?;
    lesson.wait("--for=jsonpath={.status.expectedPods}=2 pdb/budget")?;
    lesson.wait("--for=jsonpath={.status.disruptionsAllowed}=0 pdb/budget")?;
    let pods = lesson.words("pods -l app=shop", "{.items[*].metadata.name}")?;
    let refused = lesson.evict(&pods[0])?;
    for part in [
        "429",
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        "The disruption budget budget needs 2 healthy pods and has 2 currently",
    ] {
        ensure!(!refused.success && refused.stderr.contains(part), "{part} is not in\n{refused:?}");
    }
    assert_eq!(lesson.words("pods -l app=shop", "{.items[*].metadata.name}")?, pods, "nobody left");

    lesson.ok("scale deployment shop --replicas=3")?;
    lesson.rolled_out("deployment/shop")?;
    lesson.wait("--for=jsonpath={.status.disruptionsAllowed}=1 pdb/budget")?;
    let evicted = lesson.evict(&pods[0])?;
    ensure!(evicted.success && evicted.stdout.contains("\"status\":\"Success\""), "{evicted:?}");
    lesson.wait(&format!("--for=delete pod/{}", pods[0]))?;
    lesson.rolled_out("deployment/shop")?;
    lesson.wait("--for=jsonpath={.status.currentHealthy}=3 pdb/budget")
}
