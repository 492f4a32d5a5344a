//! A guest that wants all that it can get, and keeps it.

use crate::abi::{errno, rights};
use crate::sys::{self, DATA};

/// Opens `/data/hoarded`; says how often, and waits.
pub(crate) fn all() {
    let mut files = Vec::new();
    let refused = loop {
        match sys::open(DATA, "hoarded", 0, rights::READ, 0) {
            Ok(file) => files.push(file),
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, errno::MFILE);
    // What is given back can be had again.
    if let Some(file) = files.pop() {
        sys::close(file).unwrap();
        files.push(sys::open(DATA, "hoarded", 0, rights::READ, 0).unwrap());
    }
    sys::print(1, &format!("{} files\n", files.len()));
    crate::streams::wait_an_hour();
}
