//! What an agent and its host say to each other, over a Unix stream socket.
//!
//! Both sides call and answer ([`peer`]): the agent what its [`Runtime`](wherry_runtime::Runtime) is asked ([`Ask`]), the host what
//! it needs for its containers ([`Plea`]).

mod blob;
mod faults;
mod frames;
mod peer;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wherry_runtime::{
    ContainerId, ContainerStatus, DiskUse, Exit, Image, Limits, PodRef, Signal, Stats, Stream, TerminalSize,
};

pub(crate) use blob::Blob;
pub(crate) use faults::{Fault, IoFault};
pub(crate) use peer::{Peer, Serve};

/// What the agent asks. The descriptors that come with it are named.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// With the image's layer, where it has one.
    Prepare(Box<Image>),
    /// With the image's layer, where it has one.
    Create(Box<Order>),
    Start(ContainerId),
    Kill(ContainerId, Signal),
    Wait(ContainerId),
    Remove(ContainerId),
    List,
    /// With the given streams.
    Exec {
        id: ContainerId,
        command: Vec<String>,
        tty: bool,
        given: Given,
    },
    /// With the given streams.
    Attach {
        id: ContainerId,
        given: Given,
    },
    Update(ContainerId, Limits),
    Stats(ContainerId),
    Disk(ContainerId),
    /// Which layers it has compiled.
    Compiled,
    /// Drop what it made of these layers.
    Forget(Vec<String>),
    /// End all containers.
    Shutdown,
}

/// What the host answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Done,
    Exit(Exit),
    Code(i32),
    All(Vec<ContainerStatus>),
    Stats(Stats),
    Disk(DiskUse),
    Layers(Vec<String>),
}

/// What the host asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Plea {
    /// A container's output, answered when its log has taken it. A container has one at a time.
    Output { id: ContainerId, stream: Stream, bytes: Blob },
    /// A name's addresses, as its Pod sees it.
    Resolve { id: ContainerId, name: String },
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Favour {
    Taken,
    Addresses(Vec<IpAddr>),
}

/// A container to make: what a guest's host needs to know of its spec.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: ContainerId,
    pub(crate) pod: PodRef,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) image: Image,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) places: Vec<Place>,
    pub(crate) limits: Limits,
    pub(crate) ports: Vec<u16>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) hostname: String,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
}

/// A directory that a container sees, where it lies in the host's root.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// Which of a caller's streams there are. Each that is there comes as a stream socket, in this order; of the last one four
/// bytes are a size.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) resize: bool,
}

/// A terminal's size as it goes over its socket.
pub(crate) fn size_bytes(size: TerminalSize) -> [u8; 4] {
    let ([a, b], [c, d]) = (size.width.to_be_bytes(), size.height.to_be_bytes());
    [a, b, c, d]
}

/// The same, read.
pub(crate) fn size_of_bytes([a, b, c, d]: [u8; 4]) -> TerminalSize {
    TerminalSize { width: u16::from_be_bytes([a, b]), height: u16::from_be_bytes([c, d]) }
}
