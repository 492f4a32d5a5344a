//! How soon a Pod that failed on a node is replaced there: at once, then after 1 s, doubling up to 15 minutes. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use wherry_reconcile::ObjectKey;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

struct Wait {
    delay: Duration,
    since: Instant,
}

/// The waits of all DaemonSets, by node and revision.
#[derive(Default)]
pub(super) struct Patience {
    waits: HashMap<ObjectKey, HashMap<(String, String), Wait>>,
}

impl Patience {
    /// Whether a Pod of the revision `hash` that failed on `node` may be replaced now; if not, how long to wait.
    pub(super) fn ask(&mut self, set: &ObjectKey, node: &str, hash: &str, now: Instant) -> Result<(), Duration> {
        let waits = self.waits.entry(set.clone()).or_default();
        // What is of older revisions, or long over, is of no interest any more.
        waits.retain(|(_, of), wait| of == hash && now.duration_since(wait.since) < 2 * LONGEST);
        let key = (node.to_owned(), hash.to_owned());
        let delay = match waits.get(&key) {
            None => FIRST,
            Some(wait) => match wait.delay.checked_sub(now.duration_since(wait.since)) {
                Some(left) if !left.is_zero() => return Err(left),
                _ => (wait.delay * 2).min(LONGEST),
            },
        };
        waits.insert(key, Wait { delay, since: now });
        Ok(())
    }

    /// The DaemonSet is gone.
    pub(super) fn forget(&mut self, set: &ObjectKey) {
        self.waits.remove(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double() {
        let mut patience = Patience::default();
        let set = ObjectKey::new("default", "logs");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(patience.ask(&set, "n", "a", at(0)), Ok(()));
        assert_eq!(patience.ask(&set, "n", "a", at(0)), Err(Duration::from_secs(1)));
        assert_eq!(patience.ask(&set, "m", "a", at(0)), Ok(()), "another node");
        assert_eq!(patience.ask(&set, "n", "a", at(1)), Ok(()));
        assert_eq!(patience.ask(&set, "n", "a", at(2)), Err(Duration::from_secs(1)));
        assert_eq!(patience.ask(&set, "n", "b", at(2)), Ok(()), "another revision");
        assert_eq!(patience.ask(&set, "n", "b", at(3)), Ok(()));
        patience.forget(&set);
        assert_eq!(patience.ask(&set, "n", "b", at(3)), Ok(()));
    }
}
