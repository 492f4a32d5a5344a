//! How many requests hello answers through its Service's address, sent by wrk from inside the node's network.

use std::time::Duration;

use anyhow::{Context, ensure};
use wherry_test::{Cluster, PATIENCE, is_root, root, sample};

use crate::Setup;
use crate::inside::{CONNECTIONS, wrk};
use crate::report::{Report, cpu_time};

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    if !is_root("entering the node's network") {
        return Ok(Vec::new());
    }
    let cluster = setup.cluster()?;
    let ip = serve_hello(&cluster)?;
    let report = measure(&cluster, &format!("hello, {CONNECTIONS} connections"), &ip, setup.seconds).await?;
    Ok(vec![report])
}

/// Deploys the sample and waits until it answers; its Service's address.
pub(crate) fn serve_hello(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.load(&sample("hello"), "samples.wherry.dev/hello:1")?;
    let manifest = std::fs::read_to_string(root().join("samples/hello/manifest.yaml"))?;
    // What the node can do is asked for, not what the sample's limit allows.
    cluster.kubectl().apply(&manifest.replace("cpu: 100m, ", ""))?;
    cluster.kubectl().wait("--for=condition=Available deployment/hello", PATIENCE)?;
    // Any request shows that the Service's rules are there; the node port has the same.
    wherry_test::get(&cluster.url("hello")?, "/").context("hello does not answer")?;
    address(cluster, "hello")
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
