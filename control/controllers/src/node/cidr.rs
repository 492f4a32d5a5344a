//! Shares of the cluster's Pod addresses, one a node. Pure. IPv4.

use std::{collections::HashSet, net::Ipv4Addr};

/// A block of addresses that is cut into equal shares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    base: u32,
    prefix: u8,
    share: u8,
}

impl Blocks {
    /// `cidr` cut into shares of prefix length `share`; none if these do not fit.
    pub(super) fn new(cidr: &str, share: u8) -> Option<Self> {
        let (base, prefix) = parse(cidr)?;
        (prefix <= share && share <= 30).then_some(Self { base, prefix, share })
    }

    /// How many shares there are.
    pub(super) fn count(&self) -> u32 {
        1 << (self.share - self.prefix)
    }

    /// The `number`th share.
    fn nth(&self, number: u32) -> String {
        let base = self.base + (number << (32 - self.share));
        format!("{}/{}", Ipv4Addr::from(base), self.share)
    }

    /// The shares that `cidr` touches; none where it lies outside.
    pub(super) fn touched(&self, cidr: &str) -> std::ops::Range<u32> {
        let Some((base, prefix)) = parse(cidr) else {
            return 0..0;
        };
        let size = 1u64 << (32 - prefix);
        let share = 1u64 << (32 - self.share);
        let low = u64::from(self.base);
        let high = low + u64::from(self.count()) * share;
        let from = u64::from(base).max(low);
        let to = (u64::from(base) + size).min(high);
        if from >= to {
            return 0..0;
        }
        let number = |offset: u64| u32::try_from(offset).unwrap_or(u32::MAX);
        number((from - low) / share)..number((to - low).div_ceil(share))
    }

    /// The first share that is not taken.
    pub(super) fn free(&self, taken: &HashSet<u32>) -> Option<String> {
        (0..self.count()).find(|number| !taken.contains(number)).map(|number| self.nth(number))
    }
}

fn parse(cidr: &str) -> Option<(u32, u8)> {
    let (address, prefix) = cidr.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Some((u32::from(address) & mask, prefix))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_follow_each_other() {
        let blocks = Blocks::new("10.128.0.0/9", 18).unwrap();
        assert_eq!(blocks.count(), 512);
        assert_eq!(blocks.free(&HashSet::new()).unwrap(), "10.128.0.0/18");
        assert_eq!(blocks.free(&HashSet::from([0, 2])).unwrap(), "10.128.64.0/18");
        assert_eq!(blocks.free(&(0..512).collect()), None);
        assert_eq!(blocks.touched("10.128.64.0/17"), 0..2);
        assert_eq!(blocks.touched("192.168.0.0/16"), 0..0);
        assert!(Blocks::new("10.0.0.0/20", 18).is_none());
    }

    proptest! {
        #[test]
        fn no_two_nodes_share(prefix in 8u8..20, extra in 0u8..8, nodes in 1usize..40) {
            let blocks = Blocks::new(&format!("10.0.0.0/{prefix}"), prefix + extra).unwrap();
            let mut taken = HashSet::new();
            for _ in 0..nodes {
                let Some(cidr) = blocks.free(&taken) else {
                    prop_assert_eq!(taken.len(), blocks.count() as usize);
                    break;
                };
                let touched: Vec<u32> = blocks.touched(&cidr).collect();
                prop_assert_eq!(touched.len(), 1);
                prop_assert!(taken.insert(touched[0]));
            }
        }
    }
}
