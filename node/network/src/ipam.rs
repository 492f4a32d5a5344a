//! Addresses of Pods: an IPv4 prefix and which of it are taken.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::NetworkError;

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The first address.
    pub base: Ipv4Addr,
    /// The prefix length, 0 to 32.
    pub length: u8,
}

impl Cidr {
    /// How many addresses it holds.
    #[must_use]
    pub fn size(&self) -> u64 {
        1 << (32 - u32::from(self.length))
    }

    /// The `n`th address, none beyond its end.
    #[must_use]
    pub fn nth(&self, n: u64) -> Option<Ipv4Addr> {
        (n < self.size()).then(|| Ipv4Addr::from_bits(self.base.to_bits() + n as u32))
    }

    /// Whether `ip` lies in it.
    #[must_use]
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        self.offset(ip).is_some()
    }

    fn offset(&self, ip: Ipv4Addr) -> Option<u64> {
        let offset = u64::from(ip.to_bits()).checked_sub(u64::from(self.base.to_bits()))?;
        (offset < self.size()).then_some(offset)
    }
}

impl FromStr for Cidr {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let invalid = || NetworkError::Invalid(format!("{text:?} is not an IPv4 CIDR such as 10.128.0.0/18"));
        let (base, length) = text.split_once('/').ok_or_else(invalid)?;
        let base: Ipv4Addr = base.parse().map_err(|_| invalid())?;
        let length: u8 = length.parse().map_err(|_| invalid())?;
        if length > 32 {
            return Err(invalid());
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Ok(Self { base: Ipv4Addr::from_bits(base.to_bits() & mask), length })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

/// Which addresses of a prefix are taken. The first two (network, gateway by custom) and the last are never
/// given out. A freed address is used again as late as possible, so that a stale client meets nobody.
#[derive(Debug)]
pub struct Ipam {
    cidr: Cidr,
    taken: Vec<u64>,
    next: u64,
}

impl Ipam {
    const FIRST: u64 = 2;

    /// All addresses free.
    #[must_use]
    pub fn new(cidr: Cidr) -> Self {
        Self { cidr, taken: vec![0; cidr.size().div_ceil(64) as usize], next: Self::FIRST }
    }

    /// How many Pods can have an address.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.end().saturating_sub(Self::FIRST)
    }

    /// Takes a free address.
    pub fn take(&mut self) -> Result<Ipv4Addr, NetworkError> {
        let end = self.end();
        let free = (self.next..end).chain(Self::FIRST..self.next.min(end)).find(|&n| !self.is_taken(n));
        let n = free.ok_or_else(|| NetworkError::Exhausted(self.cidr.to_string()))?;
        self.mark(n, true);
        self.next = n + 1;
        self.cidr.nth(n).ok_or_else(|| NetworkError::Exhausted(self.cidr.to_string()))
    }

    /// Takes this very address.
    pub fn claim(&mut self, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let refuse = |why| NetworkError::Address { ip: ip.into(), why };
        let n = self.cidr.offset(ip).ok_or_else(|| refuse("it is outside the node's podCIDR"))?;
        if !(Self::FIRST..self.end()).contains(&n) {
            return Err(refuse("it is reserved"));
        }
        if self.is_taken(n) {
            return Err(refuse("another Pod has it"));
        }
        self.mark(n, true);
        Ok(())
    }

    /// Gives an address back.
    pub fn free(&mut self, ip: Ipv4Addr) {
        if let Some(n) = self.cidr.offset(ip) {
            self.mark(n, false);
        }
    }

    fn end(&self) -> u64 {
        self.cidr.size() - 1
    }

    fn is_taken(&self, n: u64) -> bool {
        self.taken[(n / 64) as usize] & (1 << (n % 64)) != 0
    }

    fn mark(&mut self, n: u64, taken: bool) {
        let word = &mut self.taken[(n / 64) as usize];
        *word = if taken { *word | 1 << (n % 64) } else { *word & !(1 << (n % 64)) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_prints() {
        let cidr: Cidr = "10.128.3.9/18".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.128.0.0/18");
        assert_eq!(cidr.nth(2), Some("10.128.0.2".parse().unwrap()));
        assert!(!cidr.contains("10.128.64.0".parse().unwrap()));
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ends_with_a_clear_error() {
        let mut ipam = Ipam::new("10.0.0.0/29".parse().unwrap());
        assert_eq!(ipam.capacity(), 5);
        for _ in 0..5 {
            ipam.take().unwrap();
        }
        assert!(matches!(ipam.take(), Err(NetworkError::Exhausted(_))));
        ipam.free("10.0.0.4".parse().unwrap());
        assert_eq!(ipam.take().unwrap().to_string(), "10.0.0.4");
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(operations in prop::collection::vec((any::<bool>(), 0u32..70), 1..300)) {
            let cidr: Cidr = "10.0.0.0/26".parse().unwrap();
            let mut ipam = Ipam::new(cidr);
            let mut held = HashSet::new();
            for (take, n) in operations {
                let ip = Ipv4Addr::from_bits(cidr.base.to_bits() + n);
                if take {
                    if let Ok(ip) = ipam.take() {
                        prop_assert!(held.insert(ip) && cidr.contains(ip));
                    } else {
                        prop_assert_eq!(held.len() as u64, ipam.capacity());
                    }
                } else if held.remove(&ip) {
                    ipam.free(ip);
                } else if ipam.claim(ip).is_ok() {
                    prop_assert!(held.insert(ip));
                }
            }
        }
    }
}
