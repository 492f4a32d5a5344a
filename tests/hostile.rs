//! Broken and hostile modules: each ends as a container state and an Event that say what was wrong, and goes when it is deleted;
//! a well-behaved Pod beside them never fails, and the node keeps its Lease.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "hostile/bystander.rs"]
mod bystander;
#[path = "hostile/modules.rs"]
mod modules;

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bystander::Bystander;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use modules::{End, Module};
use serde_json::Value;
use wherry_test::{Answer, Child, Cluster, Kubectl, Options, PATIENCE, get, root, sample, wasm_layout};

/// A node renews its Lease this often.
const LEASE_EVERY: Duration = Duration::from_secs(10);

#[test]
fn nobody_notices_those_that_mean_harm() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    let kubectl = cluster.kubectl();
    let bystander = bystander(&cluster)?;

    let modules = modules::all();
    let mut manifests = String::new();
    for module in &modules {
        load(&cluster, module.name, &module.bytes)?;
        manifests.push_str(&pod(module.name, "", "16Mi"));
    }
    load(&cluster, "huge", &modules::huge())?;
    // Compiled while the others do their worst; it is deleted below whether it has come to run or not.
    manifests.push_str(&pod("huge", "", "16Mi"));
    kubectl.apply(&manifests)?;
    for module in &modules {
        check(&kubectl, module).with_context(|| module.name)?;
    }
    lease_goes_on(&kubectl)?;
    goes(&kubectl)?;

    let tally = bystander.stop();
    assert!(tally.answered > 0 && tally.failed.is_empty(), "{} answered, failed: {:?}", tally.answered, tally.failed);
    Ok(())
}

#[test]
fn requests_that_mean_harm_end_alone() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    let kubectl = cluster.kubectl();
    let bystander = bystander(&cluster)?;
    cluster.load(&root().join("runtimes/wasm/tests/fixtures/probe/probe.wasm"), "hostile.test/probe:1")?;
    kubectl.apply(&pod("probe", "ports: [{containerPort: 8080}]", "32Mi"))?;
    kubectl.ok("expose pod probe --port=80 --target-port=8080 --type=NodePort")?;
    kubectl.wait("--for=condition=Ready pod/probe", PATIENCE)?;
    let address = cluster.open_url("probe")?;

    assert_eq!(get_ready(&address, "/trap")?.status, 500);
    assert_eq!(get(&address, "/")?.status, 200, "the trap of one request was the end of all");
    let log = kubectl.ok("logs probe")?;
    assert!(log.contains("GET /trap failed:") && log.contains("unreachable"), "{log}");

    let endless: Vec<TcpStream> = (0..4).map(|_| endless_request(&address)).collect::<Result<_, _>>()?;
    assert_eq!(get(&address, "/")?.status, 200, "endless requests keep others from being answered");
    forbidden_connections(&cluster, &address)?;
    lease_goes_on(&kubectl)?;

    // Their answers may be lost: they end the container.
    let _ = get(&address, "/exit");
    kubectl
        .wait(r"--for=jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}=3 pod/probe", PATIENCE)?;
    kubectl.wait("--for=condition=Ready pod/probe", PATIENCE)?;
    get_ready(&address, "/")?;
    let _ = get(&address, "/alloc?mb=64");
    kubectl.wait(
        r"--for=jsonpath={.status.containerStatuses[0].lastState.terminated.reason}=OOMKilled pod/probe",
        PATIENCE,
    )?;
    drop(endless);

    // An endless request does not keep it from being deleted.
    kubectl.wait("--for=condition=Ready pod/probe", PATIENCE)?;
    get_ready(&address, "/")?;
    let mut endless = endless_request(&address)?;
    goes(&kubectl)?;
    let mut rest = Vec::new();
    let _ = endless.read_to_end(&mut rest);
    assert!(rest.is_empty(), "an endless request was answered");

    let tally = bystander.stop();
    assert!(tally.answered > 0 && tally.failed.is_empty(), "{} answered, failed: {:?}", tally.answered, tally.failed);
    Ok(())
}

