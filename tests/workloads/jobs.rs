//! Jobs and CronJobs whose Pods end by themselves: as modules and as programs.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::{Cluster, image_of, is_root, wasm_layout};

use crate::setting::{KINDS, LONG, cluster, words};

/// Writes its environment, and ends well.
const TELLS: &str = r#"(module
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start")
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $get (i32.const 16) (i32.const 4096)))
        (i32.store (i32.const 8) (i32.const 4096))
        (i32.store (i32.const 12) (i32.load (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))"#;
/// Ends with 3.
const FAILS: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 3))))"#;

/// What a kind runs: images, and arguments that only the program looks at.
struct Kind {
    name: &'static str,
    tells: &'static str,
    fails: &'static str,
}

const ENDING: [Kind; 2] = [
    Kind { name: "native", tells: "test.wherry.dev/box:1", fails: "test.wherry.dev/box:1" },
    Kind { name: "module", tells: "test.wherry.dev/tells:1", fails: "test.wherry.dev/fails:1" },
];

#[test]
fn jobs_and_cron_jobs() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    cluster
        .load(&image_of("box", "/bin/busybox", &[("/bin/busybox", "/usr/bin/busybox")])?, "test.wherry.dev/box:1")?;
    for (name, text) in [("tells", TELLS), ("fails", FAILS)] {
        let file = cluster.scratch().join(format!("{name}.tar"));
        wasm_layout(&file, &wat::parse_str(text)?)?;
        cluster.load(&file, &format!("test.wherry.dev/{name}:1"))?;
    }
    for kind in &ENDING {
        indexes_are_told_and_completed(&cluster, kind)?;
        failures_are_counted(&cluster, kind)?;
        a_cron_job_starts_jobs(&cluster, kind)?;
    }
    for (name, image) in KINDS {
        a_running_job_leaves_nothing(&cluster, name, image)?;
    }
    Ok(())
}

fn job(name: &str, spec: &str, image: &str, arguments: &str) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  {spec}
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: main, image: {image}, imagePullPolicy: IfNotPresent, args: {arguments}}}]
"
    )
}

fn indexes_are_told_and_completed(cluster: &Cluster, kind: &Kind) -> anyhow::Result<()> {
    let (kubectl, name) = (cluster.kubectl(), format!("{}-parts", kind.name));
    kubectl.apply(&job(&name, "completions: 3\n  parallelism: 2\n  completionMode: Indexed", kind.tells, "[env]"))?;
    kubectl.wait(&format!("--for=condition=Complete job/{name}"), LONG)?;
    let status = kubectl.json(&format!("get job {name}"))?["status"].clone();
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&3.into(), &"0-2".into()), "{status}");
    assert_eq!(status["uncountedTerminatedPods"], serde_json::json!({}), "{status}");
    for index in 0..3 {
        let label = format!("job-name={name},batch.kubernetes.io/job-completion-index={index}");
        let logs = kubectl.ok(&format!("logs -l {label}"))?;
        assert!(logs.contains(&format!("JOB_COMPLETION_INDEX={index}")), "{logs:?}");
    }
    let left = words(cluster, &format!("pods -l job-name={name}"), "{.items[*].metadata.finalizers}")?;
    assert!(left.is_empty(), "{left:?}");
    // It goes when its time is over, and its Pods with it.
    let patch = r#"{"spec":{"ttlSecondsAfterFinished":0}}"#;
    assert!(kubectl.arguments(&["patch", "job", &name, "-p", patch], "")?.success);
    kubectl.wait(&format!("--for=delete job/{name}"), LONG)?;
    assert_eq!(kubectl.ok(&format!("get pods -l job-name={name} -o name"))?, "");
    Ok(())
}

