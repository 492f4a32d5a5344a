//! Figures, on the terminal and as lines of JSON.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use wherry_test::Cluster;

use crate::Setup;

/// One row: what was measured, and its figures by name.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was measured.
    pub what: String,
    /// Names (with units) and figures, in the order of the columns.
    pub figures: Vec<(&'static str, f64)>,
}

impl Report {
    /// A figure by its name.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|(_, figure)| *figure)
    }

    /// The spread of times.
    pub(crate) fn times(what: impl Into<String>, mut times: Vec<Duration>, cpu: Duration) -> Self {
        times.sort_unstable();
        #[allow(clippy::cast_precision_loss, reason = "counts of samples are small")]
        let count = times.len() as f64;
        let at = |share: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a length is an index"
            )]
            let rank = (count * share).ceil().max(1.0) as usize;
            times.get(rank - 1).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        let figures = vec![
            ("samples", count),
            ("p50 ms", at(0.5)),
            ("p90 ms", at(0.9)),
            ("p99 ms", at(0.99)),
            ("max ms", at(1.0)),
            ("cpu ms/op", cpu.as_secs_f64() * 1e3 / count),
        ];
        Self { what: what.into(), figures }
    }

    fn json(&self, benchmark: &str, setup: &Setup) -> Value {
        let mut line = json!({"benchmark": benchmark, "what": self.what, "binary": setup.wherry});
        for (name, figure) in &self.figures {
            line[name.replace([' ', '/'], "_")] = json!(figure);
        }
        line
    }
}

/// Processor time that the cluster's process has used, in user and in system.
pub(crate) fn cpu_time(cluster: &Cluster) -> anyhow::Result<Duration> {
    let id = cluster.process().context("the cluster does not run")?.id();
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // Behind the command's name, which may hold anything: fields 14 and 15, in hundredths of a second.
    let rest = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Memory that the cluster's process has for itself, bytes: anonymous pages, not the binary's own or those of mapped files.
pub(crate) fn memory(cluster: &Cluster) -> anyhow::Result<f64> {
    let id = cluster.process().context("the cluster does not run")?.id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("/proc/PID/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// Prints the table and appends the lines.
pub(crate) fn publish(benchmark: &str, setup: &Setup, reports: &[Report]) -> anyhow::Result<()> {
    let mut columns = Vec::new();
    for report in reports {
        let names: Vec<&str> = report.figures.iter().map(|(name, _)| *name).collect();
        if names != columns {
            print!("{benchmark:<32}");
            names.iter().for_each(|name| print!("{name:>12}"));
            println!();
            columns = names;
        }
        print!("{:<32}", report.what);
        for (_, figure) in &report.figures {
            let digits = if figure.fract() == 0.0 { 0 } else { 2 };
            print!("{figure:>12.digits$}");
        }
        println!();
    }
    if reports.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&setup.out)?;
    let path = setup.out.join(format!("{benchmark}.jsonl"));
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    for report in reports {
        writeln!(file, "{}", report.json(benchmark, setup))?;
    }
    println!("({})", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let report = Report::times("x", times, Duration::from_secs(1));
        let figures = ["samples", "p50 ms", "p99 ms", "max ms", "cpu ms/op"].map(|name| report.figure(name));
        assert_eq!(figures, [200.0, 100.0, 198.0, 200.0, 5.0].map(Some));
        assert_eq!(Report::times("x", vec![Duration::from_millis(7)], Duration::ZERO).figure("p50 ms"), Some(7.0));
    }
}
