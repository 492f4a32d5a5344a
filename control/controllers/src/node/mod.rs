//! Nodes: addresses for their Pods, whether they are alive, and what happens to their Pods when they are not.
//!
//! - [`ipam`] gives each Node its share of the cluster's Pod addresses;
//! - [`lifecycle`] listens to the Nodes' Leases, and marks and taints those that fell silent;
//! - [`eviction`] deletes Pods that do not tolerate their Node's taints (any longer);
//! - [`podgc`] deletes Pods whose Node is gone for good;
//! - [`ttl`] says how long agents may use what they have read.

mod cidr;
pub(crate) mod eviction;
pub(crate) mod ipam;
pub(crate) mod lifecycle;
pub(crate) mod podgc;
mod taints;
pub(crate) mod ttl;