fn failures_are_counted(cluster: &Cluster, kind: &Kind) -> anyhow::Result<()> {
    let (kubectl, name) = (cluster.kubectl(), format!("{}-fails", kind.name));
    let exit = "[sh, -c, exit 3]";
    kubectl.apply(&job(&name, "backoffLimit: 0", kind.fails, exit))?;
    kubectl.wait(&format!("--for=condition=Failed job/{name}"), LONG)?;
    let status = kubectl.json(&format!("get job {name}"))?["status"].clone();
    assert_eq!(status["failed"], 1, "{status}");
    assert!(status["conditions"].to_string().contains("BackoffLimitExceeded"), "{status}");
    // A policy gives up at once where it is told what the exit code means.
    let policy = "backoffLimit: 6
  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {containerName: main, operator: In, values: [3]}}]}";
    kubectl.apply(&job(&format!("{name}-by-policy"), policy, kind.fails, exit))?;
    kubectl.wait(&format!("--for=condition=Failed job/{name}-by-policy"), LONG)?;
    let status = kubectl.json(&format!("get job {name}-by-policy"))?["status"].clone();
    let why = status["conditions"].to_string();
    assert!(
        why.contains("PodFailurePolicy") && why.contains("failed with exit code 3 matching FailJob rule at index 0"),
        "{why}"
    );
    kubectl.ok(&format!("delete job {name} {name}-by-policy --cascade=foreground"))?;
    assert_eq!(kubectl.ok(&format!("get pods -l job-name={name} -o name"))?, "");
    Ok(())
}

fn a_cron_job_starts_jobs(cluster: &Cluster, kind: &Kind) -> anyhow::Result<()> {
    let (kubectl, name) = (cluster.kubectl(), format!("{}-tick", kind.name));
    kubectl.apply(&format!(
        "apiVersion: batch/v1
kind: CronJob
metadata: {{name: {name}}}
spec:
  schedule: '@every 1s'
  timeZone: Europe/Paris
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: 1
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{{name: main, image: {}, imagePullPolicy: IfNotPresent, args: [env]}}]
",
        kind.tells
    ))?;
    kubectl.wait(&format!("--for=jsonpath={{.status.lastSuccessfulTime}} cronjob/{name}"), LONG)?;
    kubectl.ok(&format!("create job --from=cronjob/{name} {name}-by-hand"))?;
    kubectl.wait(&format!("--for=condition=Complete job/{name}-by-hand"), LONG)?;
    kubectl.ok(&format!("delete cronjob {name} --cascade=foreground"))?;
    let left = words(cluster, "jobs", "{.items[*].metadata.name}")?;
    assert!(!left.iter().any(|job| job.starts_with(&name)), "{left:?}");
    Ok(())
}

/// A server is no work that ends: the Job runs until it is suspended, resumed and deleted.
fn a_running_job_leaves_nothing(cluster: &Cluster, name: &str, image: &str) -> anyhow::Result<()> {
    let (kubectl, name) = (cluster.kubectl(), format!("{name}-serves"));
    kubectl.apply(&job(&name, "backoffLimit: 0", image, "[]"))?;
    kubectl.wait(&format!("--for=jsonpath={{.status.ready}}=1 job/{name}"), LONG)?;
    let suspend = |value: bool| format!(r#"{{"spec":{{"suspend":{value}}}}}"#);
    assert!(kubectl.arguments(&["patch", "job", &name, "-p", &suspend(true)], "")?.success);
    kubectl.wait(&format!("--for=delete pods -l job-name={name}"), LONG)?;
    assert!(kubectl.arguments(&["patch", "job", &name, "-p", &suspend(false)], "")?.success);
    kubectl.wait(&format!("--for=jsonpath={{.status.ready}}=1 job/{name}"), LONG)?;
    assert_eq!(kubectl.ok(&format!("get job {name} -o jsonpath={{.status.failed}}"))?, "");
    kubectl.ok(&format!("delete job {name}"))?;
    kubectl.wait(&format!("--for=delete pods -l job-name={name}"), LONG)
}
