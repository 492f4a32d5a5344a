//! Figures, on the terminal and as lines of JSON.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use wherry_test::Cluster;

use crate::Setup;
use crate::process;
use crate::side::OURS;

/// Figures that say how much was measured.
const COUNTS: [&str; 2] = ["samples", "requests"];

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

    /// As JSON that [`Report::parse`] reads.
    pub(crate) fn to_json(&self) -> Value {
        json!({"what": self.what, "figures": self.figures})
    }

    /// Reads what another process of this program has printed. Names of figures are kept as long as this process.
    pub(crate) fn parse(text: &Value) -> Option<Self> {
        let figures = text["figures"].as_array()?.iter();
        let figures = figures.map(|pair| Some((&*pair[0].as_str()?.to_owned().leak(), pair[1].as_f64()?)));
        Some(Self { what: text["what"].as_str()?.to_owned(), figures: figures.collect::<Option<_>>()? })
    }

    fn json(&self, benchmark: &str, by: &str, setup: &Setup) -> Value {
        let mut line = json!({"benchmark": benchmark, "what": self.what, "by": by, "binary": setup.wherry});
        for (name, figure) in &self.figures {
            line[name.replace([' ', '/'], "_")] = json!(figure);
        }
        line
    }
}

/// What was measured of one program (or of those that are one system).
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub by: &'static str,
    /// Its figures.
    pub reports: Vec<Report>,
}

impl From<Vec<Report>> for Column {
    /// Figures of the binary.
    fn from(reports: Vec<Report>) -> Self {
        Self { by: OURS, reports }
    }
}

/// Processor time that the cluster's process has used, in user and in system.
pub(crate) fn cpu_time(cluster: &Cluster) -> anyhow::Result<Duration> {
    process::cpu_time(cluster.process().context("the cluster does not run")?.id())
}

/// Memory that the cluster's process has for itself, bytes: anonymous pages, not the binary's own or those of mapped files.
pub(crate) fn memory(cluster: &Cluster) -> anyhow::Result<f64> {
    process::anonymous(cluster.process().context("the cluster does not run")?.id())
}

/// Prints the tables and appends the lines.
pub(crate) fn publish(benchmark: &str, setup: &Setup, columns: &[Column]) -> anyhow::Result<()> {
    for column in columns.iter().filter(|column| !column.reports.is_empty()) {
        print_figures(benchmark, column);
    }
    if let [ours, peers @ ..] = columns {
        peers.iter().for_each(|peer| print_ratios(ours, peer));
    }
    if columns.iter().all(|column| column.reports.is_empty()) {
        return Ok(());
    }
    std::fs::create_dir_all(&setup.out)?;
    let path = setup.out.join(format!("{benchmark}.jsonl"));
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    for column in columns {
        for report in &column.reports {
            writeln!(file, "{}", report.json(benchmark, column.by, setup))?;
        }
    }
    println!("({})", path.display());
    Ok(())
}

fn print_figures(benchmark: &str, column: &Column) {
    let mut known = Vec::new();
    for report in &column.reports {
        let names: Vec<&str> = report.figures.iter().map(|(name, _)| *name).collect();
        if names != known {
            print!("{:<36}", format!("{benchmark}: {}", column.by));
            names.iter().for_each(|name| print!("{name:>13}"));
            println!();
            known = names;
        }
        print!("{:<36}", report.what);
        for (_, figure) in &report.figures {
            print!("{:>13}", number(*figure));
        }
        println!();
    }
}

/// Each figure that both have; a ratio above 1 is in our favour.
fn print_ratios(ours: &Column, peer: &Column) {
    println!("{:<50}{:>20}{:>20}{:>9}", "", ours.by, peer.by, "ratio");
    for our in &ours.reports {
        let Some(their) = peer.reports.iter().find(|their| their.what == our.what) else { continue };
        for (name, figure) in our.figures.iter().filter(|(name, _)| !COUNTS.contains(name)) {
            let Some(other) = their.figure(name) else { continue };
            let ratio = ratio(name, *figure, other);
            println!(
                "{:<50}{:>20}{:>20}{ratio:>8.2}x",
                format!("{}: {name}", our.what),
                number(*figure),
                number(other)
            );
        }
    }
}

/// More of what is counted by the second is better; of all else, less is.
fn ratio(name: &str, ours: f64, theirs: f64) -> f64 {
    if name.ends_with("/s") { ours / theirs } else { theirs / ours }
}

/// With two digits behind the point, where it has any.
pub(crate) fn number(figure: f64) -> String {
    let digits = if figure.fract() == 0.0 { 0 } else { 2 };
    format!("{figure:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_in_our_favour() {
        assert_eq!((ratio("Pods/s", 30.0, 10.0), ratio("cpu ms/Pod", 1.0, 4.0)), (3.0, 4.0));
    }

    #[test]
    fn another_process_can_be_read() {
        let report = Report { what: "x".into(), figures: vec![("p50 ms", 1.5), ("samples", 2.0)] };
        let read = Report::parse(&report.to_json());
        assert_eq!(read.map(|read| (read.what, read.figures)), Some((report.what, report.figures)));
    }

    #[test]
    fn percentiles_are_samples() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let report = Report::times("x", times, Duration::from_secs(1));
        let figures = ["samples", "p50 ms", "p99 ms", "max ms", "cpu ms/op"].map(|name| report.figure(name));
        assert_eq!(figures, [200.0, 100.0, 198.0, 200.0, 5.0].map(Some));
        assert_eq!(Report::times("x", vec![Duration::from_millis(7)], Duration::ZERO).figure("p50 ms"), Some(7.0));
    }
}
