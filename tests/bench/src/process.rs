//! What the kernel tells of a process.

use std::time::Duration;

use anyhow::Context;

/// Processor time that it has used, in user and in system.
pub(crate) fn cpu_time(id: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // Behind the command's name, which may hold anything: fields 14 and 15, in hundredths of a second.
    let rest = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Memory that it has for itself, bytes: anonymous pages, not the binary's own or those of mapped files.
pub(crate) fn anonymous(id: u32) -> anyhow::Result<f64> {
    kib(id, "status", "RssAnon:").map(|kib| kib * 1024.0)
}

/// Memory that it has mapped from files, bytes: the binary's own pages and compiled modules, which the kernel can drop.
pub(crate) fn of_files(id: u32) -> anyhow::Result<f64> {
    kib(id, "status", "RssFile:").map(|kib| kib * 1024.0)
}

/// Bytes that it had written to a disk.
pub(crate) fn written(id: u32) -> anyhow::Result<f64> {
    kib(id, "io", "write_bytes:")
}

/// The number in a line of a file of /proc.
fn kib(id: u32, file: &str, name: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{id}/{file}");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} in {path}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
