//! What happens when a Pod or a node has used up what it may have: the same for both kinds of container, in kubelet's words.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "shortage/images.rs"]
mod images;
#[path = "shortage/limits.rs"]
mod limits;
