//! Of what a node keeps something back, and how much: kubelet's `--eviction-hard`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use wherry_api::quantity::{Format, Quantity};

use super::pressure::Pressure;
use crate::ports::{Amount, Left};

/// What may run short, in the order in which it is seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    Memory,
    Disk,
    Inodes,
    /// Images lie on the same filesystem as Pods.
    ImageDisk,
    ImageInodes,
    Pids,
}

const SIGNALS: [(&str, Signal); 6] = [
    ("memory.available", Signal::Memory),
    ("nodefs.available", Signal::Disk),
    ("nodefs.inodesFree", Signal::Inodes),
    ("imagefs.available", Signal::ImageDisk),
    ("imagefs.inodesFree", Signal::ImageInodes),
    ("pid.available", Signal::Pids),
];

impl Signal {
    fn of(self, left: &Left) -> Option<Amount> {
        match self {
            Self::Memory => left.memory,
            Self::Disk | Self::ImageDisk => left.disk,
            Self::Inodes | Self::ImageInodes => left.inodes,
            Self::Pids => left.pids,
        }
    }

    fn resource(self) -> Resource {
        match self {
            Self::Memory => Resource::Memory,
            Self::Disk | Self::ImageDisk => Resource::Disk,
            Self::Inodes | Self::ImageInodes => Resource::Inodes,
            Self::Pids => Resource::Pids,
        }
    }
}

/// What a node may run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Memory,
    Disk,
    Inodes,
    /// Nobody is evicted for them: it is not known who has how many.
    Pids,
}

impl Resource {
    /// kubelet's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }
}

/// How much has to be left.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Least {
    Amount(Quantity),
    /// Of what there is, in hundredths.
    Percent(f64),
}

impl Least {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a percentage is of a size told roughly"
    )]
    fn quantity(self, capacity: u64) -> Quantity {
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => Quantity::new((capacity as f64 * percent / 100.0) as i64, Format::BinarySi),
        }
    }
}

/// How much of what has to be left on a node; where less is, Pods are evicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Least>);

impl Default for Thresholds {
    /// kubelet's, but for the disk: a tenth of a large one is more than a node needs, and of a small machine's much may be taken by others.
    fn default() -> Self {
        let amount = |bytes| Least::Amount(Quantity::new(bytes, Format::BinarySi));
        let twentieth = Least::Percent(5.0);
        Self(BTreeMap::from([
            (Signal::Memory, amount(100 << 20)),
            (Signal::Disk, amount(1 << 30)),
            (Signal::Inodes, twentieth),
            (Signal::Pids, twentieth),
        ]))
    }
}

