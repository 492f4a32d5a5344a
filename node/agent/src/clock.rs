//! The agent's time: the machine's, or one that a test moves.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

/// Tells the time and waits for it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<watch::Sender<Timestamp>>>,
}

impl Clock {
    /// A clock that stands still until [`advance`](Self::advance).
    #[must_use]
    pub fn manual(at: Timestamp) -> Self {
        Self { manual: Some(Arc::new(watch::Sender::new(at))) }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.manual.as_ref().map_or_else(Timestamp::now, |manual| *manual.borrow())
    }

    /// Moves a manual clock; the machine's cannot be moved.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
            manual.send_modify(|now| *now = now.checked_add(by).unwrap_or(Timestamp::MAX));
        }
    }

    /// Waits until `at`; for ever where there is no such moment.
    pub async fn sleep_until(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return std::future::pending().await };
        match &self.manual {
            None => {
                let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
                tokio::time::sleep(left).await;
            }
            Some(manual) => {
                let mut now = manual.subscribe();
                if now.wait_for(|now| *now >= at).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Waits this long.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now().checked_add(duration).ok()).await;
    }
}
