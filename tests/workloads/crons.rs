//! CronJobs: by the minute and by hand, what becomes of one that is due while another runs, a stop and its end, and manifests of an
//! older version.
#![allow(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use wherry_test::is_root;

use crate::lesson::{Lesson, play};
use crate::setting::cluster;

const CRON: &str = include_str!("tutorials/cron.yaml");
const OVERLAP: &str = include_str!("tutorials/cron-overlap.yaml");

#[test]
fn cron_jobs() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    play(&cluster, "crons", |lesson| {
        assert_eq!(lesson.apply(CRON)?, "cronjob.batch/hello created\ncronjob.batch/often created\n");
        older_versions_are_refused(lesson)?;
        the_next_while_one_runs(lesson)?;
        by_hand(lesson)?;
        by_the_minute(lesson)?;
        in_the_minute_after(lesson)?;
        lesson.ok("delete cronjobs --all --cascade=foreground")?;
        assert_eq!(lesson.ok("get jobs,pods -o name")?, "");
        Ok(())
    })
}

/// kubectl knows from discovery that there is no such version; the server says which there is.
fn older_versions_are_refused(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let old = lesson.fill(CRON).replace("batch/v1", "batch/v1beta1");
    let refused = lesson.kubectl().feed("apply -f -", &old)?;
    let said = "no matches for kind \"CronJob\" in version \"batch/v1beta1\"";
    ensure!(!refused.success && refused.stderr.contains(said), "{refused:?}");
    let path = format!("/apis/batch/v1beta1/namespaces/{}/cronjobs", lesson.namespace);
    let refused = lesson.kubectl().run(&format!("get --raw {path}"))?;
    let said = "cronjobs are served as batch/v1, not as batch/v1beta1";
    ensure!(!refused.success && refused.stderr.contains(said), "{refused:?}");
    Ok(())
}

/// The active Jobs of a CronJob, by their uids.
fn active(policy: &str) -> String {
    format!("get cronjob {} -o jsonpath={{.status.active[*].uid}}", policy.to_lowercase())
}

fn the_next_while_one_runs(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let mut first = Vec::new();
    for policy in ["Forbid", "Replace", "Allow"] {
        lesson.apply(&OVERLAP.replace("NAME", &policy.to_lowercase()).replace("POLICY", policy))?;
        lesson.until(&active(policy), |found| !found.is_empty())?;
        first.push(lesson.ok(&active(policy))?);
    }
    let passed = "get events --field-selector=involvedObject.name=forbid,reason=JobAlreadyActive -o name";
    lesson.until(passed, |found| !found.is_empty())?;
    assert_eq!(lesson.ok(&active("Forbid"))?, first[0], "the first is the only one");
    assert_eq!(lesson.table("cronjob forbid")?[0]["ACTIVE"], "1");
    lesson.until(&active("Replace"), |found| !found.is_empty() && found != first[1])?;
    // No more, and the one that runs goes on.
    lesson.patch("cronjob/forbid", r#"{"spec":{"suspend":true}}"#)?;
    let row = lesson.table("cronjob forbid")?.remove(0);
    assert_eq!((row["SCHEDULE"].as_str(), row["SUSPEND"].as_str()), ("@every 1s", "True"));
    assert_eq!(lesson.ok(&active("Forbid"))?, first[0], "suspending ends none");
    Ok(())
}

/// A Job is named by its minute, so that the next one of a CronJob that is due more often comes with the next.
fn in_the_minute_after(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.until(&active("Allow"), |found| found.split_whitespace().count() > 1)?;
    assert_eq!(lesson.ok(&active("Forbid"))?.split_whitespace().count(), 1);
    // Of those that succeeded one is kept.
    let jobs = "get jobs -o jsonpath={.items[?(@.metadata.ownerReferences[0].name==\"often\")].metadata.name}";
    let made = "get events --field-selector=involvedObject.name=often,reason=SuccessfulCreate -o name";
    lesson.until(made, |found| found.lines().count() > 1)?;
    lesson.patch("cronjob/often", r#"{"spec":{"suspend":true}}"#)?;
    lesson.until(jobs, |found| found.split_whitespace().count() == 1)
}

fn by_hand(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    assert_eq!(lesson.ok("create job --from=cronjob/hello now")?, "job.batch/now created\n");
    lesson.wait("--for=condition=Complete job/now")?;
    assert_eq!(lesson.ok("logs job/now")?, "3.1415926535\n");
    let told = "get job now -o jsonpath={.metadata.annotations.cronjob\\.kubernetes\\.io/instantiate}";
    assert_eq!(lesson.ok(told)?, "manual");
    Ok(())
}

/// A real minute, most of which is over.
fn by_the_minute(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.wait("--for=jsonpath={.status.lastScheduleTime} cronjob/hello")?;
    let row = lesson.table("cronjob hello")?.remove(0);
    let shown = ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND"].map(|column| row[column].as_str());
    assert_eq!(shown, ["hello", "* * * * *", "Europe/Paris", "False"]);
    let at = lesson.ok("get cronjob hello -o jsonpath={.status.lastScheduleTime}")?;
    ensure!(at.ends_with(":00Z"), "{at}");
    let annotation = "{.metadata.annotations.batch\\.kubernetes\\.io/cronjob-scheduled-timestamp}";
    let jobs = lesson.words("jobs", &format!("{{range.items[*]}}{{.metadata.name}}={annotation}{{\"\\n\"}}{{end}}"))?;
    let scheduled = jobs.iter().find(|line| line.starts_with("hello-")).cloned().unwrap_or_default();
    let name = scheduled.split('=').next().unwrap_or_default();
    // At the minute, as the zone writes it, and named by it.
    ensure!(scheduled.contains("=20") && scheduled.contains(":00+0"), "{jobs:?}");
    lesson.wait(&format!("--for=condition=Complete job/{name}"))?;
    assert_eq!(lesson.ok(&format!("logs job/{name}"))?, "3.1415926535\n");
    Ok(())
}
