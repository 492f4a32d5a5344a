//! ResourceQuota: how much a namespace may hold.
//!
//! ```text
//! write -> admission: charge (check, then add to status.used) -> store
//! store's changes -> recount (count anew what is there and what is under way) -> status.hard, status.used
//! ```
//!
//! A charge and a recount of a namespace exclude each other, a charge is known as under way until its write is through, and
//! a recount counts it until then. So the number of objects never exceeds a quota, however many writes come at once, and a
//! write that fails gives back what it was charged. The status is changed by compare-and-set, so that several servers over
//! one store do not overwrite each other. Charges are not synced to disk by themselves: a later write that is synced carries
//! them along, and whatever is lost with them was not stored either.

mod check;
#[cfg(test)]
mod exactness;
mod ledger;
mod measure;
mod recount;
mod scopes;

pub(crate) use check::Change;
pub(crate) use ledger::{Charge, Ledger, Refusal};
pub(crate) use measure::Measure;
pub(crate) use recount::run;

/// Where quotas are stored.
const QUOTAS: &str = "resourcequotas";