/// Why a text says no thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No comparison.
    #[error("{0:?} is not of the form SIGNAL<QUANTITY, as in memory.available<100Mi")]
    Form(String),
    /// Nothing that is measured.
    #[error(
        "{0:?} is not an eviction signal of this node: there are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available"
    )]
    Signal(String),
    /// No amount.
    #[error("{signal}<{text}: the threshold must be a quantity above 0, as 100Mi, or a percentage from 0% to 100%")]
    Value {
        /// Of what.
        signal: String,
        /// What was said.
        text: String,
    },
    /// Said twice.
    #[error("{0} is given twice")]
    Twice(String),
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    /// Reads `SIGNAL<QUANTITY,...`; what is not named has no threshold. 0% and 100% are none, either.
    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let mut thresholds = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (signal, value) = part.split_once('<').ok_or_else(|| ThresholdError::Form(part.to_owned()))?;
            let (signal, value) = (signal.trim(), value.trim());
            let (_, known) = SIGNALS
                .iter()
                .find(|(name, _)| *name == signal)
                .ok_or_else(|| ThresholdError::Signal(signal.to_owned()))?;
            let wrong = || ThresholdError::Value { signal: signal.to_owned(), text: value.to_owned() };
            let least = match value.strip_suffix('%') {
                Some("0" | "100") => continue,
                Some(percent) => {
                    let percent: f64 = percent.parse().map_err(|_| wrong())?;
                    Least::Percent(Some(percent).filter(|percent| (0.0..=100.0).contains(percent)).ok_or_else(wrong)?)
                }
                None => {
                    let amount = Quantity::parse(value).map_err(|_| wrong())?;
                    Least::Amount(Some(amount).filter(|amount| *amount > Quantity::ZERO).ok_or_else(wrong)?)
                }
            };
            if thresholds.insert(*known, least).is_some() {
                return Err(ThresholdError::Twice(signal.to_owned()));
            }
        }
        Ok(Self(thresholds))
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, signal) in &SIGNALS {
            match self.0.get(signal) {
                Some(Least::Amount(amount)) => write!(f, "{separator}{name}<{amount}")?,
                Some(Least::Percent(percent)) => write!(f, "{separator}{name}<{percent}%")?,
                None => continue,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// A threshold of which too little is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Met {
    pub(crate) resource: Resource,
    /// How much had to be left.
    pub(crate) quantity: Quantity,
    pub(crate) available: Quantity,
}

impl Thresholds {
    /// Those of which too little is left, what is to be seen to first before the others.
    pub(crate) fn met(&self, left: &Left) -> Vec<Met> {
        let met = |(signal, least): (&Signal, &Least)| {
            let amount = signal.of(left)?;
            let available = i64::try_from(amount.available).unwrap_or(i64::MAX);
            let available = Quantity::new(available, Format::BinarySi);
            let quantity = least.quantity(amount.capacity);
            (available < quantity).then_some(Met { resource: signal.resource(), quantity, available })
        };
        self.0.iter().filter_map(met).collect()
    }
}

/// What a node is told to be short of.
pub(crate) fn short_of(met: &[Met]) -> Pressure {
    let any = |of: &[Resource]| met.iter().any(|met| of.contains(&met.resource));
    Pressure {
        memory: any(&[Resource::Memory]),
        disk: any(&[Resource::Disk, Resource::Inodes]),
        pids: any(&[Resource::Pids]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds(text: &str) -> Thresholds {
        text.parse().unwrap()
    }

    #[test]
    fn what_kubelet_reads_is_read_and_nothing_else() {
        let defaults = "memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<5%,pid.available<5%";
        assert_eq!(Thresholds::default(), thresholds(defaults));
        assert_eq!(Thresholds::default().to_string(), defaults);
        assert_eq!(
            thresholds(" nodefs.available<1Gi , memory.available<1.5% ").to_string(),
            "memory.available<1.5%,nodefs.available<1Gi"
        );
        assert_eq!(thresholds("memory.available<0%,nodefs.available<100%"), thresholds(""));
        for (text, problem) in [
            ("memory.available", "not of the form"),
            ("memory.available>1Gi", "not of the form"),
            ("disk<1Gi", "not an eviction signal"),
            ("memory.available<", "above 0"),
            ("memory.available<0", "above 0"),
            ("memory.available<-1", "above 0"),
            ("memory.available<101%", "above 0"),
            ("memory.available<x%", "above 0"),
            ("memory.available<NaN%", "above 0"),
            ("memory.available<1,memory.available<2", "given twice"),
        ] {
            let error = text.parse::<Thresholds>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn memory_comes_first_and_what_is_not_known_is_not_short() {
        let all = thresholds("pid.available<50%,imagefs.available<10%,nodefs.available<1Gi,memory.available<100Mi");
        let amount = |available, capacity| Some(Amount { available, capacity });
        let left = Left {
            memory: amount(50 << 20, 1 << 30),
            disk: amount(1 << 20, 100 << 20),
            inodes: None,
            pids: amount(2, 3),
        };
        let found: Vec<String> = all
            .met(&left)
            .iter()
            .map(|met| format!("{} {} {}", met.resource.as_str(), met.quantity, met.available))
            .collect();
        assert_eq!(found, ["memory 100Mi 50Mi", "ephemeral-storage 1Gi 1Mi", "ephemeral-storage 10Mi 1Mi"]);
        assert_eq!(short_of(&all.met(&left)), Pressure { memory: true, disk: true, pids: false });
        assert_eq!(all.met(&Left::default()), []);
    }

    proptest! {
        #[test]
        fn a_threshold_is_met_exactly_below_it(available in 0..2000_u64, least in 1..2000_u64) {
            let left = Left { memory: Some(Amount { available, capacity: 2000 }), ..Left::default() };
            prop_assert_eq!(thresholds(&format!("memory.available<{least}")).met(&left).len(), usize::from(available < least));
        }
    }
}
