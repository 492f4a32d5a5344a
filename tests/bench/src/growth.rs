//! How figures grow with the number of Pods: benchmarks at several sizes, a curve for each figure, and a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use serde_json::json;

use crate::report::number;
use crate::{Setup, curves};

/// What grows.
const GROWING: [&str; 3] = ["density", "schedule", "rollout"];

/// A figure at each size, by size.
pub(crate) type Curve = BTreeMap<u32, f64>;

/// The curves by their names, in the order in which they were measured.
pub(crate) type Curves = Vec<(String, Curve)>;

/// Runs the benchmarks at each of these sizes; writes `growth.jsonl`, `growth.svg` and `growth.md`, and prints the last.
pub async fn growth(setup: &Setup, sizes: &[u32]) -> anyhow::Result<()> {
    let mut curves = Curves::new();
    for &size in sizes {
        let setup = Setup { replicas: size, scheduled: size, rolled: size, peers: None, ..setup.clone() };
        for name in GROWING {
            for column in crate::run(name, &setup).await.with_context(|| format!("{name} at {size}"))? {
                for report in &column.reports {
                    let what = report.what.replacen(&size.to_string(), "N", 1);
                    for (figure, value) in &report.figures {
                        add(&mut curves, format!("{name}: {what}: {figure}"), size, *value);
                    }
                }
            }
        }
    }
    std::fs::create_dir_all(&setup.out)?;
    let table = table(&curves, sizes);
    std::fs::write(setup.out.join("growth.jsonl"), lines(&curves))?;
    std::fs::write(setup.out.join("growth.svg"), curves::draw(&curves))?;
    std::fs::write(setup.out.join("growth.md"), &table)?;
    println!("{table}({})", setup.out.join("growth.svg").display());
    Ok(())
}

fn add(curves: &mut Curves, name: String, size: u32, value: f64) {
    match curves.iter_mut().find(|(known, _)| *known == name) {
        Some((_, curve)) => drop(curve.insert(size, value)),
        None => curves.push((name, Curve::from([(size, value)]))),
    }
}

fn lines(curves: &Curves) -> String {
    let lines = curves.iter().flat_map(|(name, curve)| {
        curve.iter().map(move |(size, value)| format!("{}\n", json!({"figure": name, "pods": size, "value": value})))
    });
    lines.collect()
}

/// A table in Markdown: a row a figure, a column a size, and how many times the first the last is.
fn table(curves: &Curves, sizes: &[u32]) -> String {
    let mut table = String::from("| Pods |");
    // Writing to a string does not fail.
    for size in sizes {
        let _ = write!(table, " {size} |");
    }
    let _ = write!(table, " last / first |\n|---|{}\n", "---|".repeat(sizes.len() + 1));
    for (name, curve) in curves {
        let _ = write!(table, "| {name} |");
        for size in sizes {
            let _ = write!(table, " {} |", curve.get(size).map_or_else(String::new, |value| number(*value)));
        }
        let ends = curve.values().next().zip(curve.values().next_back());
        let _ = writeln!(table, " {} |", ends.map_or_else(String::new, |(first, last)| number(last / first)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_figure() {
        let mut curves = Curves::new();
        for (size, value) in [(1000, 2.0), (2000, 3.0)] {
            add(&mut curves, "density: KiB/Pod".into(), size, value);
        }
        let expected =
            "| Pods | 1000 | 2000 | last / first |\n|---|---|---|---|\n| density: KiB/Pod | 2 | 3 | 1.50 |\n";
        assert_eq!(table(&curves, &[1000, 2000]), expected);
        assert_eq!(lines(&curves).lines().count(), 2);
    }
}
