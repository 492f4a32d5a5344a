//! The benchmarks run and report; what they report is not judged here.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_bench::{BENCHMARKS, Setup, run};

#[tokio::test(flavor = "multi_thread")]
async fn benchmarks_run_and_report() -> anyhow::Result<()> {
    let out = tempfile::tempdir()?;
    let setup = Setup {
        wherry: env!("CARGO_BIN_EXE_wherry").into(),
        out: out.path().to_owned(),
        pods: 3,
        burst: 3,
        sustained: 5,
        images: 1,
        image_bytes: 100_000,
        idle_pods: 3,
        idle: 1,
        replicas: 20,
        commands: 3,
        in_turn: 5,
        scheduled: 60,
        rolled: 20,
        fake_nodes: 20,
        seconds: 1,
        peers: None,
    };
    for name in BENCHMARKS {
        let reports = run(name, &setup).await?.into_iter().map(|column| column.reports.len()).sum::<usize>();
        let lines = std::fs::read_to_string(out.path().join(format!("{name}.jsonl"))).unwrap_or_default();
        assert_eq!(lines.lines().count(), reports);
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let figures: Vec<f64> = line.as_object().unwrap().values().filter_map(serde_json::Value::as_f64).collect();
            assert!(figures.iter().any(|figure| *figure > 0.0), "{line}");
        }
    }
    // Not at the sizes that it is for: that the curves are drawn.
    wherry_bench::growth(&Setup { fake_nodes: 5, ..setup }, &[3]).await?;
    let read = |name: &str| std::fs::read_to_string(out.path().join(name));
    let (lines, svg, table) = (read("growth.jsonl")?, read("growth.svg")?, read("growth.md")?);
    assert!(lines.lines().count() >= 10, "{lines}");
    assert_eq!(svg.matches("<circle").count(), lines.lines().count());
    assert_eq!(svg.matches("<polyline").count(), table.lines().count() - 2, "{table}");
    Ok(())
}
