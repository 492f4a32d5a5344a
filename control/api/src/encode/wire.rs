//! The pieces of protobuf's wire format, and the envelope that Kubernetes puts around an object.

/// How the value of a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Seven bits a byte.
    Varint,
    /// Eight bytes, the lowest first.
    Fixed64,
    /// A length and as many bytes.
    Bytes,
}

/// Appends a number, seven bits a byte.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`varint`] appends.
fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a field's number and form.
pub(super) fn key(out: &mut Vec<u8>, number: u16, wire: Wire) {
    let wire = match wire {
        Wire::Varint => 0,
        Wire::Fixed64 => 1,
        Wire::Bytes => 2,
    };
    varint(out, u64::from(number) << 3 | wire);
}

/// Appends a field whose value is a string, bytes or a message.
pub(super) fn bytes(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    head(out, number, value.len());
    out.extend_from_slice(value);
}

/// Appends what comes before `length` bytes that are the value of field `number`.
pub fn head(out: &mut Vec<u8>, number: u16, length: usize) {
    key(out, number, Wire::Bytes);
    varint(out, length as u64);
}

/// How many bytes a field whose value has `length` bytes takes.
pub fn size(number: u16, length: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(length as u64) + length
}

/// What ends an [`envelope`]: its two last fields, always empty.
pub const ENVELOPE_END: &[u8] = &[0x1a, 0, 0x22, 0];

/// The beginning of an envelope (`k8s\0` and a `runtime.Unknown`) around a message of `length` bytes; after the message
/// comes [`ENVELOPE_END`].
pub fn envelope_start(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    bytes(&mut meta, 1, api_version.as_bytes());
    bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(meta.len() + 24);
    out.extend_from_slice(b"k8s\0");
    bytes(&mut out, 1, &meta);
    head(&mut out, 2, length);
    out
}

/// An object's message as a body of its own.
pub fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = envelope_start(api_version, kind, message.len());
    out.reserve_exact(message.len() + ENVELOPE_END.len());
    out.extend_from_slice(message);
    out.extend_from_slice(ENVELOPE_END);
    out
}

/// Appends a `meta/v1.WatchEvent` around an object in its envelope, with the length before it that separates events.
pub fn watch_frame(out: &mut Vec<u8>, event: &str, api_version: &str, kind: &str, message: &[u8]) {
    let start = envelope_start(api_version, kind, message.len());
    let object = start.len() + message.len() + ENVELOPE_END.len();
    let raw = size(1, object);
    let length = size(1, event.len()) + size(2, raw);
    // Events are bounded by what an object may hold, which is far below four gigabytes.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes(out, 1, event.as_bytes());
    head(out, 2, raw);
    head(out, 1, object);
    out.extend_from_slice(&start);
    out.extend_from_slice(message);
    out.extend_from_slice(ENVELOPE_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
        for (number, length) in [(1, 0), (15, 127), (16, 128), (2047, 300), (2048, 70_000)] {
            let mut out = Vec::new();
            bytes(&mut out, number, &vec![0; length]);
            assert_eq!(out.len(), size(number, length), "{number} {length}");
        }
    }

    #[test]
    fn an_envelope_and_a_frame() {
        let body = envelope("v1", "Pod", &[0x0a, 0]);
        assert_eq!(body, b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x0a\x00\x1a\x00\x22\x00");
        let mut frame = Vec::new();
        watch_frame(&mut frame, "ADDED", "v1", "Pod", &[0x0a, 0]);
        assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
        assert!(frame.ends_with(&body));
    }
}
