//! Many starts, stops and executions of each kind leave the machine as it was. `WHERRY_STARTS`: how many of each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use wherry_test::{Cluster, image_of, is_root, wasm_layout};

use crate::footprint::{Footprint, memory, no_more_than};

/// By default, and before anything is counted.
const FEW: usize = 20;
/// Pods under way at once, and executions.
const AT_ONCE: usize = 8;
const LONG: Duration = Duration::from_secs(3000);
/// Memory that a cluster may take beside what it keeps of each start.
const SLACK_KIB: u64 = 24 << 10;
/// What it keeps of a start: every change of the Pod and its Job, for the ten minutes (or 128 MiB) that watches can go back, and
/// the Events for an hour. Kernel objects and open files are compared exactly; of memory this is a coarse guard.
const A_START_KIB: u64 = 256;

/// Ends at once.
const ENDS: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
/// Reads its input, which has no end while nobody attaches.
const WAITS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (i32.store (i32.const 8) (i32.const 64))
        (i32.store (i32.const 12) (i32.const 64))
        (if (i32.lt_u (i32.load (i32.const 0)) (i32.const 2))
            (then (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))))))"#;

struct Kind {
    name: &'static str,
    ends: &'static str,
    waits: &'static str,
    /// An execution that ends at once.
    exec: &'static [&'static str],
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "wasm",
        ends: "image: test.wherry.dev/ends:1",
        waits: "image: test.wherry.dev/waits:1, stdin: true",
        exec: &["waits", "end"],
    },
    Kind {
        name: "container",
        ends: "image: test.wherry.dev/box:1, args: [\"true\"]",
        waits: "image: test.wherry.dev/box:1, args: [cat], stdin: true",
        exec: &["/bin/busybox", "true"],
    },
];

struct Load<'a> {
    cluster: &'a Cluster,
    uids: Vec<String>,
}

impl Load<'_> {
    /// Pods that end by themselves.
    fn run(&mut self, kind: &Kind, count: usize) -> anyhow::Result<()> {
        let kubectl = self.cluster.kubectl();
        kubectl.apply(&format!(
            "
apiVersion: batch/v1
kind: Job
metadata: {{name: {}}}
spec:
  completions: {count}
  parallelism: {AT_ONCE}
  template:
    spec:
      restartPolicy: Never
      volumes: [{{name: data, emptyDir: {{}}}}, {{name: memory, emptyDir: {{medium: Memory}}}}]
      containers:
      - {{name: main, imagePullPolicy: IfNotPresent, {}, volumeMounts: [{{name: data, mountPath: /data, subPath: a}}, {{name: memory, mountPath: /memory}}]}}
",
            kind.name, kind.ends
        ))?;
        let (line, end) = (format!("--for=condition=Complete job/{}", kind.name), Instant::now() + LONG);
        // One kubectl of the tests may take a minute and a half.
        while let Err(error) = kubectl.wait(&line, wherry_test::PATIENCE) {
            let failed =
                format!("get job {} -o jsonpath={{.status.conditions[?(@.type==\"Failed\")].message}}", kind.name);
            let failed = kubectl.ok(&failed)?;
            ensure!(failed.is_empty() && Instant::now() < end, "{error:#} {failed}");
        }
        let uids = kubectl.ok("get pods -o jsonpath={.items[*].metadata.uid}")?;
        self.uids.extend(uids.split_whitespace().map(str::to_owned));
        kubectl.ok(&format!("delete job {} --cascade=foreground", kind.name)).map(drop)
    }

    /// Executions in one Pod that runs.
    fn execute(&mut self, kind: &Kind, count: usize) -> anyhow::Result<()> {
        let kubectl = self.cluster.kubectl();
        kubectl.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, imagePullPolicy: IfNotPresent, {}}}]
",
            kind.name, kind.waits
        ))?;
        kubectl.wait(&format!("--for=condition=Ready pod/{}", kind.name), wherry_test::PATIENCE)?;
        // By one client: a kubectl a time would take most of the time, and of the machine.
        tokio::runtime::Runtime::new()?.block_on(executions(self.cluster, kind, count))?;
        self.uids.push(kubectl.ok(&format!("get pod {} -o jsonpath={{.metadata.uid}}", kind.name))?);
        kubectl.ok(&format!("delete pod {}", kind.name)).map(drop)
    }
}

/// Runs a command so many times, and waits for the end of each.
async fn executions(cluster: &Cluster, kind: &Kind, count: usize) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await?);
    let once = |pods: Api<Pod>| async move {
        let mut process = pods.exec(kind.name, kind.exec.iter().copied(), &AttachParams::default()).await?;
        let status = process.take_status().context("no status is told")?;
        let (mut stdout, mut stderr) = (process.stdout().context("no stdout")?, process.stderr().context("no stderr")?);
        let (mut one, mut other) = (tokio::io::sink(), tokio::io::sink());
        tokio::try_join!(tokio::io::copy(&mut stdout, &mut one), tokio::io::copy(&mut stderr, &mut other))?;
        let status = status.await.context("its end was not told")?;
        process.join().await?;
        ensure!(status.status.as_deref() == Some("Success"), "{status:?}");
        anyhow::Ok(())
    };
    futures::stream::iter((0..count).map(|_| once(pods.clone()))).buffer_unordered(AT_ONCE).try_collect().await
}

#[test]
fn starts_and_executions_leave_the_machine_as_it_was() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let count: usize = std::env::var("WHERRY_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW);
    let cluster = Cluster::start(crate::options())?;
    let programs = [("/bin/busybox", "/usr/bin/busybox")];
    cluster.load(&image_of("box", "/bin/busybox", &programs)?, "test.wherry.dev/box:1")?;
    for (name, text) in [("ends", ENDS), ("waits", WAITS)] {
        let file = cluster.scratch().join(format!("{name}.tar"));
        wasm_layout(&file, &wat::parse_str(text)?)?;
        cluster.load(&file, &format!("test.wherry.dev/{name}:1"))?;
    }
    let mut load = Load { cluster: &cluster, uids: Vec::new() };
    for kind in &KINDS {
        load.run(kind, FEW)?;
        load.execute(kind, FEW)?;
    }
    for kind in &KINDS {
        for (what, work) in [("starts", Load::run as fn(&mut _, _, _) -> _), ("executions", Load::execute)] {
            let (before, memory_before) = (Footprint::whole(&cluster, &load.uids)?, memory(&cluster)?);
            let begun = Instant::now();
            work(&mut load, kind, count).with_context(|| format!("{what} of {}", kind.name))?;
            no_more_than(&before, || Footprint::whole(&cluster, &load.uids))
                .with_context(|| format!("after {count} {what} of {}", kind.name))?;
            let memory_after = memory(&cluster)?;
            println!(
                "{count} {what} of {}: {:.1?}; {memory_before} KiB before, {memory_after} KiB after",
                kind.name,
                begun.elapsed()
            );
            let most = memory_before + SLACK_KIB + A_START_KIB * u64::try_from(count)?;
            ensure!(memory_after <= most, "{what} of {} left {memory_after} KiB, beyond {most}", kind.name);
        }
    }
    Ok(())
}
