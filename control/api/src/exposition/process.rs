//! What Prometheus' client libraries tell of the process that is asked. The caller reads the files.

use super::{Exposition, Kind, as_float};

/// The kernel counts CPU time for user space in hundredths of a second.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// The files of `/proc` that tell it.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    /// `/proc/self/stat`.
    pub stat: &'a str,
    /// `/proc/self/limits`.
    pub limits: &'a str,
    /// `/proc/stat`.
    pub machine: &'a str,
    /// How many entries `/proc/self/fd` has.
    pub descriptors: usize,
}

impl Process<'_> {
    /// Writes `process_*`.
    pub fn write(&self, to: &mut Exposition) {
        // The second field is the program's name and may hold anything: what follows its last bracket is numbers.
        let numbers: Vec<f64> = self
            .stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().skip(1).map(|n| n.parse().unwrap_or(0.0)).collect())
            .unwrap_or_default();
        // By proc(5)'s count, in which the state is the third field.
        let field = |number: usize| numbers.get(number - 4).copied().unwrap_or(0.0);
        let boot = self.machine.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        let limit = self
            .limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<f64>().ok());
        let mut one = |name: &str, kind: Kind, help: &str, value: f64| to.family(name, kind, help).sample(&[], value);
        one(
            "process_cpu_seconds_total",
            Kind::Counter,
            "Total user and system CPU time spent in seconds.",
            (field(14) + field(15)) / TICKS,
        );
        if let Some(limit) = limit {
            one("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.", limit);
        }
        one("process_open_fds", Kind::Gauge, "Number of open file descriptors.", as_float(self.descriptors as u64));
        one("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.", field(24) * PAGE);
        if let Some(boot) = boot {
            one(
                "process_start_time_seconds",
                Kind::Gauge,
                "Start time of the process since unix epoch in seconds.",
                boot + field(22) / TICKS,
            );
        }
        one("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.", field(23));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_proc() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 9 0 600 1000000 25 18446744073709551615";
        let process = Process {
            stat,
            limits: "Limit  Soft  Hard\nMax open files            1024                 4096                 files\n",
            machine: "cpu 1\nbtime 1000\n",
            descriptors: 5,
        };
        let mut text = Exposition::new(None);
        process.write(&mut text);
        let text = text.finish();
        for line in [
            "process_cpu_seconds_total 2",
            "process_max_fds 1024",
            "process_open_fds 5",
            "process_resident_memory_bytes 102400",
            "process_start_time_seconds 1006",
            "process_virtual_memory_bytes 1000000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
