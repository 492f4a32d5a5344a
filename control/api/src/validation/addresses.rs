//! Addresses and networks as new fields want them: in their one canonical form (upstream: apimachinery's `IsValidIP`,
//! `IsValidCIDR`; core's `ValidateEndpointIP`). Fields from before this rule take what [`names::ip`] takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{At, Errors, names};

/// An address; dotted ones may have zeros in front of their numbers.
fn sloppy(text: &str) -> Option<IpAddr> {
    let unpadded = |part: &str| -> Option<u8> {
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        (digits && !part.is_empty()).then(|| part.trim_start_matches('0')).and_then(|part| match part {
            "" => Some(0),
            part => part.parse().ok(),
        })
    };
    text.parse().ok().or_else(|| {
        let parts = text.split('.').map(unpadded).collect::<Option<Vec<u8>>>()?;
        <[u8; 4]>::try_from(parts).ok().map(|parts| Ipv4Addr::from(parts).into())
    })
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// An address in its canonical form.
pub(crate) fn ip(text: &str) -> Vec<String> {
    let Some(address) = sloppy(text) else {
        return names::ip(text);
    };
    if text.parse::<IpAddr>().is_err() {
        vec!["must not have leading 0s".to_owned()]
    } else if is_mapped(address) {
        vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
    } else if address.to_string() != text {
        vec![format!("must be in canonical form (\"{address}\")")]
    } else {
        Vec::new()
    }
}

/// The first address of a network.
fn first((address, length): (IpAddr, u32)) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            Ipv4Addr::from(u32::from(address) & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into()
        }
        IpAddr::V6(address) => {
            Ipv6Addr::from(u128::from(address) & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into()
        }
    }
}

/// A network in its canonical form.
pub(crate) fn cidr(text: &str) -> Vec<String> {
    let sloppily = || {
        let (address, length) = text.split_once('/')?;
        let address = sloppy(address)?;
        names::network(&format!("{address}/{length}"))
    };
    let Some(network) = sloppily() else {
        return names::cidr(text);
    };
    let padded = text.split_once('/').is_some_and(|(address, length)| {
        address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0'))
    });
    if padded {
        return vec!["must not have leading 0s in IP or prefix length".to_owned()];
    }
    if is_mapped(network.0) {
        return vec!["must not have an IPv4-mapped IPv6 address".to_owned()];
    }
    if first(network) != network.0 {
        return vec!["must not have bits set beyond the prefix length".to_owned()];
    }
    let canonical = format!("{}/{}", network.0, network.1);
    if canonical == text { Vec::new() } else { vec![format!("must be in canonical form (\"{canonical}\")")] }
}

/// An address that traffic can be sent to: not of this host or this link alone (upstream: `ValidateEndpointIP`).
pub(crate) fn endpoint(text: &str, at: &At, errors: &mut Errors) {
    let Some(address) = sloppy(text) else {
        return errors.invalid(at, text, "must be a valid IP address");
    };
    let (link_local, multicast) = match address {
        IpAddr::V4(address) => (address.is_link_local(), address.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(address) => (address.is_unicast_link_local(), address.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(at, text, format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() {
        errors.invalid(at, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(at, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(at, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
