//! What a component is told of itself and of its machine: `wasi:cli/environment`, `exit`, `wasi:clocks`, `wasi:random`.

use wasip2::cli::{environment, exit};
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::random::{insecure, insecure_seed, random};

pub(crate) fn environment() {
    assert_eq!(environment::get_arguments(), ["guest.wasm", "environment", "", "two words", "ünï"]);
    let variables = environment::get_environment();
    for (name, value) in [("COLOUR", "green=blue"), ("EMPTY", "")] {
        assert!(variables.contains(&(name.to_owned(), value.to_owned())), "{variables:?}");
    }
    assert_eq!(environment::initial_cwd().as_deref(), Some("/data"));
}

pub(crate) fn clocks() {
    assert!(monotonic_clock::resolution() > 0);
    let begun = monotonic_clock::now();
    monotonic_clock::subscribe_duration(2_000_000).block();
    assert!(monotonic_clock::now() >= begun + 2_000_000);
    monotonic_clock::subscribe_instant(begun + 4_000_000).block();
    assert!(monotonic_clock::now() >= begun + 4_000_000);
    // A time that is past.
    monotonic_clock::subscribe_instant(0).block();

    let resolution = wall_clock::resolution();
    assert!(resolution.seconds > 0 || resolution.nanoseconds > 0);
    let now = wall_clock::now();
    assert!(now.seconds > 1_700_000_000 && now.nanoseconds < 1_000_000_000, "{now:?}");
}

pub(crate) fn random() {
    let drawn = [random::get_random_bytes(32), random::get_random_bytes(32)];
    assert!(drawn.iter().all(|bytes| bytes.len() == 32) && drawn[0] != drawn[1]);
    assert!(random::get_random_bytes(0).is_empty());
    assert_ne!(random::get_random_u64(), random::get_random_u64());
    let drawn = [insecure::get_insecure_random_bytes(32), insecure::get_insecure_random_bytes(32)];
    assert!(drawn.iter().all(|bytes| bytes.len() == 32) && drawn[0] != drawn[1]);
    assert_ne!(insecure::get_insecure_random_u64(), insecure::get_insecure_random_u64());
    assert_ne!(insecure_seed::insecure_seed(), (0, 0));
}

/// Their exit codes are looked at by whoever runs them.
pub(crate) fn exit() {
    exit::exit(Err(()));
}

pub(crate) fn exit_with_code() {
    exit::exit_with_code(200);
}
