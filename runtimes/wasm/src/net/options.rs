//! Socket options, as `wasi:sockets` words them.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use wasmtime_wasi::p2::SocketResult;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;
use wherry_runtime::SocketFamily;

const MIN_BUFFER: u64 = 4 << 10;
const MAX_BUFFER: u64 = 4 << 20;
/// Linux refuses longer keep-alive times and more probes.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(32_767);
const MAX_KEEP_ALIVE_PROBES: u32 = 127;

fn not_zero<T: PartialEq + Default>(value: T) -> SocketResult<T> {
    if value == T::default() { Err(ErrorCode::InvalidArgument.into()) } else { Ok(value) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: u64) -> SocketResult<Duration> {
    // The kernel counts in whole seconds.
    Ok(Duration::from_nanos(not_zero(nanos)?).max(Duration::from_secs(1)).min(MAX_KEEP_ALIVE))
}

pub(super) fn hop_limit(socket: &SockRef<'_>, family: SocketFamily) -> io::Result<u8> {
    let hops = match family {
        SocketFamily::V4 => socket.ttl_v4()?,
        SocketFamily::V6 => socket.unicast_hops_v6()?,
    };
    Ok(u8::try_from(hops).unwrap_or(u8::MAX))
}

pub(super) fn set_hop_limit(socket: &SockRef<'_>, family: SocketFamily, value: u8) -> SocketResult<()> {
    let hops = u32::from(not_zero(value)?);
    match family {
        SocketFamily::V4 => socket.set_ttl_v4(hops)?,
        SocketFamily::V6 => socket.set_unicast_hops_v6(hops)?,
    }
    Ok(())
}

// The kernel doubles what it is given for its own bookkeeping and tells the double.

pub(super) fn receive_buffer(socket: &SockRef<'_>) -> io::Result<u64> {
    Ok(socket.recv_buffer_size()? as u64 / 2)
}

pub(super) fn send_buffer(socket: &SockRef<'_>) -> io::Result<u64> {
    Ok(socket.send_buffer_size()? as u64 / 2)
}

fn buffer(value: u64) -> SocketResult<usize> {
    let bounded = not_zero(value)?.clamp(MIN_BUFFER, MAX_BUFFER);
    Ok(usize::try_from(bounded).unwrap_or(usize::MAX))
}

pub(super) fn set_receive_buffer(socket: &SockRef<'_>, value: u64) -> SocketResult<()> {
    Ok(socket.set_recv_buffer_size(buffer(value)?)?)
}

pub(super) fn set_send_buffer(socket: &SockRef<'_>, value: u64) -> SocketResult<()> {
    Ok(socket.set_send_buffer_size(buffer(value)?)?)
}

pub(super) fn keep_alive_idle(socket: &SockRef<'_>) -> io::Result<u64> {
    socket.tcp_keepalive_time().map(nanos)
}

/// Sets one parameter and leaves whether keep-alive is on as it was.
fn set_keep_alive(socket: &SockRef<'_>, parameter: &TcpKeepalive) -> SocketResult<()> {
    let enabled = socket.keepalive()?;
    socket.set_tcp_keepalive(parameter)?;
    Ok(socket.set_keepalive(enabled)?)
}

pub(super) fn set_keep_alive_idle(socket: &SockRef<'_>, value: u64) -> SocketResult<()> {
    set_keep_alive(socket, &TcpKeepalive::new().with_time(seconds(value)?))
}

pub(super) fn keep_alive_interval(socket: &SockRef<'_>) -> io::Result<u64> {
    socket.tcp_keepalive_interval().map(nanos)
}

pub(super) fn set_keep_alive_interval(socket: &SockRef<'_>, value: u64) -> SocketResult<()> {
    set_keep_alive(socket, &TcpKeepalive::new().with_interval(seconds(value)?))
}

pub(super) fn keep_alive_count(socket: &SockRef<'_>) -> io::Result<u32> {
    socket.tcp_keepalive_retries()
}

pub(super) fn set_keep_alive_count(socket: &SockRef<'_>, value: u32) -> SocketResult<()> {
    set_keep_alive(socket, &TcpKeepalive::new().with_retries(not_zero(value)?.min(MAX_KEEP_ALIVE_PROBES)))
}
