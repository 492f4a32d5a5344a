//! Jobs as the documentation's tasks show them: one that ends, a work queue, parts by number, what failures and successes mean,
//! and those that are suspended or end by themselves.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::Value;
use wherry_test::{image_of, is_root, root, wasm_layout};

use crate::lesson::{Lesson, play};
use crate::setting::cluster;

/// Ends with 42.
const FAILS: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 42))))"#;

/// Reads its input, which has no end while nobody attaches.
const WAITS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 8) (i32.const 64))
        (i32.store (i32.const 12) (i32.const 64))
        (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))))"#;

#[test]
fn jobs() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    let program = image_of("box", "/bin/busybox", &[("/bin/busybox", "/usr/bin/busybox")])?;
    for (name, text) in [("fails", FAILS), ("waits", WAITS)] {
        let module = cluster.scratch().join(format!("{name}.tar"));
        wasm_layout(&module, &wat::parse_str(text)?)?;
        cluster.load(&module, &format!("test.wherry.dev/{name}:component"))?;
        cluster.load(&program, &format!("test.wherry.dev/{name}:native"))?;
    }
    let redis = ["server", "cli"].map(|name| format!("/usr/bin/redis-{name}"));
    let redis = image_of("redis-cli", &redis[0], &[(&redis[0], &redis[0]), (&redis[1], &redis[1])])?;
    cluster.load(&redis, "samples.wherry.dev/redis:1")?;
    play(&cluster, "jobs", |lesson| {
        each_index_has_its_tries(lesson)?;
        one_that_ends(lesson)?;
        a_queue_is_emptied(lesson)?;
        parts_by_number(lesson)?;
        what_a_failure_means(lesson)?;
        an_eviction_is_no_failure(lesson)?;
        done_when_the_leader_is(lesson)?;
        each_index_has_had_its_tries(lesson)
    })
}

fn status(lesson: &Lesson<'_>, job: &str) -> anyhow::Result<Value> {
    Ok(lesson.kubectl().json(&format!("get job {job}"))?["status"].take())
}

/// The reason of a Job's condition.
fn reason(status: &Value, condition: &str) -> Option<String> {
    let found = status["conditions"].as_array()?.iter().find(|found| found["type"] == condition)?;
    found["reason"].as_str().map(str::to_owned)
}

fn one_that_ends(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    assert_eq!(lesson.apply(include_str!("tutorials/pi.yaml"))?, "job.batch/pi created\n");
    lesson.wait("--for=condition=Complete job/pi")?;
    let row = lesson.table("job pi")?.remove(0);
    assert_eq!(["NAME", "STATUS", "COMPLETIONS"].map(|column| row[column].as_str()), ["pi", "Complete", "1/1"]);
    let pods = lesson.words("pods -l batch.kubernetes.io/job-name=pi", "{.items[*].metadata.name}")?;
    ensure!(pods.len() == 1 && pods[0].starts_with("pi-"), "{pods:?}");
    let digits = lesson.ok("logs jobs/pi")?;
    ensure!(digits.starts_with("3.14159265358979323846") && digits.trim_end().ends_with("3421170679"), "{digits}");
    let told = lesson.ok("describe job pi")?;
    for line in [
        "0 Active (0 Ready) / 1 Succeeded / 0 Failed",
        "SuccessfulCreate",
        &format!("Created pod: {}", pods[0]),
        "Job completed",
    ] {
        ensure!(told.contains(line), "{line} is not in\n{told}");
    }
    Ok(())
}

/// Items go through a real redis; workers take them until none is left.
fn a_queue_is_emptied(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let manifest = std::fs::read_to_string(root().join("samples/worker/manifest.yaml"))?;
    lesson.apply(&manifest.replace("samples.wherry.dev/worker:wasm", "WORKER"))?;
    lesson.wait("--for=condition=Ready pod/redis")?;
    let items = ["apple", "banana", "cherry", "date", "fig", "grape", "lemon", "melon", "orange"];
    let redis = |line: &str| lesson.ok(&format!("exec redis -- /usr/bin/redis-cli {line}"));
    assert_eq!(redis(&format!("rpush fruit {}", items.join(" ")))?.trim(), "9");
    lesson.patch("job/workers", r#"{"spec":{"suspend":false}}"#)?;
    lesson.wait("--for=condition=Complete job/workers")?;
    assert_eq!(status(lesson, "workers")?["succeeded"], 2);
    assert_eq!(lesson.table("job workers")?[0]["COMPLETIONS"], "2/1 of 2");
    assert_eq!(redis("llen fruit:begun")?.trim(), "0");
    let done = redis("lrange fruit:done 0 -1")?;
    let mut done: Vec<_> = done.split_whitespace().collect();
    done.sort_unstable();
    assert_eq!(done, items, "each once");
    let logs = lesson.ok("logs -l app=workers --tail=-1")?;
    assert_eq!(logs.lines().filter(|line| line.starts_with("working on ")).count(), items.len(), "{logs}");
    assert_eq!(logs.lines().filter(|line| *line == "the queue is empty").count(), 2, "{logs}");
    Ok(())
}

fn parts_by_number(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.apply(include_str!("tutorials/indexed.yaml"))?;
    lesson.wait("--for=condition=Complete job/parts")?;
    let status = status(lesson, "parts")?;
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&5.into(), &"0-4".into()), "{status}");
    assert_eq!(status["uncountedTerminatedPods"], serde_json::json!({}), "{status}");
    for (index, part) in ["oof", "rab", "zab", "xuq", "zyx"].into_iter().enumerate() {
        let label = format!("job-name=parts,batch.kubernetes.io/job-completion-index={index}");
        assert_eq!(lesson.ok(&format!("logs -l {label}"))?.trim(), part);
        let names = lesson.words(&format!("pods -l {label}"), "{.items[*].metadata.name}")?;
        ensure!(names.len() == 1 && names[0].starts_with(&format!("parts-{index}-")), "{names:?}");
        assert_eq!(
            lesson.ok(&format!("get pod {} -o jsonpath={{.spec.hostname}}", names[0]))?,
            format!("parts-{index}")
        );
    }
    assert_eq!(lesson.words("pods -l job-name=parts", "{.items[*].metadata.finalizers}")?, [""; 0]);
    // It goes when its time is over, and its Pods with it.
    lesson.patch("job/parts", r#"{"spec":{"ttlSecondsAfterFinished":0}}"#)?;
    lesson.wait("--for=delete job/parts")?;
    lesson.wait("--for=delete pods -l job-name=parts")
}

