//! What can go wrong with a network.

use std::io;
use std::net::IpAddr;

/// Why a network could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A namespace could not be made, opened or entered.
    #[error("network namespace {name}: {source}")]
    Namespace {
        /// The namespace.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A link, address or route could not be set.
    #[error("cannot {what}: {source}")]
    Link {
        /// What was to be done.
        what: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// nftables refused a transaction, or `nft` is not there.
    #[error("nftables: {0}")]
    Nft(String),
    /// No free address.
    #[error("no free address in {0}: the node runs as many Pods as its podCIDR holds")]
    Exhausted(String),
    /// The address that a Pod had belongs to another, or lies outside the podCIDR.
    #[error("address {ip} cannot be kept: {why}")]
    Address {
        /// The address asked for.
        ip: IpAddr,
        /// What is wrong with it.
        why: &'static str,
    },
    /// This node has no right to make network namespaces.
    #[error("a Pod with containers or sysctls needs namespaces of its own, which needs root")]
    NoNamespaces,
    /// A CIDR or address that does not parse.
    #[error("{0}")]
    Invalid(String),
    /// Input or output.
    #[error("{what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl NetworkError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn link(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |source| Self::Link { what, source }
    }
}
