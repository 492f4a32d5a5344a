//! When images that nobody uses are collected, as kubelet does: above a share of the disk, down to a smaller one.

use std::time::Duration;

use crate::ports::Amount;

/// How full the disk of the images may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGc {
    /// From so much on, in hundredths of the disk, images are removed; never where 100.
    pub high: u8,
    /// Down to so much.
    pub low: u8,
    /// An image that came less long ago stays.
    pub min_age: Duration,
}

impl Default for ImageGc {
    fn default() -> Self {
        Self { high: 85, low: 80, min_age: Duration::from_secs(120) }
    }
}

impl ImageGc {
    /// How many bytes are to be freed; none where there is room.
    pub(crate) fn wanted(&self, disk: Amount) -> Option<u64> {
        if self.high >= 100 || used_percent(disk) < u64::from(self.high) {
            return None;
        }
        let free = u128::from(disk.capacity) * u128::from(100 - self.low.min(100)) / 100;
        u64::try_from(free).ok()?.checked_sub(disk.available).filter(|bytes| *bytes > 0)
    }

    /// What is told where no more than `freed` of them could be.
    pub(crate) fn failed(disk: Amount, freed: u64) -> String {
        format!(
            "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient space by \
             deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, \
             volumes, or other data.",
            used_percent(disk),
            size(disk.capacity)
        )
    }
}

/// Hundredths of the disk that are used, or not for us.
fn used_percent(disk: Amount) -> u64 {
    let free = u128::from(disk.available.min(disk.capacity)) * 100 / u128::from(disk.capacity.max(1));
    100 - u64::try_from(free).unwrap_or(100).min(100)
}

/// As kubelet writes sizes: `1.5 GiB`.
#[allow(clippy::cast_precision_loss, reason = "told to a tenth of the unit")]
fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{size:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_down_to_the_low_mark_from_the_high_one_on() {
        let disk = |available| Amount { available, capacity: 1000 };
        let gc = ImageGc::default();
        assert_eq!(gc.wanted(disk(160)), None);
        assert_eq!(gc.wanted(disk(150)), Some(50));
        assert_eq!(gc.wanted(disk(0)), Some(200));
        assert_eq!(ImageGc { high: 100, ..gc }.wanted(disk(0)), None, "turned off");
        assert_eq!(ImageGc { high: 1, low: 0, ..gc }.wanted(disk(900)), Some(100));
        assert_eq!(gc.wanted(Amount::default()), None, "no disk is no full disk");
    }

    #[test]
    fn sizes_are_written_as_kubelet_writes_them() {
        for (bytes, text) in
            [(7, "7 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB"), (5 << 50, "5120.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
