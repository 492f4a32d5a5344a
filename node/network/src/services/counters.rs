//! How many connections Services have had, as the kernel counted them.

use std::collections::HashMap;

use super::ServiceKey;

/// What asks for all counters.
pub(super) const SCRIPT: &str = "list counters table ip wherry\n";

/// Reads what [`SCRIPT`] prints: connections by Service, all ports together.
pub(super) fn read(printed: &str, of: &HashMap<u32, ServiceKey>) -> HashMap<ServiceKey, u64> {
    // counter c7 {
    //         packets 3 bytes 180
    // }
    let mut counts: HashMap<ServiceKey, u64> = HashMap::new();
    let mut counter = None;
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("counter"), Some(name)) => {
                counter = name.strip_prefix('c').and_then(|id| id.parse().ok()).and_then(|id: u32| of.get(&id));
            }
            (Some("packets"), Some(packets)) => {
                if let (Some(service), Ok(packets)) = (counter.take(), packets.parse::<u64>()) {
                    // Only the first packet of a connection comes to a rule that translates addresses.
                    *counts.entry(service.clone()).or_default() += packets;
                }
            }
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_service_count_together_and_strangers_do_not() {
        let key = |name: &str| ServiceKey { namespace: "default".into(), name: name.into() };
        let of = HashMap::from([(0, key("web")), (1, key("web")), (7, key("other"))]);
        let printed = "table ip wherry {
\tcounter c0 {
\t\tpackets 3 bytes 180
\t}
\tcounter c1 {
\t\tpackets 4 bytes 240
\t}
\tcounter c7 {
\t\tpackets 0 bytes 0
\t}
\tcounter c8 {
\t\tpackets 9 bytes 540
\t}
}
";
        assert_eq!(read(printed, &of), HashMap::from([(key("web"), 7), (key("other"), 0)]));
        assert!(read("", &of).is_empty());
    }
}
