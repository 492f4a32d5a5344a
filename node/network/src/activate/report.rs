//! Who is waited for, and who was refused: what the agent tells the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::services::ServiceKey;

/// Connections that are held or joined for one Service.
const OF_ONE: usize = 256;
/// Refusals that have not been told yet; more are not told.
const UNTOLD: usize = 64;

/// Why a connection was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many as may be are held.
    TooMany,
    /// No Pod became ready in time.
    TooLong,
}

/// The Services that connections of this node are held or carried for, and how many each.
pub type Waited = BTreeMap<ServiceKey, usize>;

/// What a node's connections report.
#[derive(Debug)]
pub(crate) struct Reports {
    waited: watch::Sender<Waited>,
    refusals: mpsc::Sender<(ServiceKey, Refusal)>,
    untold: Mutex<Option<mpsc::Receiver<(ServiceKey, Refusal)>>>,
}

impl Reports {
    pub(crate) fn new() -> Arc<Self> {
        let (refusals, untold) = mpsc::channel(UNTOLD);
        Arc::new(Self { waited: watch::Sender::default(), refusals, untold: Mutex::new(Some(untold)) })
    }

    /// The Services that are waited for, as they change.
    pub(crate) fn waited(&self) -> watch::Receiver<Waited> {
        self.waited.subscribe()
    }

    /// The refusals: for one reader.
    pub(crate) fn refusals(&self) -> Option<mpsc::Receiver<(ServiceKey, Refusal)>> {
        self.untold.lock().take()
    }

    pub(crate) fn refused(&self, service: ServiceKey, refusal: Refusal) {
        // Whoever reads them counts alike ones together: one more of a full queue says nothing new.
        drop(self.refusals.try_send((service, refusal)));
    }

    /// Counts a connection for a Service until it is dropped; none where there are too many.
    pub(crate) fn wait_for(self: &Arc<Self>, service: &ServiceKey) -> Option<Waiting> {
        let mut counted = false;
        self.waited.send_if_modified(|waited| {
            let count = waited.entry(service.clone()).or_default();
            counted = *count < OF_ONE;
            *count += usize::from(counted);
            // Only who is waited for is news, not by how many.
            counted && *count == 1
        });
        counted.then(|| Waiting { reports: Arc::clone(self), service: service.clone() })
    }
}

/// A connection that counts.
#[derive(Debug)]
pub(crate) struct Waiting {
    reports: Arc<Reports>,
    service: ServiceKey,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.reports.waited.send_if_modified(|waited| {
            let Some(count) = waited.get_mut(&self.service) else { return false };
            *count -= 1;
            let last = *count == 0;
            if last {
                waited.remove(&self.service);
            }
            last
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn connections_of_one_service_are_bounded_and_news_are_few() {
        let reports = Reports::new();
        let mut waited = reports.waited();
        let mut web: Vec<_> = (0..OF_ONE).map(|_| reports.wait_for(&key("web")).unwrap()).collect();
        assert!(reports.wait_for(&key("web")).is_none());
        let other = reports.wait_for(&key("other")).unwrap();
        assert!(waited.has_changed().unwrap());
        assert_eq!(waited.borrow_and_update().clone(), Waited::from([(key("other"), 1), (key("web"), OF_ONE)]));
        web.pop();
        assert!(!waited.has_changed().unwrap(), "others are still waited for");
        assert!(reports.wait_for(&key("web")).is_some(), "there is room again");
        drop((web, other));
        assert!(waited.borrow_and_update().is_empty());
    }

    #[test]
    fn refusals_are_told_once_and_bounded() {
        let reports = Reports::new();
        let mut untold = reports.refusals().unwrap();
        assert!(reports.refusals().is_none());
        for _ in 0..2 * UNTOLD {
            reports.refused(key("web"), Refusal::TooMany);
        }
        let mut told = 0;
        while let Ok((service, refusal)) = untold.try_recv() {
            assert_eq!((service.name.as_str(), refusal), ("web", Refusal::TooMany));
            told += 1;
        }
        assert_eq!(told, UNTOLD);
    }
}
