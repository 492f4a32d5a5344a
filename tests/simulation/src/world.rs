//! Time and chance of a simulated thread: what the C library would have told is told from a seed.
//!
//! Everything in a process learns the time, waits, and gets random bytes through four functions of the C library. In this
//! program they are ours. On a thread that has [`enter`]ed, the clock stands still while there is work; a wait for events
//! (where tokio's reactor parks) that finds none moves the clock to where the wait would have ended; random bytes come from
//! the seed, and with them hash seeds, UIDs, names and jitter. On every other thread they do what they always do.
//!
//! So the code under test has no hook for the simulation, third parties are simulated along with it, and half an hour
//! passes in the time that its work takes.
//!
//! Caveats
//! - Only the thread that entered is simulated: what it hands to other threads takes real time.
//! - A few crates fetch random bytes or hash seeds for the whole process, once: a run is repeatable when it is the first
//!   of its process.
#![allow(unsafe_code, reason = "functions of the C library are replaced, which is defined by their symbols alone")]

use std::cell::Cell;
use std::time::Duration;

use libc::{c_int, c_uint, c_void, clockid_t, epoll_event, size_t, ssize_t, timespec};

/// When every simulation begins: 2026-01-01T00:00:00Z, in seconds.
const BEGIN: u64 = 1_767_225_600;
/// What monotonic clocks say then, in seconds.
const UPTIME: u64 = 1_000_000;
const NANOS: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct World {
    /// Nanoseconds since the begin.
    now: u64,
    /// The state of the generator.
    random: u64,
}

thread_local! {
    static WORLD: Cell<Option<World>> = const { Cell::new(None) };
}

/// Makes this thread a simulated one, for good.
pub fn enter(seed: u64) {
    WORLD.set(Some(World { now: 0, random: seed }));
}

/// How long the simulation of this thread has lasted; zero if it is none.
pub fn elapsed() -> Duration {
    WORLD.get().map_or(Duration::ZERO, |world| Duration::from_nanos(world.now))
}

/// SplitMix64: small, and good enough for names and jitter.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Tells the time.
///
/// # Safety
/// As that of the C library: `time` points to a `timespec` or nowhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let Some(world) = WORLD.get() else {
        // SAFETY: the arguments are the caller's, handed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    };
    let begin = if clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE { BEGIN } else { UPTIME };
    if !time.is_null() {
        let seconds = begin + world.now / NANOS;
        // SAFETY: not null, and the caller vouches for the rest.
        unsafe { time.write(timespec { tv_sec: seconds as i64, tv_nsec: (world.now % NANOS) as i64 }) };
    }
    0
}

/// Gives random bytes.
///
/// # Safety
/// As that of the C library: `bytes` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(bytes: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    let Some(mut world) = WORLD.get() else {
        // SAFETY: the arguments are the caller's, handed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, bytes, length, flags) } as ssize_t;
    };
    if length > 0 {
        // SAFETY: the caller vouches for the room.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.cast::<u8>(), length) };
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&next(&mut world.random).to_le_bytes()[..chunk.len()]);
        }
        WORLD.set(Some(world));
    }
    length as ssize_t
}

/// Waits for events.
///
/// # Safety
/// As that of the C library: `events` has room for `most` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int {
    let world = WORLD.get();
    let patience = if world.is_some() { 0 } else { timeout };
    let mask = std::ptr::null::<c_void>();
    // SAFETY: the arguments are the caller's, handed on; there is no signal mask.
    let found = unsafe { libc::syscall(libc::SYS_epoll_pwait, epoll, events, most, patience, mask, 8) } as c_int;
    if let Some(mut world) = world
        && found == 0
    {
        assert!(timeout >= 0, "nothing in the simulation would ever happen again");
        world.now += u64::from(timeout.unsigned_abs()) * (NANOS / 1000);
        WORLD.set(Some(world));
    }
    found
}
