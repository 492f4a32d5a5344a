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
        replicas: 20,
        seconds: 1,
    };
    for name in BENCHMARKS {
        let reports = run(name, &setup).await?;
        let lines = std::fs::read_to_string(out.path().join(format!("{name}.jsonl"))).unwrap_or_default();
        assert_eq!(lines.lines().count(), reports.len());
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let figures: Vec<f64> = line.as_object().unwrap().values().filter_map(serde_json::Value::as_f64).collect();
            assert!(figures.iter().any(|figure| *figure > 0.0), "{line}");
        }
    }
    Ok(())
}
