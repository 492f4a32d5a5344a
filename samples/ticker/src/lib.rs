//! A command that logs a line a second until it is stopped, or `TICKS` lines where that is set.
#![cfg(target_family = "wasm")]

use sample_kit::wasi;
use wasip2::clocks::monotonic_clock;

struct Ticker;

wasip2::cli::command::export!(Ticker);

impl wasip2::exports::cli::run::Guest for Ticker {
    fn run() -> Result<(), ()> {
        let last = wasi::variable("TICKS").and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        for n in 1..=last {
            wasi::log(&format!("tick {n}"));
            if n < last {
                monotonic_clock::subscribe_duration(1_000_000_000).block();
            }
        }
        Ok(())
    }
}
