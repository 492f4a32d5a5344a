//! One binary for all targets; `WHERRY_TARGET` names the one that runs.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use wherry_fuzz::TARGETS;

fuzz_target!(|input: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("WHERRY_TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|(target, _)| *target == name);
        target.unwrap_or_else(|| panic!("WHERRY_TARGET={name:?} is none of the targets")).1
    });
    target(input);
});
