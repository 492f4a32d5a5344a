//! CPU: measured for every container, limited for those with `limits.cpu`.
//!
//! A guest runs inside polls of a future. [`Metered`] wraps that future: it charges each poll with the CPU time that the
//! thread spent in it, and where the container has spent its budget it does not poll again until a new period has
//! refilled it. Because a guest yields after its slice, a poll is never much longer than one, so the
//! budget is kept to within one slice per instance and period, as is the kernel's CFS bandwidth control. A guest that used its whole slice
//! waits for its turn ([`turns`](crate::turns)) before it is polled again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Sleep, sleep_until};

use wherry_runtime::{Limits, Throttling};

use crate::engine::Pulse;
use crate::turns::{self, Ticket, Turns};

/// The period over which `limits.cpu` holds, as the kubelet sets it for containers.
const PERIOD: Duration = Duration::from_millis(100);

/// CPU time by which a preempted poll is known for a guest that wants more, and not for one that the tick happened to meet.
const GREED: Duration = Duration::from_millis(1);

/// The weight that has one core's shares: time of a container of another weight is counted in its proportion.
const CORE_SHARES: u64 = 1024;

/// One container's CPU time.
pub(crate) struct Cpu {
    used_nanos: AtomicU64,
    /// The same by the container's weight, and what it missed while it did not want any: its place among those who wait for a turn.
    weighted_nanos: AtomicU64,
    shares: AtomicU64,
    budget: Mutex<Option<Budget>>,
    turns: Arc<Turns>,
}

/// CPU time that may be spent in each period. What is overspent is taken from the periods that follow.
#[derive(Debug)]
struct Budget {
    quota: u64,
    period_start: Instant,
    spent: u64,
    counted: Throttling,
    /// The end of the last wait that was counted: all instances of a container wait for the same one.
    waited_until: Instant,
}

impl Budget {
    fn new(millis: u64, now: Instant) -> Self {
        let period = u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX);
        // As the kubelet: at least 1 ms a period.
        let quota = (millis.saturating_mul(period) / 1000).max(1_000_000);
        Self {
            quota,
            period_start: now,
            spent: 0,
            counted: Throttling { periods: 1, ..Throttling::default() },
            waited_until: now,
        }
    }

    fn charge(&mut self, nanos: u64) {
        self.spent = self.spent.saturating_add(nanos);
    }

    /// When the container may run again; none where it may now.
    fn blocked_until(&mut self, now: Instant) -> Option<Instant> {
        let periods = now.saturating_duration_since(self.period_start).as_nanos() / PERIOD.as_nanos();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods > 0 {
            self.spent = self.spent.saturating_sub(self.quota.saturating_mul(u64::from(periods)));
            self.period_start += PERIOD * periods;
            self.counted.periods += 1;
        }
        let debt = u32::try_from(self.spent / self.quota).unwrap_or(u32::MAX);
        let until = (debt > 0).then(|| self.period_start + PERIOD * debt)?;
        self.count(now, until);
        Some(until)
    }

    fn count(&mut self, now: Instant, until: Instant) {
        let wait = until.saturating_duration_since(self.waited_until.max(now)).as_nanos();
        if wait > 0 {
            self.counted.throttled_periods += 1;
            self.counted.throttled_nanos += u64::try_from(wait).unwrap_or(u64::MAX);
            self.waited_until = until;
        }
    }
}

impl Cpu {
    pub(crate) fn new(limits: &Limits, turns: Arc<Turns>) -> Self {
        let budget = limits.cpu_millis.map(|millis| Budget::new(millis, Instant::now()));
        Self {
            used_nanos: AtomicU64::new(0),
            weighted_nanos: AtomicU64::new(0),
            shares: AtomicU64::new(limits.shares()),
            budget: Mutex::new(budget),
            turns,
        }
    }

    /// Other limits, from the next period on; what was counted goes on.
    pub(crate) fn limit(&self, limits: &Limits) {
        self.shares.store(limits.shares(), Ordering::Relaxed);
        let mut budget = self.budget.lock();
        let new = limits.cpu_millis.map(|millis| Budget::new(millis, Instant::now()));
        *budget = new.map(|new| match &*budget {
            Some(old) => Budget { counted: old.counted, waited_until: old.waited_until, ..new },
            None => new,
        });
    }

    /// CPU time used so far.
    pub(crate) fn used_nanos(&self) -> u64 {
        self.used_nanos.load(Ordering::Relaxed)
    }

    /// How the limit held it back; none without a limit.
    pub(crate) fn throttling(&self) -> Option<Throttling> {
        self.budget.lock().as_ref().map(|budget| budget.counted)
    }

