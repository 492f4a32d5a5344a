//! The committed components of the samples are what their sources say: built again, they behave the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use wherry_test::{Answer, Cluster, Options, PATIENCE, get, is_root, root, sample};

const SERVED: [(&str, &[&str]); 3] = [
    ("hello", &["/", "/none"]),
    (
        "echo",
        &[
            "/healthz",
            "/env?name=NAME",
            "/env?name=NONE",
            "/sleep?ms=1",
            "/alloc?mb=2",
            "/read?path=/none",
            "/spin?ms=0",
            "/none",
        ],
    ),
    // Without its redis.
    ("guestbook", &["/", "/none"]),
];

#[test]
fn rebuilt_samples_behave_as_the_committed_ones() -> anyhow::Result<()> {
    if !is_root("a cluster that others can reach") || !has_toolchain() {
        return Ok(());
    }
    let work = tempfile::tempdir()?;
    let rebuilt = rebuild(work.path())?;
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    let kubectl = cluster.kubectl();
    for name in ["hello", "echo", "guestbook", "ticker"] {
        for (build, file) in [("committed", sample(name)), ("rebuilt", rebuilt(name))] {
            cluster.load(&file, &format!("samples.wherry.dev/{name}:{build}"))?;
            kubectl.apply(&manifest(name, build))?;
        }
    }
    kubectl.wait("--for=condition=Ready pod --all", PATIENCE)?;
    for (name, paths) in SERVED {
        let [committed, rebuilt] = ["committed", "rebuilt"].map(|build| cluster.url(&format!("{name}-{build}")));
        let (committed, rebuilt) = (committed?, rebuilt?);
        for path in paths {
            let (committed, rebuilt) = (answer(&committed, path)?, answer(&rebuilt, path)?);
            ensure!(committed == rebuilt, "{name} {path}: {committed:?} was committed, {rebuilt:?} is built");
        }
        let log = |build: &str| kubectl.ok(&format!("logs {name}-{build}"));
        ensure!(log("committed")? == log("rebuilt")?, "the logs of {name} differ");
    }
    let ticks = |build: &str| -> anyhow::Result<String> {
        let mut command = kubectl.command(["logs", "-f", &format!("ticker-{build}")]);
        wherry_test::Child::start("kubectl logs -f", &mut command)?.wait_for_line(PATIENCE, |_| true)
    };
    ensure!(ticks("committed")? == ticks("rebuilt")?, "the logs of ticker differ");
    let works = |build: &str, file: PathBuf| -> anyhow::Result<String> {
        cluster.load(&file, &format!("samples.wherry.dev/worker:{build}"))?;
        kubectl
            .ok(&format!("run worker-{build} --image=samples.wherry.dev/worker:{build} --restart=Never -- pi 50"))?;
        kubectl.wait(&format!("--for=jsonpath={{.status.phase}}=Succeeded pod/worker-{build}"), PATIENCE)?;
        kubectl.ok(&format!("logs worker-{build}"))
    };
    let (committed, rebuilt) = (works("committed", sample("worker"))?, works("rebuilt", rebuilt("worker"))?);
    ensure!(committed == rebuilt && committed.starts_with("3.14"), "{committed:?} was committed, {rebuilt:?} is built");
    Ok(())
}

fn has_toolchain() -> bool {
    let shell = "rustc --print target-libdir --target wasm32-wasip2 2>/dev/null | xargs -r test -d || dpkg -s rustc-web cargo-web rust-web-src lld-19 >/dev/null 2>&1";
    let found = Command::new("sh").args(["-c", shell]).status().is_ok_and(|status| status.success());
    if !found {
        eprintln!("left out: rebuilding the samples needs the WebAssembly toolchain; samples/build.sh installs it");
    }
    found
}

/// Builds a copy of the sources; where each component lies.
fn rebuild(work: &Path) -> anyhow::Result<impl Fn(&str) -> PathBuf> {
    let copied = Command::new("sh")
        .args(["-c", r#"tar -C "$0" -cf - --exclude=samples/target --exclude='*.wasm' samples tests/install.sh | tar -C "$1" -xf -"#])
        .arg(root())
        .arg(work)
        .status()?;
    ensure!(copied.success(), "cannot copy the samples");
    // The dependencies' builds are kept between runs.
    let target = std::env::current_exe()?.ancestors().nth(3).context("no target directory")?.join("samples-rebuilt");
    let built = Command::new(work.join("samples/build.sh")).arg("wasm").env("OUT", &target).output()?;
    ensure!(built.status.success(), "samples/build.sh: {}", String::from_utf8_lossy(&built.stderr));
    let samples = work.join("samples");
    Ok(move |name: &str| samples.join(name).join(format!("{name}.wasm")))
}

fn manifest(name: &str, build: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}-{build}, labels: {{app: {name}-{build}}}}}
spec:
  containers:
    - name: {name}
      image: samples.wherry.dev/{name}:{build}
      ports: [{{containerPort: 8080}}]
      env: [{{name: NAME, value: sample}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}-{build}}}
spec:
  type: NodePort
  selector: {{app: {name}-{build}}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

/// Services follow their Pods with a delay of which nothing tells, so that no connection means: again.
fn answer(address: &str, path: &str) -> anyhow::Result<Answer> {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match get(address, path) {
            Ok(answer) => return Ok(answer),
            Err(error) if std::time::Instant::now() > end => return Err(error).context(path.to_owned()),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
}
