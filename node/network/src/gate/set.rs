//! The kernel's set of served addresses, and the rule that leads there. Elements are changed by netlink from this process: a
//! transaction takes microseconds, of which starting `nft` would be a hundred.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};
use parking_lot::Mutex;

use super::message::{Change, answer, transaction};

const TABLE: &str = "wherry-served";
const SET: &str = "served";

/// The table, empty, with the rule that has the listener at `to` take connections to what is in the set: for `nft`. It replaces
/// what an earlier life left.
///
/// Packets of a connection find its socket by themselves. The rule comes after addresses are translated, those of the machine's own
/// clients too: they come by the loopback device.
pub(super) fn script(to: SocketAddrV4) -> String {
    format!(
        "add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  set {SET} {{
    type ipv4_addr . inet_service
  }}
  chain prerouting {{
    type filter hook prerouting priority -90;
    ip daddr . tcp dport @{SET} tproxy to {to} accept
  }}
}}
"
    )
}

/// For `nft`: the table goes.
pub(super) fn removal() -> String {
    format!("delete table ip {TABLE}\n")
}

/// The set.
#[derive(Debug)]
pub(super) struct Set {
    /// Held from a question to its answer.
    channel: Mutex<OwnedFd>,
}

impl Set {
    /// By a netlink socket of the namespace that the set is in.
    pub(super) fn new(channel: OwnedFd) -> Self {
        Self { channel: Mutex::new(channel) }
    }

    pub(super) fn add(&self, address: SocketAddrV4) -> io::Result<()> {
        self.change(Change::Add, address)
    }

    pub(super) fn delete(&self, address: SocketAddrV4) -> io::Result<()> {
        self.change(Change::Delete, address)
    }

    /// The kernel has done it, or not, before `send` returns, and its answer is there.
    fn change(&self, change: Change, address: SocketAddrV4) -> io::Result<()> {
        let asked = transaction(TABLE, SET, change, address);
        let channel = self.channel.lock();
        send(channel.as_raw_fd(), &asked, MsgFlags::empty())?;
        // An error repeats what was asked.
        let mut answered = [0; 512];
        let length = recv(channel.as_raw_fd(), &mut answered, MsgFlags::MSG_DONTWAIT)?;
        let first = answer(&answered[..length]);
        // Of a transaction that is refused, each part may be told of.
        while first.is_err() && recv(channel.as_raw_fd(), &mut answered, MsgFlags::MSG_DONTWAIT).is_ok() {}
        first
    }
}
