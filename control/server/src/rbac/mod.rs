//! Role-based access control: roles say what may be done, bindings for whom.
//!
//! ```text
//! store ──▶ index (follows the store as it is read) ──▶ authorize, rules ──▶ 403 or go on
//!                                                  └──▶ escalation: who writes a role or binding must hold what it grants
//! defaults (a table of facts) ──▶ made and brought up to date at each start
//! ```
//!
//! Guarantees: a role or binding is in force when the write of it is answered; a decision reads memory only. Rules only
//! ever add; what nobody allows is refused. The behaviour and the texts are upstream's.

pub(crate) mod defaults;
pub(crate) mod escalation;
mod index;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use wherry_store::Store;

use crate::User;
use crate::follow::Follower;
use crate::layers::authorize::{Attributes, Authorizer, Decision, Rule, Rules};
use index::{Grant, Index, RoleRef};

/// Decides by the roles and bindings in the store.
pub(crate) struct Rbac(Follower<Index>);

impl Rbac {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self(Follower::new(store))
    }

    /// The rules of the role that a binding in `namespace` refers to, or why there are none.
    fn role(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, String> {
        self.0.read().role(role, namespace).cloned()
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let index = self.0.read();
        let mut errors: Vec<String> = Vec::new();
        for grant in index.grants(user, attributes.namespace) {
            match index.rules_of(grant) {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Decision::Allow { reason: format!("RBAC: allowed by {}", grant.describe()) };
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            return Decision::none();
        }
        Decision::NoOpinion { reason: format!("RBAC: {}", aggregate(errors)) }
    }

    fn rules(&self, user: &User, namespace: &str) -> Rules {
        let index = self.0.read();
        // A binding that has the user and a group of it as subjects grants its role once.
        let mut grants: Vec<&Grant> = index.grants(user, namespace).collect();
        grants.sort_by_key(|grant| grant.binding.place());
        grants.dedup_by_key(|grant| grant.binding.place());
        let mut found = Rules::default();
        for grant in grants {
            match index.rules_of(grant) {
                Ok(rules) => found.rules.extend(rules.iter().cloned()),
                Err(error) => found.errors.push(error),
            }
        }
        found
    }
}

/// Several complaints as one, each once.
pub(crate) fn aggregate(mut errors: Vec<String>) -> String {
    errors.sort();
    errors.dedup();
    match errors.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
