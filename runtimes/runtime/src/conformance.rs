//! The suite that every runtime passes.
//!
//! A runtime's tests implement [`Fixture`] (how to get the runtime, and an image for each [`Workload`]) and call
//! [`conformance_tests!`](crate::conformance_tests) once: each check below becomes one `#[tokio::test]`. The checks
//! know [`Runtime`](crate::Runtime) alone; what differs between kinds by nature is asked of the fixture.
//!
//! Nothing here asserts a duration. [`DEADLINE`] only turns a runtime that hangs into a failure.

#![allow(clippy::unwrap_used, reason = "tests, kept in the library so that several crates can run them")]

mod checks;
mod streams;
mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Image, PodNetwork, Runtime};

pub use checks::*;
pub use streams::*;
pub use support::{Captured, Gate, Loopback};

/// No single step of a check takes longer, on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What a container of the suite does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Exits at once with code 0 and prints nothing.
    Exits0,
    /// Exits at once with code 3 and prints nothing.
    Exits3,
    /// Runs until it is told to end; [`Fixture::term_code`] is its answer to [`Signal::Term`](crate::Signal::Term).
    RunsUntilTold,
    /// Writes `out 1\nout 2\n` to stdout and `err 1\nerr 2\n` to stderr, then exits 0.
    Prints,
    /// Ends abnormally (a trap, an abort).
    Crashes,
    /// Allocates and touches memory until it is stopped.
    EatsMemory,
    /// Runs until it is told; [`Fixture::command`]s are run beside it.
    RunsCommands,
    /// Copies its stdin to its stdout, then exits 0.
    Copies,
    /// Can never run: [`Runtime::prepare`](crate::Runtime::prepare) refuses it.
    Broken,
}

/// What a command beside a [`Workload::RunsCommands`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Writes `out\n` to stdout and `err\n` to stderr, then exits 3.
    Prints,
    /// Copies its stdin to its stdout, then exits 0.
    Copies,
    /// Writes 1 MiB to stdout, then exits 0.
    Floods,
    /// Never ends by itself.
    Waits,
}

/// An image and how to start it.
#[derive(Clone, Debug)]
pub struct Program {
    /// What to run.
    pub image: Arc<Image>,
    /// `command` of the container.
    pub command: Vec<String>,
    /// `args` of the container.
    pub args: Vec<String>,
}

/// A runtime under test.
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// The runtime. The same one each time.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// The program for a workload; none where this fixture cannot have it (the check is then left out).
    async fn program(&self, workload: Workload) -> Option<Program>;

    /// The command for a deed.
    fn command(&self, deed: Deed) -> Vec<String>;

    /// A Pod's network.
    fn network(&self) -> Arc<dyn PodNetwork> {
        Arc::new(Loopback::new([127, 0, 0, 1].into()))
    }

    /// The exit code of [`Workload::RunsUntilTold`] after `Term`.
    fn term_code(&self) -> i32 {
        143
    }

    /// The exit code of [`Workload::Crashes`].
    fn crash_code(&self) -> i32 {
        134
    }

    /// The `limits.memory` under which [`Workload::EatsMemory`] is run; none where the machine cannot enforce it.
    fn memory_limit(&self) -> Option<u64> {
        Some(32 << 20)
    }
}

/// Makes one `#[tokio::test]` of each check. The argument is an expression that makes a
/// [`Fixture`](crate::conformance::Fixture); it may `.await`.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests!(@each $fixture;
            exit_codes, mounts_made_late, output_is_whole_and_in_order, lifecycle, term_ends, kill_ends, signals_to_the_dead,
            waiters, wrong_states, unknown_containers, crash, out_of_memory, broken_image, unprepared_image,
            many_at_once, neighbours_are_left_alone, slow_output_delays_only_its_own, limits_change, stats, exec_streams_and_code,
            exec_reads_to_the_end, exec_waits_for_its_reader, exec_ends_with_its_caller, attach_reaches_both_ways);
    };
    (@each $fixture:expr; $($check:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let fixture = $fixture;
                $crate::conformance::$check(&fixture).await;
            }
        )+
    };
}