fn what_a_failure_means(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.apply(include_str!("tutorials/failure-policy.yaml"))?;
    lesson.wait("--for=condition=Failed job/faulty")?;
    let failed = status(lesson, "faulty")?;
    assert_eq!(reason(&failed, "FailureTarget").as_deref(), Some("PodFailurePolicy"), "{failed}");
    let why = failed["conditions"].to_string();
    let said = format!("Container main for pod {}/faulty-", lesson.namespace);
    ensure!(why.contains(&said) && why.contains("failed with exit code 42 matching FailJob rule at index 1"), "{why}");
    // Without a policy, another try is made for every one that is allowed.
    let plain = include_str!("tutorials/pi.yaml")
        .replace("name: pi}", "name: tries}")
        .replace("backoffLimit: 4", "backoffLimit: 0");
    lesson.apply(&plain.replace("WORKER", "FAILS").replace("[pi, '100']", "[sh, -c, exit 42]"))?;
    lesson.wait("--for=condition=Failed job/tries")?;
    let failed = status(lesson, "tries")?;
    assert_eq!(failed["failed"], 1, "{failed}");
    assert_eq!(reason(&failed, "Failed").as_deref(), Some("BackoffLimitExceeded"), "{failed}");
    lesson.ok("delete job faulty tries --cascade=foreground")?;
    assert_eq!(lesson.ok("get pods -l job-name=faulty -o name")?, "");
    Ok(())
}

/// Evicted, suspended, resumed: the Job runs on and counts no failure, though it may have none.
fn an_eviction_is_no_failure(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let ready = "--for=jsonpath={.status.ready}=1 job/disrupted";
    lesson.wait(ready)?;
    let pods = || lesson.words("pods -l job-name=disrupted", "{.items[*].metadata.name}");
    let evicted = pods()?.remove(0);
    ensure!(lesson.evict(&evicted)?.success, "no budget speaks of it");
    lesson.wait(&format!("--for=delete pod/{evicted}"))?;
    lesson.wait(ready)?;
    ensure!(!pods()?.contains(&evicted), "another one");
    lesson.patch("job/disrupted", r#"{"spec":{"suspend":true}}"#)?;
    lesson.wait("--for=delete pods -l job-name=disrupted")?;
    assert_eq!(lesson.table("job disrupted")?[0]["STATUS"], "Suspended");
    lesson.patch("job/disrupted", r#"{"spec":{"suspend":false}}"#)?;
    lesson.wait(ready)?;
    let now = status(lesson, "disrupted")?;
    ensure!(now.get("failed").is_none() && reason(&now, "Failed").is_none(), "{now}");
    lesson.ok("delete job disrupted")?;
    lesson.wait("--for=delete pods -l job-name=disrupted")
}

fn done_when_the_leader_is(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.apply(include_str!("tutorials/success-policy.yaml"))?;
    lesson.wait("--for=condition=Complete job/leader")?;
    let done = status(lesson, "leader")?;
    assert_eq!((&done["succeeded"], &done["completedIndexes"]), (&1.into(), &"0".into()), "{done}");
    assert_eq!(reason(&done, "SuccessCriteriaMet").as_deref(), Some("SuccessPolicy"), "{done}");
    ensure!(done["conditions"].to_string().contains("Matched rules at index 0"), "{done}");
    Ok(())
}

fn each_index_has_its_tries(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    // The second tries come ten seconds after the first.
    lesson.apply(include_str!("tutorials/per-index.yaml")).map(drop)
}

fn each_index_has_had_its_tries(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.wait("--for=condition=Failed job/per-index")?;
    let failed = status(lesson, "per-index")?;
    let indexes = (&failed["completedIndexes"], &failed["failedIndexes"]);
    assert_eq!(indexes, (&"1,3,5".into(), &"0,2,4".into()), "{failed}");
    assert_eq!((&failed["succeeded"], &failed["failed"]), (&3.into(), &6.into()), "{failed}");
    assert_eq!(reason(&failed, "Failed").as_deref(), Some("FailedIndexes"), "{failed}");
    let tries = "{.items[*].metadata.annotations.batch\\.kubernetes\\.io/job-index-failure-count}";
    let counts: BTreeSet<String> = lesson.words("pods -l job-name=per-index", tries)?.into_iter().collect();
    assert_eq!(counts, BTreeSet::from(["0".to_owned(), "1".to_owned()]));
    Ok(())
}