    /// Charges what `work` does on this thread.
    pub(crate) fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = thread_nanos();
        let outcome = work();
        self.charge(thread_nanos().saturating_sub(begun));
        outcome
    }

    fn charge(&self, nanos: u64) {
        self.used_nanos.fetch_add(nanos, Ordering::Relaxed);
        let weighted = nanos.saturating_mul(CORE_SHARES) / self.shares.load(Ordering::Relaxed);
        self.weighted_nanos.fetch_add(weighted, Ordering::Relaxed);
        if let Some(budget) = &mut *self.budget.lock() {
            budget.charge(nanos);
        }
    }

    /// Waits for a turn.
    fn line_up(&self) -> Ticket {
        let ticket = self.turns.join(self.weighted_nanos.load(Ordering::Relaxed));
        self.weighted_nanos.fetch_max(ticket.time(), Ordering::Relaxed);
        ticket
    }

    fn blocked_until(&self) -> Option<Instant> {
        self.budget.lock().as_mut()?.blocked_until(Instant::now())
    }
}

/// CPU time of the calling thread.
fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A future whose CPU time is charged to, and bounded by, a container's.
pub(crate) struct Metered<F> {
    cpu: Arc<Cpu>,
    pulse: Arc<Pulse>,
    blocked: Option<Pin<Box<Sleep>>>,
    /// Where its last slice was not enough: what it needs for the next.
    ticket: Option<Ticket>,
    work: Pin<Box<F>>,
}

impl<F: Future> Metered<F> {
    pub(crate) fn new(cpu: Arc<Cpu>, pulse: Arc<Pulse>, work: F) -> Self {
        Self { cpu, pulse, blocked: None, ticket: None, work: Box::pin(work) }
    }

    /// Polls the work on this thread, and charges it. Where it wants more than it may have at once, it is in line for a turn afterwards.
    fn slice(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        turns::take_preempted();
        let begun = thread_nanos();
        let beat = self.pulse.beat();
        let outcome = self.work.as_mut().poll(cx);
        drop(beat);
        let spent = thread_nanos().saturating_sub(begun);
        self.cpu.charge(spent);
        let greedy = turns::take_preempted() && u128::from(spent) >= GREED.as_nanos() && outcome.is_pending();
        self.ticket = greedy.then(|| self.cpu.line_up());
        outcome
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        loop {
            if let Some(blocked) = &mut this.blocked {
                if blocked.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.blocked = None;
            }
            let Some(until) = this.cpu.blocked_until() else { break };
            this.blocked = Some(Box::pin(sleep_until(until)));
        }
        match &mut this.ticket {
            None => this.slice(cx),
            Some(ticket) => {
                let turn = ready!(Pin::new(ticket).poll(cx));
                turn.run(|| this.slice(cx))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_budget_blocks_until_its_debt_is_paid() {
        let start = Instant::now();
        let mut budget = Budget::new(250, start);
        assert_eq!(budget.quota, 25_000_000);
        assert_eq!(budget.blocked_until(start), None);
        budget.charge(24_999_999);
        assert_eq!(budget.blocked_until(start), None);
        budget.charge(1);
        assert_eq!(budget.blocked_until(start), Some(start + PERIOD));
        budget.charge(50_000_000);
        assert_eq!(budget.blocked_until(start), Some(start + PERIOD * 3));
        let waits = Throttling { periods: 1, throttled_periods: 2, throttled_nanos: 300_000_000 };
        assert_eq!(budget.counted, waits, "a wait is counted once, however many wait");
        assert_eq!(budget.blocked_until(start + PERIOD * 3), None);
    }

    proptest! {
        /// Whatever the guest does, what it gets in the long run is its quota and at most one overspent slice.
        #[test]
        fn the_long_run_rate_is_the_quota(millis in 10u64..4000, slices in proptest::collection::vec(1u64..20_000_000, 1..200)) {
            let start = Instant::now();
            let mut budget = Budget::new(millis, start);
            let (mut now, mut used) = (start, 0u64);
            for slice in slices {
                if let Some(until) = budget.blocked_until(now) {
                    prop_assert!(until > now);
                    now = until;
                    prop_assert_eq!(budget.blocked_until(now), None);
                }
                budget.charge(slice);
                used += slice;
                let periods = now.duration_since(start).as_nanos() / PERIOD.as_nanos() + 1;
                prop_assert!(u128::from(used) <= u128::from(budget.quota) * periods + 20_000_000);
            }
        }
    }

    #[tokio::test]
    async fn work_is_charged() {
        let cpu = Arc::new(Cpu::new(&Limits::default(), Arc::new(Turns::new(1))));
        let spin = async { (0..1_000_000u64).fold(0u64, |sum, n| std::hint::black_box(sum.wrapping_add(n))) };
        Metered::new(Arc::clone(&cpu), Arc::default(), spin).await;
        assert!(cpu.used_nanos() > 0);
    }
}
