//! `wasi:io`, and the standard streams of `wasi:cli`.

use wasip2::cli::{stderr, stdin, stdout};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags, filesystem_error_code};
use wasip2::io::poll;
use wasip2::io::streams::{InputStream, StreamError};

use crate::files::{self, put};

pub(crate) fn read_all(input: &InputStream) -> String {
    let mut bytes = Vec::new();
    loop {
        match input.blocking_read(3) {
            Ok(part) => bytes.extend(part),
            Err(StreamError::Closed) => return String::from_utf8(bytes).unwrap(),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// It is given "typed" to read.
pub(crate) fn stdio() {
    let input = stdin::get_stdin();
    assert_eq!(read_all(&input), "typed");
    stdout::get_stdout().blocking_write_and_flush(b"to stdout\n").unwrap();
    stderr::get_stderr().blocking_write_and_flush(b"to stderr\n").unwrap();
}

pub(crate) fn poll() {
    let (hour, soon, at_once) =
        (subscribe_duration(3_600_000_000_000), subscribe_duration(1_000_000), subscribe_duration(0));
    at_once.block();
    assert!(!hour.ready());
    assert_eq!(poll::poll(&[&hour, &at_once]), [1]);
    soon.block();
    let mut ready = poll::poll(&[&at_once, &soon, &hour]);
    ready.sort_unstable();
    assert_eq!(ready, [0, 1]);
}

/// A file of the digits, opened to be read and written.
fn digits(name: &str) -> Descriptor {
    let data = files::data();
    put(&data, name, "0123456789");
    data.open_at(PathFlags::empty(), name, OpenFlags::empty(), DescriptorFlags::READ | DescriptorFlags::WRITE).unwrap()
}

fn text(file: &Descriptor) -> String {
    String::from_utf8(file.read(100, 0).unwrap().0).unwrap()
}

pub(crate) fn input() {
    let file = digits("input");
    let input = file.read_via_stream(2).unwrap();
    let ready = input.subscribe();
    let mut read = Vec::new();
    // What is there at once may be nothing.
    while read.len() < 3 {
        ready.block();
        read.extend(input.read(3 - read.len() as u64).unwrap());
    }
    assert_eq!(read, b"234");
    let mut skipped = input.skip(1).unwrap();
    while skipped < 1 {
        ready.block();
        skipped += input.skip(1).unwrap();
    }
    assert_eq!((input.blocking_skip(1).unwrap(), input.blocking_read(1).unwrap()), (1, b"7".to_vec()));
    assert_eq!(read_all(&input), "89");
    drop(ready);
    drop(input);

    // The stream of a file that can only be written to fails, and says how.
    let data = files::data();
    let closed = data.open_at(PathFlags::empty(), "input", OpenFlags::empty(), DescriptorFlags::WRITE).unwrap();
    let Err(StreamError::LastOperationFailed(error)) = closed.read_via_stream(0).unwrap().blocking_read(1) else {
        panic!("what is opened to be written to was read")
    };
    assert_eq!(filesystem_error_code(&error), Some(ErrorCode::BadDescriptor), "{error}");
    data.unlink_file_at("input").unwrap();
}

pub(crate) fn output() {
    let file = digits("output");
    let output = file.write_via_stream(4).unwrap();
    let ready = output.subscribe();
    ready.block();
    assert!(output.check_write().unwrap() >= 2);
    output.write(b"AB").unwrap();
    output.flush().unwrap();
    output.blocking_flush().unwrap();
    assert_eq!(text(&file), "0123AB6789");
    output.blocking_write_and_flush(b"CD").unwrap();
    assert!(output.check_write().unwrap() >= 1);
    output.write_zeroes(1).unwrap();
    output.blocking_flush().unwrap();
    output.blocking_write_zeroes_and_flush(2).unwrap();
    assert_eq!(text(&file), "0123ABCD\0\0\0");
    drop(ready);
    drop(output);
    let appended = file.append_via_stream().unwrap();
    appended.blocking_write_and_flush(b"end").unwrap();
    assert_eq!(text(&file), "0123ABCD\0\0\0end");

    // The largest offset that there is leaves no room: the stream's error has a text and a code.
    let beyond = file.write_via_stream(i64::MAX as u64).unwrap();
    let Err(StreamError::LastOperationFailed(error)) = beyond.blocking_write_and_flush(b"xx") else {
        panic!("a file may be as large as that")
    };
    assert!(!error.to_debug_string().is_empty());
    assert!(
        matches!(
            filesystem_error_code(&error),
            Some(ErrorCode::FileTooLarge | ErrorCode::Invalid | ErrorCode::Overflow)
        ),
        "{error}"
    );
    files::data().unlink_file_at("output").unwrap();
}

pub(crate) fn splice() {
    let (from, to) = (digits("from"), digits("to"));
    let (input, output) = (from.read_via_stream(5).unwrap(), to.write_via_stream(0).unwrap());
    assert_eq!(output.blocking_splice(&input, 2).unwrap(), 2);
    output.blocking_flush().unwrap();
    let mut moved = 0;
    while moved < 1 {
        input.subscribe().block();
        moved += output.splice(&input, 1).unwrap();
    }
    output.blocking_flush().unwrap();
    assert_eq!(text(&to), "5673456789");
    drop((input, output));
    for name in ["from", "to"] {
        files::data().unlink_file_at(name).unwrap();
    }
}
