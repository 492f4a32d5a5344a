//! How many requests a component answers through its Service's address, beside the same under `wasmtime serve` and beside hyper alone.
//!
//! Ours is asked from inside the node's network, through the Service's rules; the others directly, on loopback. wrk keeps its
//! connections and sends as fast as it is answered; at half of that rate, threads of ours tell how long an answer takes from when it was
//! due. What asks shares the processors with what answers: the processor time of one answer is the server's alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use wherry_test::{Child, Cluster, PATIENCE, is_root, root, sample};

use crate::Setup;
use crate::inside::{CONNECTIONS, inside, wrk, wrk_here};
use crate::load::{self, Connection};
use crate::peer::free_port;
use crate::process;
use crate::report::{Column, Report, cpu_time};

/// The large body.
const LARGE: usize = 64 << 10;
const LARGE_PATH: &str = "/env?name=BODY";
/// Each Pod is asked so often in turn.
const ROUNDS: usize = 4;

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Column>> {
    if !is_root("entering the node's network") {
        return Ok(Vec::new());
    }
    let mut columns = vec![Column::from(ours(setup).await?)];
    if let Some(bin) = &setup.peers {
        let wasmtime = bin.join("wasmtime");
        let serve = |sample: PathBuf| {
            let wasmtime = wasmtime.clone();
            move |port: u16| {
                let mut command = Command::new("sh");
                let address = format!("127.0.0.1:{port}");
                // What a guest prints is kept by nobody.
                command.args(["-c", r#"exec "$0" "$@" >/dev/null 2>&1"#]).arg(&wasmtime);
                command.args(["serve", "--addr", &address, "-S", "cli", "--env", &format!("BODY={}", large())]);
                command.arg(&sample);
                command
            }
        };
        let (hello, echo) = (serve(sample("hello")), serve(sample("echo")));
        columns.push(beside(setup, "wasmtime serve", &hello, &echo).await?);
        let bare = |port: u16| {
            let mut command = Command::new(bin.join("bare-server"));
            command.args([port.to_string(), LARGE.to_string()]);
            command
        };
        columns.push(beside(setup, "hyper alone", &bare, &bare).await?);
    }
    Ok(columns)
}

fn large() -> String {
    "x".repeat(LARGE)
}

async fn ours(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let cluster = setup.cluster()?;
    let ip = serve_hello(&cluster)?;
    let mut reports = vec![measure(&cluster, &small_name(), &ip, setup.seconds).await?];
    let (rate, length) = (half(&reports[0])?, Duration::from_secs(setup.seconds));
    let (service, before) = (SocketAddr::new(ip.parse()?, 80), cpu_time(&cluster)?);
    let times = inside(&cluster, move || load::steady(service, "/", rate, length)).await?;
    reports.push(Report::times(HALF, times, cpu_time(&cluster)?.saturating_sub(before)));

    let ip = serve_large(&cluster)?;
    let before = cpu_time(&cluster)?;
    let output = wrk(&cluster, &format!("http://{ip}{LARGE_PATH}"), setup.seconds).await?;
    let cpu = cpu_time(&cluster)?.saturating_sub(before);
    reports.push(read(&large_name(), &output, cpu).with_context(|| format!("wrk: {output}"))?);

    for (what, replicas) in [("one Pod", 1), ("Pods in turn", setup.in_turn)] {
        let addresses = many(&cluster, replicas).await?;
        let requests = setup.in_turn * ROUNDS;
        let before = cpu_time(&cluster)?;
        let (times, took) = inside(&cluster, move || load::in_turn(&addresses, requests)).await?;
        let spread = Report::times("", times, cpu_time(&cluster)?.saturating_sub(before));
        let mut figures = vec![("requests/s", (requests as f64) / took.as_secs_f64())];
        figures.extend(spread.figures.into_iter().filter(|(name, _)| ["p50 ms", "p99 ms", "cpu ms/op"].contains(name)));
        let what = if replicas == 1 { what.to_owned() } else { format!("{replicas} {what}") };
        reports.push(Report { what: format!("{what}, a connection each"), figures });
    }
    Ok(reports)
}

const HALF: &str = "hello, at half of that rate";

fn small_name() -> String {
    format!("hello, {CONNECTIONS} connections")
}

fn large_name() -> String {
    format!("{} KiB, {CONNECTIONS} connections", LARGE >> 10)
}

fn half(report: &Report) -> anyhow::Result<f64> {
    Ok(report.figure("requests/s").context("no rate")? / 2.0)
}

/// The same of a server on loopback, which `small` and `large` start on a port.
async fn beside(
    setup: &Setup,
    name: &'static str,
    small: &dyn Fn(u16) -> Command,
    large: &dyn Fn(u16) -> Command,
) -> anyhow::Result<Column> {
    let mut reports = Vec::new();
    for (what, command, path) in [(small_name(), small, "/"), (large_name(), large, LARGE_PATH)] {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Child::start(name, &mut command(port))?;
        answering(&server, address, path).await?;
        let before = process::cpu_time(server.id())?;
        let output = wrk_here(&format!("http://{address}{path}"), setup.seconds).await?;
        let cpu = process::cpu_time(server.id())?.saturating_sub(before);
        let report = read(&what, &output, cpu).with_context(|| format!("wrk: {output}"))?;
        let (rate, length) = (half(&report)?, Duration::from_secs(setup.seconds));
        reports.push(report);
        if path == "/" {
            let before = process::cpu_time(server.id())?;
            let asked = tokio::task::spawn_blocking(move || load::steady(address, "/", rate, length));
            let times = asked.await??;
            reports.push(Report::times(HALF, times, process::cpu_time(server.id())?.saturating_sub(before)));
        }
    }
    Ok(Column { by: name, reports })
}

async fn answering(server: &Child, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let error = match Connection::open(address).map_err(anyhow::Error::from).and_then(|mut c| c.get(path)) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        ensure!(begun.elapsed() < PATIENCE, "{address} does not answer: {error:#}\n{}", server.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Deploys the sample and waits until it answers; its Service's address.
pub(crate) fn serve_hello(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.load(&sample("hello"), "samples.wherry.dev/hello:1")?;
    let manifest = std::fs::read_to_string(root().join("samples/hello/manifest.yaml"))?;
    // What the node can do is asked for, not what the sample's limit allows.
    cluster.kubectl().apply(&manifest.replace("cpu: 100m, ", ""))?;
    cluster.kubectl().wait("--for=condition=Available deployment/hello", PATIENCE)?;
    // Any request shows that the Service's rules are there; the node port has the same.
    wherry_test::get(&cluster.open_url("hello")?, "/").context("hello does not answer")?;
    address(cluster, "hello")
}

/// Deploys echo with a large variable, which it answers with; its Service's address.
fn serve_large(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.load(&sample("echo"), "samples.wherry.dev/echo:1")?;
    let manifest = std::fs::read_to_string(root().join("tests/bench/large.yaml"))?;
    cluster.kubectl().apply(&manifest.replace("BYTES", &large()))?;
    cluster.kubectl().wait("--for=condition=Available deployment/large", PATIENCE)?;
    let answer = wherry_test::get(&cluster.open_url("large")?, LARGE_PATH).context("echo does not answer")?;
    ensure!(answer.body.len() == LARGE, "{} bytes are answered", answer.body.len());
    address(cluster, "large")
}

/// Lets so many Pods of hello run behind no Service; where each listens.
pub(crate) async fn many(cluster: &Cluster, replicas: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let manifest = std::fs::read_to_string(root().join("tests/bench/many.yaml"))?;
    cluster.kubectl().apply(&manifest.replace("REPLICAS", &replicas.to_string()))?;
    let patience = PATIENCE * u32::try_from(replicas / 200 + 1)?;
    let available = format!("--for=jsonpath={{.status.availableReplicas}}={replicas} deployment/many");
    cluster.kubectl().wait(&available, patience)?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await?);
    let all = pods.list(&ListParams::default().labels("app=many")).await?;
    let ips = all.items.into_iter().filter_map(|pod| pod.status?.pod_ip);
    let addresses: Vec<SocketAddr> =
        ips.map(|ip| Ok(SocketAddr::new(ip.parse()?, 8080))).collect::<anyhow::Result<_>>()?;
    ensure!(addresses.len() == replicas, "{} of {replicas} Pods have addresses", addresses.len());
    Ok(addresses)
}

/// A Service's address.
pub(crate) fn address(cluster: &Cluster, service: &str) -> anyhow::Result<String> {
    let service = cluster.kubectl().json(&format!("get service {service}"))?;
    Ok(service["spec"]["clusterIP"].as_str().context("the Service has no address")?.to_owned())
}

/// Requests to `http://ip/` for some seconds.
pub(crate) async fn measure(cluster: &Cluster, what: &str, ip: &str, seconds: u64) -> anyhow::Result<Report> {
    let before = cpu_time(cluster)?;
    let output = wrk(cluster, &format!("http://{ip}/"), seconds).await?;
    let cpu = cpu_time(cluster)?.saturating_sub(before);
    read(what, &output, cpu).with_context(|| format!("wrk: {output}"))
}

/// The figures of wrk's report. An answer that is not 200, or none, makes it worthless.
fn read(what: &str, text: &str, cpu: Duration) -> anyhow::Result<Report> {
    let field = |start: &str, place: usize| {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(start))?;
        line.split_whitespace().nth(place).map(str::to_owned)
    };
    ensure!(field("Non-2xx", 0).is_none() && field("Socket errors", 0).is_none(), "some requests failed");
    let rate: f64 = field("Requests/sec:", 1).context("no rate")?.parse()?;
    let total: f64 = text
        .lines()
        .find(|line| line.contains("requests in"))
        .and_then(|line| line.split_whitespace().next())
        .context("no total")?
        .parse()?;
    let millis = |percent: &str| field(percent, 1).and_then(|text| milliseconds(&text)).context("no latency");
    let figures = vec![
        ("requests/s", rate.round()),
        ("p50 ms", millis("50%")?),
        ("p99 ms", millis("99%")?),
        ("requests", total),
        ("cpu us/op", cpu.as_secs_f64() * 1e6 / total),
    ];
    Ok(Report { what: what.to_owned(), figures })
}

/// wrk's `812.00us`, `3.21ms`, `1.02s`.
fn milliseconds(text: &str) -> Option<f64> {
    [("us", 1e-3), ("ms", 1.0), ("s", 1e3)]
        .iter()
        .find_map(|(unit, scale)| text.strip_suffix(unit)?.parse::<f64>().ok().map(|value| value * scale))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const TEXT: &str = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  Latency Distribution\n     50%  812.00us\n     75%    1.00ms\n     \
                        90%    2.00ms\n     99%    3.21ms\n  5000 requests in 1.00s, 1.00MB read\nRequests/sec:   4999.60\nTransfer/sec:      1.00MB\n";

    #[test]
    fn wrk_is_understood() {
        let report = read("x", TEXT, Duration::from_secs(1)).unwrap();
        let figures = ["requests/s", "p50 ms", "p99 ms", "cpu us/op"].map(|name| report.figure(name).unwrap());
        assert_eq!(figures, [5000.0, 0.812, 3.21, 200.0]);
        assert!(
            read("x", &TEXT.replace("Requests/sec", "Non-2xx or 3xx responses: 3\nRequests/sec"), Duration::ZERO)
                .is_err()
        );
    }
}
