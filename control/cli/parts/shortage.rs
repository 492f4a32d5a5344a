//! What a node does when it runs short, as kubelet's options say it.

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use wherry_agent::{ImageGc, ShortageOptions, Thresholds};

/// When a node runs short.
#[derive(Debug, Args)]
pub(crate) struct ShortageArgs {
    /// Evict Pods where less is left: SIGNAL<QUANTITY or SIGNAL<PERCENTAGE, joined by commas; what is not named is not looked at
    ///
    /// The signals are memory.available, nodefs.available and nodefs.inodesFree (the disk of Pods, logs and images; imagefs.*
    /// mean the same) and pid.available.
    #[arg(long, value_name = "THRESHOLDS", default_value_t)]
    eviction_hard: Thresholds,
    /// How long a node is told to be short after it was
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = duration)]
    eviction_pressure_transition_period: Duration,
    /// Remove images that nobody uses from so many percent of the disk on, the least recently used first; 100 keeps them
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_high_threshold: u8,
    /// Remove images down to so many percent of the disk
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_low_threshold: u8,
    /// How long an image stays that was pulled and is not used
    #[arg(long, value_name = "DURATION", default_value = "2m0s", value_parser = duration)]
    minimum_image_ttl_duration: Duration,
}

impl ShortageArgs {
    pub(crate) fn options(&self) -> anyhow::Result<ShortageOptions> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        ensure!(
            low < high,
            "--image-gc-low-threshold {low}: it must be less than --image-gc-high-threshold, which is {high}"
        );
        Ok(ShortageOptions {
            eviction_hard: self.eviction_hard.clone(),
            transition_period: self.eviction_pressure_transition_period,
            image_gc: ImageGc { high, low, min_age: self.minimum_image_ttl_duration },
        })
    }
}

/// A duration as Go writes it.
fn duration(text: &str) -> anyhow::Result<Duration> {
    match wherry_api::decode::duration_nanos(text).map(u64::try_from) {
        Some(Ok(nanos)) => Ok(Duration::from_nanos(nanos)),
        _ => bail!("not a duration, as 30s or 5m0s"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        shortage: ShortageArgs,
    }

    fn read(line: &[&str]) -> Result<ShortageOptions, String> {
        let line = Line::try_parse_from([&["wherry"], line].concat()).map_err(|error| error.to_string())?;
        line.shortage.options().map_err(|error| error.to_string())
    }

    #[test]
    fn the_options_are_kubelet_s() {
        assert_eq!(read(&[]).unwrap(), ShortageOptions::default());
        let said = read(&[
            "--eviction-hard=memory.available<1Gi",
            "--eviction-pressure-transition-period=30s",
            "--image-gc-high-threshold=50",
            "--image-gc-low-threshold=40",
            "--minimum-image-ttl-duration=1m30s",
        ]);
        let image_gc = ImageGc { high: 50, low: 40, min_age: Duration::from_secs(90) };
        let eviction_hard = "memory.available<1Gi".parse().unwrap();
        assert_eq!(
            said.unwrap(),
            ShortageOptions { eviction_hard, transition_period: Duration::from_secs(30), image_gc }
        );
        for (line, problem) in [
            ("--eviction-hard=memory<1Gi", "not an eviction signal"),
            ("--eviction-pressure-transition-period=5", "not a duration"),
            ("--eviction-pressure-transition-period=-5s", "not a duration"),
            ("--image-gc-high-threshold=101", "0..=100"),
            ("--image-gc-high-threshold=80", "it must be less than"),
        ] {
            let told = read(&[line]).unwrap_err();
            assert!(told.contains(problem), "{line}: {told}");
        }
    }
}
