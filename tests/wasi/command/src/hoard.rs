//! A guest that wants all that it can get, and keeps it.

use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags};
use wasip2::sockets::network::{ErrorCode as NetworkCode, IpAddressFamily};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::files::{data, open};

/// Opens `/data/hoarded`, and makes sockets; says how many it got, and waits.
pub(crate) fn all() {
    let data = data();
    let mut files = Vec::new();
    let refused = loop {
        match open(&data, "hoarded", OpenFlags::empty(), DescriptorFlags::READ) {
            Ok(file) => files.push(file),
            Err(code) => break code,
        }
    };
    assert_eq!(refused, ErrorCode::InsufficientMemory);
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    let refused = loop {
        match create_tcp_socket(IpAddressFamily::Ipv4) {
            Ok(socket) => tcp.push(socket),
            Err(code) => break code,
        }
        match create_udp_socket(IpAddressFamily::Ipv4) {
            Ok(socket) => udp.push(socket),
            Err(code) => break code,
        }
    };
    assert_eq!(refused, NetworkCode::NewSocketLimit);
    // What is given back can be had again.
    if files.pop().is_some() {
        files.push(open(&data, "hoarded", OpenFlags::empty(), DescriptorFlags::READ).unwrap());
    }
    if tcp.pop().is_some() {
        tcp.push(create_tcp_socket(IpAddressFamily::Ipv4).unwrap());
    }
    let got = format!("{} files, {} sockets\n", files.len(), tcp.len() + udp.len());
    get_stdout().blocking_write_and_flush(got.as_bytes()).unwrap();
    subscribe_duration(3_600_000_000_000).block();
}
