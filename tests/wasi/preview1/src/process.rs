//! What a process is told of itself and of its machine: `args_*`, `environ_*`, `clock_*`, `random_get`, `sched_yield`, `proc_*`.

use crate::abi::{self, errno};
use crate::sys;

pub(crate) fn arguments() {
    assert_eq!(sys::arguments(), ["guest.wasm", "arguments", "", "two words", "ünï"]);
}

pub(crate) fn environment() {
    let environment = sys::environment();
    assert!(environment.contains(&"COLOUR=green=blue".to_owned()), "{environment:?}");
    assert!(environment.contains(&"EMPTY=".to_owned()), "{environment:?}");
}

fn now(clock: i32) -> sys::Result<u64> {
    let mut time = 0;
    sys::outcome(unsafe { abi::clock_time_get(clock, 1, &mut time) }, ()).map(|()| time)
}

pub(crate) fn clocks() {
    let resolution = |clock| {
        let mut resolution = 0;
        sys::outcome(unsafe { abi::clock_res_get(clock, &mut resolution) }, ()).map(|()| resolution)
    };
    for clock in [0, 1] {
        assert!(resolution(clock).unwrap() > 0, "clock {clock}");
        let (first, second) = (now(clock).unwrap(), now(clock).unwrap());
        assert!(second >= first, "clock {clock}: {first}, {second}");
    }
    // A year after this was written, in nanoseconds; those of processes and threads are not offered.
    assert!(now(0).unwrap() > 1_700_000_000_000_000_000);
    for clock in [2, 3] {
        assert_eq!((now(clock), resolution(clock)), (Err(errno::BADF), Err(errno::BADF)));
    }
}

pub(crate) fn random() {
    let mut drawn = [[0u8; 32]; 2];
    for bytes in &mut drawn {
        assert_eq!(unsafe { abi::random_get(bytes.as_mut_ptr(), bytes.len()) }, errno::SUCCESS);
    }
    assert_ne!(drawn[0], drawn[1]);
    assert_eq!(unsafe { abi::random_get(drawn[0].as_mut_ptr(), 0) }, errno::SUCCESS);
}

pub(crate) fn yields() {
    for _ in 0..100 {
        assert_eq!(unsafe { abi::sched_yield() }, errno::SUCCESS);
    }
}

/// Its exit code is looked at by whoever runs it.
pub(crate) fn exit() {
    unsafe { abi::proc_exit(200) }
}

pub(crate) fn signals() {
    assert_eq!(unsafe { abi::proc_raise(15) }, errno::NOTSUP);
}