/// What the leases themselves say: the node was late with none by 2 s, though it runs 50 guests that never pause.
#[test]
fn spinning_pods_delay_no_lease() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    let kubectl = cluster.kubectl();
    load(&cluster, "spin", &wat::parse_str(r#"(module (func (export "_start") (loop $l (br $l))))"#)?)?;
    let manifests: String = (0..50)
        .map(|n| pod(&format!("spin-{n}"), "", "16Mi").replace(&format!("test/spin-{n}:"), "test/spin:"))
        .collect();
    kubectl.apply(&manifests)?;
    kubectl.wait("--for=condition=Ready pod -l hostile=true", PATIENCE)?;
    let line = "-o=jsonpath={.spec.renewTime}{\"\\n\"}";
    let mut command = kubectl.command(["get", "lease", "wherry-0", "-n", "kube-node-lease", "--watch", line]);
    let mut watch = Child::start("kubectl get lease", &mut command)?;
    let at = |text: &str| -> anyhow::Result<i64> {
        Ok(serde_json::from_value::<MicroTime>(text.into())?.0.as_millisecond())
    };
    let mut last = watch.wait_for_line(PATIENCE, |line| !line.is_empty())?;
    for _ in 0..3 {
        let next = watch.wait_for_line(PATIENCE, |line| line > last.as_str())?;
        let late = at(&next)? - at(&last)? - LEASE_EVERY.as_millis() as i64;
        ensure!(late < 2000, "{last} > {next}: {late} ms late");
        last = next;
    }
    goes(&kubectl)
}

/// hello, deployed as a user would, and asked from now on.
fn bystander(cluster: &Cluster) -> anyhow::Result<Bystander> {
    cluster.load(&sample("hello"), "samples.wherry.dev/hello:1")?;
    cluster.kubectl().apply(&std::fs::read_to_string(root().join("samples/hello/manifest.yaml"))?)?;
    cluster.kubectl().wait("--for=condition=Available deployment/hello", PATIENCE)?;
    Ok(Bystander::ask(cluster.open_url("hello")?))
}

/// As an OCI layout: its tool does not look at what the layer holds.
fn load(cluster: &Cluster, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let file = cluster.scratch().join(format!("{name}.tar"));
    wasm_layout(&file, bytes)?;
    cluster.load(&file, &format!("hostile.test/{name}:1"))
}

fn pod(name: &str, more: &str, memory: &str) -> String {
    let mut text = String::new();
    write!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{hostile: \"true\", app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 3\n  containers:\n  - name: main\n    image: hostile.test/{name}:1\n    \
         resources: {{limits: {{memory: {memory}}}}}\n    {more}\n"
    )
    .unwrap();
    text
}

/// The container's state, an Event and `kubectl describe` say what was wrong.
fn check(kubectl: &Kubectl, module: &Module) -> anyhow::Result<()> {
    let name = module.name;
    let of = |path: &str| format!("--for=jsonpath={{.status.containerStatuses[0].{path}}}");
    match module.end {
        End::Refused(reason) => {
            kubectl.wait(&format!("{}={reason} pod/{name}", of("state.waiting.reason")), PATIENCE)?;
            let status = status(kubectl, name)?;
            let waiting = &status["state"]["waiting"];
            ensure!(waiting["message"].as_str().is_some_and(|text| text.contains(module.message)), "{waiting}");
            ensure!(status["restartCount"] == 0 && status["started"] == false, "{status}");
            event(kubectl, name, "InspectFailed", module.message)?;
        }
        End::Fails(code, reason) => {
            kubectl.wait(&format!("{}={code} pod/{name}", of("lastState.terminated.exitCode")), PATIENCE)?;
            kubectl.wait(&format!("{}=CrashLoopBackOff pod/{name}", of("state.waiting.reason")), PATIENCE)?;
            let status = status(kubectl, name)?;
            let ended = &status["lastState"]["terminated"];
            ensure!(
                ended["reason"] == reason
                    && ended["message"].as_str().is_some_and(|text| text.contains(module.message)),
                "{ended}"
            );
            event(kubectl, name, "BackOff", "Back-off restarting failed container main in pod")?;
        }
        End::Runs => {
            kubectl.wait(&format!("{}=true pod/{name}", of("started")), PATIENCE)?;
            return Ok(());
        }
    }
    let described = kubectl.ok(&format!("describe pod {name}"))?;
    ensure!(described.contains(module.message), "{described}");
    Ok(())
}

fn status(kubectl: &Kubectl, name: &str) -> anyhow::Result<Value> {
    Ok(kubectl.json(&format!("get pod {name}"))?["status"]["containerStatuses"][0].clone())
}

/// Events are written behind: the first that says so, by a watch.
fn event(kubectl: &Kubectl, name: &str, reason: &str, message: &str) -> anyhow::Result<()> {
    let selector = format!("involvedObject.name={name},reason={reason}");
    let line = "-o=jsonpath={.message}{\"\\n\"}";
    let mut command = kubectl.command(["get", "events", "--watch", "--field-selector", &selector, line]);
    Child::start("kubectl get events", &mut command)?.wait_for_line(PATIENCE, |line| line.contains(message)).map(drop)
}

/// The node is heard of twice more.
fn lease_goes_on(kubectl: &Kubectl) -> anyhow::Result<()> {
    let line = "-o=jsonpath={.spec.renewTime}{\"\\n\"}";
    let mut command = kubectl.command(["get", "lease", "wherry-0", "-n", "kube-node-lease", "--watch", line]);
    let mut watch = Child::start("kubectl get lease", &mut command)?;
    let mut last = watch.wait_for_line(PATIENCE, |line| !line.is_empty())?;
    for _ in 0..2 {
        last = watch.wait_for_line(PATIENCE, |line| line > last.as_str())?;
    }
    let ready = kubectl.ok("get node wherry-0 -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}")?;
    ensure!(ready == "True", "the node is Ready: {ready}");
    Ok(())
}

/// All of them go when they are deleted.
fn goes(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok("delete pod -l hostile=true --timeout=60s").map(drop)
}

/// As [`get`], once the Service's rules have followed the Pod's readiness.
fn get_ready(address: &str, path: &str) -> anyhow::Result<Answer> {
    let limit = Instant::now() + PATIENCE;
    loop {
        match get(address, path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < limit => {
                std::thread::sleep(Duration::from_millis(20))
            }
            answer => return answer.with_context(|| format!("GET {path}")),
        }
    }
}

/// A request that is never answered; its connection.
fn endless_request(address: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /spin HTTP/1.1\r\nhost: probe\r\n\r\n")?;
    Ok(stream)
}

/// What listens on this machine and not in the Pod's network cannot be reached from it.
fn forbidden_connections(cluster: &Cluster, address: &str) -> anyhow::Result<()> {
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig())?;
    let api = kubeconfig.split("https://127.0.0.1:").nth(1).context("no server in the kubeconfig")?;
    let api: String = api.chars().take_while(char::is_ascii_digit).collect();
    let ours = TcpListener::bind("0.0.0.0:0")?;
    let SocketAddr::V4(here) = ours.local_addr()? else { unreachable!("it was bound to an IPv4 address") };
    let attempts = [
        (format!("127.0.0.1:{api}"), "connection-refused"),
        (format!("127.0.0.1:{}", here.port()), "connection-refused"),
        (format!("127.0.0.2:{}", here.port()), ""),
        (format!("0.0.0.0:{api}"), ""),
        (format!("[::1]:{api}"), ""),
        (format!("[::ffff:127.0.0.1]:{api}"), ""),
        ("169.254.169.254:80".to_owned(), "access-denied"),
        ("[::ffff:169.254.169.254]:80".to_owned(), ""),
        ("[fe80::1]:80".to_owned(), ""),
    ];
    for (to, problem) in attempts {
        let answer = get(address, &format!("/dial?to={to}")).with_context(|| to.clone())?;
        ensure!(answer.status == 502 && answer.body.contains(problem), "{to}: {answer:?}");
    }
    ours.set_nonblocking(true)?;
    ensure!(ours.accept().is_err(), "a guest reached this process");
    let metadata = get(address, "/fetch?url=http://169.254.169.254/latest/meta-data")?;
    ensure!(metadata.status == 502, "{metadata:?}");
    Ok(())
}
