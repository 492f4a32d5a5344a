//! One nftables transaction over netlink: elements of the set that come or go. Pure.
//!
//! Numbers are in the machine's order, but for what the kernel says is in the network's.

use std::io;
use std::net::SocketAddrV4;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;

const ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The subsystem of netfilter that nftables is.
const NFTABLES: u16 = 10;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const FAMILY_NONE: u8 = 0;
const FAMILY_IPV4: u8 = 2;

const NESTED: u16 = 0x8000;
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const KEY: u16 = 1;
const VALUE: u16 = 1;

/// What is to become of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// To be there; it may be already.
    Add,
    /// To be there no more; it must be there.
    Delete,
}

/// The transaction that changes one element of `set`, whose keys are `ipv4_addr . inet_service`.
pub(super) fn transaction(table: &str, set: &str, change: Change, key: SocketAddrV4) -> Vec<u8> {
    // Each part of a key fills whole registers of 32 bits.
    let [high, low] = key.port().to_be_bytes();
    let mut value = key.ip().octets().to_vec();
    value.extend([high, low, 0, 0]);
    let item = attribute(NESTED | LIST_ITEM, &attribute(NESTED | KEY, &attribute(VALUE, &value)));
    let body = [text(TABLE, table), text(SET, set), attribute(NESTED | ELEMENTS, &item)].concat();
    let (kind, flags) = match change {
        Change::Add => (NEW_ELEMENT, REQUEST | ACK | CREATE),
        Change::Delete => (DELETE_ELEMENT, REQUEST | ACK),
    };
    let frame = |kind| message(kind, REQUEST, FAMILY_NONE, NFTABLES, &[]);
    [frame(BATCH_BEGIN), message((NFTABLES << 8) | kind, flags, FAMILY_IPV4, 0, &body), frame(BATCH_END)].concat()
}

/// What the kernel answers: done, or why not.
pub(super) fn answer(message: &[u8]) -> io::Result<()> {
    let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = message.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "nftables answered something else than was asked")),
    }
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Number and sender: one is asked at a time, and the kernel knows who asks.
    message.extend([0; 8]);
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    message.extend(body);
    message
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Each message's kind and body.
    fn parsed(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let length = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
            let kind = u16::from_ne_bytes(bytes[4..6].try_into().unwrap());
            messages.push((kind, bytes[20..length].to_vec()));
            bytes = &bytes[length..];
        }
        messages
    }

    #[test]
    fn a_transaction_frames_one_change_with_its_key_in_whole_registers() {
        let key = "10.128.0.5:8080".parse().unwrap();
        for (change, kind) in [(Change::Add, 0x0a0c), (Change::Delete, 0x0a0e)] {
            let messages = parsed(&transaction("table", "set", change, key));
            let kinds: Vec<u16> = messages.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds, [BATCH_BEGIN, kind, BATCH_END]);
            let body = &messages[1].1;
            assert!(body.len().is_multiple_of(4) && body[4..].starts_with(b"table\0\0\0"), "{body:?}");
            assert!(body.ends_with(&[10, 128, 0, 5, 0x1f, 0x90, 0, 0]), "{body:?}");
        }
    }

    #[test]
    fn answers_are_read_and_what_is_none_is_an_error() {
        let answered = |code: i32| {
            let mut message = [vec![0; 4], ERROR.to_ne_bytes().to_vec(), vec![0; 10]].concat();
            message.extend(code.to_ne_bytes());
            answer(&message).map_err(|error| error.raw_os_error())
        };
        assert_eq!((answered(0), answered(-2)), (Ok(()), Err(Some(2))));
        assert_eq!(answer(&[0; 20]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(answer(&[]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
