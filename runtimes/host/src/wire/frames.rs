//! Frames on a stream socket: a length, a count of descriptors, and what was said.
//!
//! Descriptors go with the first bytes of their frame (`SCM_RIGHTS`); the kernel never joins what came with some to what came
//! with others, so that they arrive in the order of their frames.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The longest frame, bytes. A container's environment may hold several ConfigMaps of a MiB each.
const LONGEST: usize = 32 << 20;
/// The most descriptors of a frame.
const MOST_FDS: usize = 4;
/// The length and the count.
const HEADER: usize = 5;
/// How much is read at one time.
const CHUNK: usize = 64 << 10;

/// A frame to send.
pub(super) struct Parcel {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Parcel {
    /// Packs what is to be said.
    pub(super) fn new<T: Serialize>(what: &T, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let refused = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let mut bytes = postcard::to_extend(what, vec![0; HEADER]).map_err(|error| refused(error.to_string()))?;
        let length = bytes.len() - HEADER;
        if length > LONGEST || fds.len() > MOST_FDS {
            return Err(refused(format!("a message of {length} bytes and {} descriptors is too long", fds.len())));
        }
        bytes[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        bytes[4] = u8::try_from(fds.len()).unwrap_or(u8::MAX);
        Ok(Self { bytes, fds })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Sends all of it. Without descriptors plain writes do: a host may make no other.
    pub(super) async fn send(&self, stream: &UnixStream) -> io::Result<()> {
        let mut sent = if self.fds.is_empty() { 0 } else { self.send_fds(stream).await? };
        while sent < self.bytes.len() {
            stream.writable().await?;
            match stream.try_write(&self.bytes[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn send_fds(&self, stream: &UnixStream) -> io::Result<usize> {
        stream
            .async_io(Interest::WRITABLE, || {
                let fds: Vec<_> = self.fds.iter().map(OwnedFd::as_fd).collect();
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&fds));
                Ok(sendmsg(stream, &[IoSlice::new(&self.bytes)], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await
    }
}

/// What has arrived.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// The next frame; none at the end. Cancel-safe.
    pub(super) async fn next<T: DeserializeOwned>(
        &mut self,
        stream: &UnixStream,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.receive(stream).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, fds] = *header;
        let (length, fds) = (u32::from_le_bytes([a, b, c, d]) as usize, usize::from(fds));
        if length > LONGEST || fds > MOST_FDS {
            return Err(invalid(format!("a message of {length} bytes and {fds} descriptors is too long")));
        }
        let Some(said) = rest.get(..length) else { return Ok(None) };
        let what = postcard::from_bytes(said).map_err(|error| invalid(error.to_string()))?;
        if self.fds.len() < fds {
            return Err(invalid("a message came without its descriptors".into()));
        }
        self.bytes.drain(..HEADER + length);
        Ok(Some((what, self.fds.drain(..fds).collect())))
    }

    async fn receive(&mut self, stream: &UnixStream) -> io::Result<usize> {
        let before = self.bytes.len();
        self.bytes.resize(before + CHUNK, 0);
        let (bytes, fds) = (&mut self.bytes, &mut self.fds);
        let received = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut into = [IoSliceMut::new(&mut bytes[before..])];
                let received = recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(more) = message {
                        fds.extend(more);
                    }
                }
                if received.flags.contains(ReturnFlags::CTRUNC) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors were lost"));
                }
                Ok(received.bytes)
            })
            .await;
        self.bytes.truncate(before + received.as_ref().copied().unwrap_or(0));
        received
    }
}
