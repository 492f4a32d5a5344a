//! Several authorizers as one: the first that allows or denies decides.

use std::sync::Arc;

use super::authorize::{Attributes, Authorizer, Decision, Rules};
use crate::User;
use crate::user::MASTERS;

/// Authorizers, asked in order.
pub(crate) struct Union(pub(crate) Vec<Arc<dyn Authorizer>>);

impl Authorizer for Union {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(user, attributes) {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    fn rules(&self, user: &User, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for authorizer in &self.0 {
            let Rules { rules, incomplete, errors } = authorizer.rules(user, namespace);
            all.rules.extend(rules);
            all.incomplete |= incomplete;
            all.errors.extend(errors);
        }
        all
    }
}

/// The group `system:masters` may do everything, whatever the roles say: who locks themselves out has a way back.
pub(crate) struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, user: &User, _attributes: &Attributes<'_>) -> Decision {
        if user.in_group(MASTERS) { Decision::Allow { reason: String::new() } } else { Decision::none() }
    }

    fn rules(&self, _user: &User, _namespace: &str) -> Rules {
        Rules::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Decision);

    impl Authorizer for Says {
        fn authorize(&self, _user: &User, _attributes: &Attributes<'_>) -> Decision {
            self.0.clone()
        }

        fn rules(&self, _user: &User, _namespace: &str) -> Rules {
            Rules { incomplete: self.0.is_allowed(), errors: vec![format!("{:?}", self.0)], ..Rules::default() }
        }
    }

    #[test]
    fn the_first_decision_counts() {
        let none = |reason: &str| Decision::NoOpinion { reason: reason.to_owned() };
        let allow = Decision::Allow { reason: "a".to_owned() };
        let deny = Decision::Deny { reason: "d".to_owned() };
        for (said, expected) in [
            (vec![none("x"), allow.clone(), deny.clone()], allow.clone()),
            (vec![none("x"), deny.clone(), allow.clone()], deny.clone()),
            (vec![none("x"), none(""), none("y")], none("x\ny")),
            (vec![], none("")),
        ] {
            let union = Union(said.into_iter().map(|d| Arc::new(Says(d)) as Arc<dyn Authorizer>).collect());
            assert_eq!(union.authorize(&User::anonymous(), &Attributes::default()), expected);
        }
        let union = Union(vec![Arc::new(Says(allow)), Arc::new(Says(deny))]);
        let rules = union.rules(&User::anonymous(), "");
        assert!(rules.incomplete && rules.errors.len() == 2);
    }

    #[test]
    fn masters_may_do_everything() {
        assert!(Masters.authorize(&User::admin(), &Attributes::default()).is_allowed());
        assert!(!Masters.authorize(&User::node("a"), &Attributes::default()).is_allowed());
    }
}
