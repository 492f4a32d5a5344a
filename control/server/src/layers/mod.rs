//! What happens to every request before the engine sees it, one layer a concern, outermost first:
//! [`failures`] (in which format they are told), [`rescue`] (panics become 500), [`info`] (what is asked), [`authenticate`] (who asks), [`crate::audit`] (noted), [`limit`] (how many at a
//! time), [`impersonate`] (as whom), [`authorize`] (may they).

pub mod authenticate;
pub mod authorize;
pub(crate) mod failures;
pub(crate) mod impersonate;
pub mod info;
pub(crate) mod limit;
pub(crate) mod measure;
pub(crate) mod rescue;
pub(crate) mod union;
