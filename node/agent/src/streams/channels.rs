//! The channels of a WebSocket: a message's first byte says which one it belongs to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};

/// The channels of a command.
pub(super) const STDIN: u32 = 0;
pub(super) const STDOUT: u32 = 1;
pub(super) const STDERR: u32 = 2;
pub(super) const ERROR: u32 = 3;
pub(super) const RESIZE: u32 = 4;

/// The channel of messages that end another.
const CLOSE: u8 = 255;

/// A subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// As in `Sec-WebSocket-Protocol`; empty for a client that names none.
    pub(super) name: &'static str,
    /// Messages are text: the channel's digit and the bytes in base64.
    base64: bool,
    /// A client can end a channel.
    closes: bool,
    /// How a command ended is told as a Status.
    pub(super) status: bool,
}

const fn protocol(name: &'static str, base64: bool, closes: bool, status: bool) -> Protocol {
    Protocol { name, base64, closes, status }
}

/// Those of exec and attach.
pub(super) const COMMAND: &[Protocol] = &[
    protocol("v5.channel.k8s.io", false, true, true),
    protocol("v4.channel.k8s.io", false, false, true),
    protocol("v4.base64.channel.k8s.io", true, false, true),
    protocol("channel.k8s.io", false, false, false),
    protocol("base64.channel.k8s.io", true, false, false),
    protocol("", false, false, false),
];

/// Those of port-forward.
pub(super) const PORTS: &[Protocol] = &[
    protocol("v4.channel.k8s.io", false, false, true),
    protocol("v4.base64.channel.k8s.io", true, false, true),
    protocol("", false, false, true),
];

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Data(u32, Bytes),
    End(u32),
}

impl Protocol {
    /// Whether messages are text.
    pub(super) fn is_text(self) -> bool {
        self.base64
    }

    /// Reads a message; none for an empty one.
    pub(super) fn read(self, mut message: Bytes) -> Result<Option<Said>, &'static str> {
        if message.is_empty() {
            return Ok(None);
        }
        let channel = message.split_to(1)[0];
        if self.base64 {
            let bytes = STANDARD.decode(&message).map_err(|_| "a message that is not base64")?;
            let channel = channel.checked_sub(b'0').ok_or("a channel that is no digit")?;
            return Ok(Some(Said::Data(channel.into(), bytes.into())));
        }
        if self.closes && channel == CLOSE {
            let [channel] = *message else { return Err("the end of other than one channel") };
            return Ok(Some(Said::End(channel.into())));
        }
        Ok(Some(Said::Data(channel.into(), message)))
    }

    /// Writes a message.
    pub(super) fn write(self, channel: u32, bytes: &[u8]) -> Bytes {
        let channel = u8::try_from(channel).unwrap_or(u8::MAX);
        if self.base64 {
            let mut text = String::from(char::from(b'0'.saturating_add(channel)));
            STANDARD.encode_string(bytes, &mut text);
            return text.into();
        }
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.put_slice(bytes);
        message.freeze()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn named(name: &str) -> Protocol {
        *COMMAND.iter().find(|protocol| protocol.name == name).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        for protocol in COMMAND {
            let message = protocol.write(STDOUT, b"\xff\0x");
            assert_eq!(
                protocol.read(message),
                Ok(Some(Said::Data(STDOUT, Bytes::from_static(b"\xff\0x")))),
                "{protocol:?}"
            );
            assert_eq!(protocol.read(Bytes::new()), Ok(None));
        }
        assert_eq!(named("base64.channel.k8s.io").write(STDOUT, b"\n"), "1Cg==");
    }

    #[test]
    fn only_the_fifth_version_can_end_a_channel() {
        let end = Bytes::from_static(&[255, 0]);
        assert_eq!(named("v5.channel.k8s.io").read(end.clone()), Ok(Some(Said::End(STDIN))));
        assert_eq!(named("v4.channel.k8s.io").read(end), Ok(Some(Said::Data(255, Bytes::from_static(&[0])))));
        assert!(named("v5.channel.k8s.io").read(Bytes::from_static(&[255])).is_err());
        assert!(named("v5.channel.k8s.io").read(Bytes::from_static(&[255, 0, 1])).is_err());
    }

    #[test]
    fn text_that_is_no_message_is_refused() {
        let protocol = named("v4.base64.channel.k8s.io");
        assert!(protocol.read(Bytes::from_static(b"0!")).is_err());
        assert!(protocol.read(Bytes::from_static(b"\0Cg==")).is_err());
    }
}
