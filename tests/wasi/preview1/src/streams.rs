//! Standard streams, `poll_oneoff`, and what there is of sockets.

use crate::abi::{self, Event, Fdstat, Iovec, Subscription, errno, rights};
use crate::sys;

/// It is given "typed" to read.
pub(crate) fn stdio() {
    let mut text = String::new();
    loop {
        let part = sys::read(0, 3).unwrap();
        if part.is_empty() {
            break;
        }
        text += &part;
    }
    assert_eq!(text, "typed");
    sys::print(1, "to stdout\n");
    sys::print(2, "to stderr\n");
    assert_eq!(sys::write(0, "x"), Err(errno::BADF), "stdin is written to");
    assert_eq!(sys::read(1, 1), Err(errno::BADF), "stdout is read");
    assert_eq!((sys::pread(0, 1, 0), sys::pwrite(1, "x", 0)), (Err(errno::SPIPE), Err(errno::SPIPE)));
    let mut stat = Fdstat::default();
    assert_eq!(unsafe { abi::fd_fdstat_get(1, &mut stat) }, errno::SUCCESS);
    assert_eq!(stat.rights_base, 64, "no more than to write");
    sys::close(1).unwrap();
    assert_eq!(sys::write(1, "x"), Err(errno::BADF), "it is closed");
}

fn happened(subscriptions: &[Subscription]) -> sys::Result<Vec<Event>> {
    let (mut events, mut count) = (vec![Event::default(); subscriptions.len()], 0);
    let errno =
        unsafe { abi::poll_oneoff(subscriptions.as_ptr(), events.as_mut_ptr(), subscriptions.len(), &mut count) };
    sys::outcome(errno, ())?;
    events.truncate(count);
    Ok(events)
}

fn clock(id: u32, timeout: u64, flags: u16) -> Subscription {
    Subscription { userdata: 7, tag: 0, id, timeout, flags, ..Subscription::default() }
}

fn file(fd: i32, tag: u64) -> Subscription {
    Subscription { userdata: 8, tag, id: fd as u32, ..Subscription::default() }
}

pub(crate) fn wait_an_hour() {
    happened(&[clock(1, 3_600_000_000_000, 0)]).unwrap();
}

pub(crate) fn poll() {
    assert_eq!(happened(&[]).err(), Some(errno::INVAL));
    // Monotonic and realtime, relative; an absolute time that is past.
    for subscription in [clock(1, 1_000_000, 0), clock(0, 1_000_000, 0), clock(0, 1, 1), clock(1, 0, 1)] {
        let events = happened(&[subscription]).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].userdata, events[0].error, events[0].kind), (7, 0, 0));
    }
    assert_eq!(happened(&[clock(2, 1, 0)]).err(), Some(errno::INVAL), "a process' clock");

    sys::put(sys::DATA, "polled", "text");
    let fd = sys::open(sys::DATA, "polled", 0, rights::READ | rights::WRITE, 0).unwrap();
    // The file can be read and written at once; the hour is not over.
    let events = happened(&[clock(1, 3_600_000_000_000, 0), file(fd, 1), file(fd, 2), file(1, 2)]).unwrap();
    assert!(!events.is_empty() && events.iter().all(|event| event.userdata == 8 && event.error == 0));
    assert!(events.iter().all(|event| event.kind == 1 || event.kind == 2));
    assert_eq!(happened(&[file(sys::NONE, 1)]).err(), Some(errno::BADF));
    sys::close(fd).unwrap();
    sys::unlink(sys::DATA, "polled").unwrap();
}

pub(crate) fn sockets() {
    let (mut accepted, mut moved, mut flags, iovec) = (0, 0, 0, Iovec { buf: [0u8; 1].as_mut_ptr(), len: 1 });
    for (fd, problem) in [(1, errno::NOTSOCK), (sys::DATA, errno::NOTSOCK), (sys::NONE, errno::BADF)] {
        let outcomes = unsafe {
            [
                abi::sock_accept(fd, 0, &mut accepted),
                abi::sock_recv(fd, &iovec, 1, 0, &mut moved, &mut flags),
                abi::sock_send(fd, &iovec, 1, 0, &mut moved),
                abi::sock_shutdown(fd, 3),
            ]
        };
        assert_eq!(outcomes, [problem; 4], "of {fd}");
    }
}
