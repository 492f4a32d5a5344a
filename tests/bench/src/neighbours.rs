//! What one Pod's requests take beside others that spin: without limits, and held to a hundredth of a core.

use std::fmt::Write as _;

use wherry_test::{Cluster, PATIENCE, is_root, wasm_layout};

use crate::Setup;
use crate::report::{Report, cpu_time};
use crate::requests::{measure, serve_hello};

const SPIN: &str = r#"(module (func (export "_start") (loop $l (br $l))))"#;
const IMAGE: &str = "bench.wherry.dev/spin:1";

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    if !is_root("entering the node's network") {
        return Ok(Vec::new());
    }
    let cluster = setup.cluster()?;
    let ip = serve_hello(&cluster)?;
    let file = cluster.scratch().join("spin.tar");
    wasm_layout(&file, &wat::parse_str(SPIN)?)?;
    cluster.load(&file, IMAGE)?;
    let mut reports = vec![measure(&cluster, "hello alone", &ip, setup.seconds).await?];
    for (what, spinners, limit) in
        [("beside 50 that spin", 50, ""), ("beside 100 of limits.cpu 10m", 100, "limits: {cpu: 10m}")]
    {
        start(&cluster, spinners, limit)?;
        reports.push(measure(&cluster, what, &ip, setup.seconds).await?);
        if !limit.is_empty() {
            let (before, began) = (cpu_time(&cluster)?, std::time::Instant::now());
            tokio::time::sleep(std::time::Duration::from_secs(setup.seconds)).await;
            let cores = (cpu_time(&cluster)? - before).as_secs_f64() / began.elapsed().as_secs_f64();
            reports.push(Report { what: "their cores in all".into(), figures: vec![("cores", cores)] });
        }
        cluster.kubectl().ok("delete pod -l app=spin --grace-period=0 --force --timeout=60s")?;
    }
    Ok(reports)
}

fn start(cluster: &Cluster, count: u32, limit: &str) -> anyhow::Result<()> {
    let mut manifests = String::new();
    for number in 0..count {
        write!(
            manifests,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: spin-{number}, labels: {{app: spin}}}}\nspec:\n  containers:\n  \
             - {{name: spin, image: \"{IMAGE}\", imagePullPolicy: IfNotPresent, resources: {{{limit}}}}}\n"
        )?;
    }
    cluster.kubectl().apply(&manifests)?;
    cluster.kubectl().wait("--for=condition=Ready pod -l app=spin", PATIENCE)
}
