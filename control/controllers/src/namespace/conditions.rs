//! What a namespace on its way out reports: what remains in it, and why. Pure.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{api::core::v1::NamespaceCondition, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// What a pass left behind.
#[derive(Debug, Default)]
pub(super) struct Remaining {
    resources: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Remaining {
    /// An object that is still there.
    pub(super) fn note(&mut self, resource: &str, finalizers: &[String]) {
        *self.resources.entry(resource.to_owned()).or_default() += 1;
        for finalizer in finalizers {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// A resource whose objects could not be deleted or counted.
    pub(super) fn failed(&mut self, message: String) {
        self.failures.push(message);
    }

    pub(super) fn counts(&self) -> &BTreeMap<String, usize> {
        &self.resources
    }

    pub(super) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Nothing is left, for certain.
    pub(super) fn is_done(&self) -> bool {
        self.resources.is_empty() && self.failures.is_empty()
    }

    fn remaining(&self) -> String {
        let parts = self.resources.iter().map(|(name, count)| format!("{name} has {count} resource instances"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.remaining(), self.failures.join(", "))
    }
}

/// The five conditions that upstream's controller keeps, in its order. A condition that says the same is left as it is.
pub(super) fn updated(
    mut conditions: Vec<NamespaceCondition>,
    left: &Remaining,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let mut failures = left.failures.clone();
    failures.sort();
    let finalizers = left.finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances"));
    let finalizers = finalizers.collect::<Vec<_>>().join(", ");
    set(
        &mut conditions,
        now,
        "NamespaceDeletionDiscoveryFailure",
        None,
        ("ResourcesDiscovered", "All resources successfully discovered"),
    );
    set(
        &mut conditions,
        now,
        "NamespaceDeletionGroupVersionParsingFailure",
        None,
        ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    );
    set(
        &mut conditions,
        now,
        "NamespaceDeletionContentFailure",
        (!failures.is_empty()).then(|| {
            let count = failures.len();
            let text = failures.join(", ");
            ("ContentDeletionFailed", format!("Failed to delete all resource types, {count} remaining: {text}"))
        }),
        ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    );
    set(
        &mut conditions,
        now,
        "NamespaceContentRemaining",
        (!left.resources.is_empty())
            .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", left.remaining()))),
        ("ContentRemoved", "All content successfully removed"),
    );
    set(
        &mut conditions,
        now,
        "NamespaceFinalizersRemaining",
        (!finalizers.is_empty()).then(|| {
            let text = format!("Some content in the namespace has finalizers remaining: {finalizers}");
            ("SomeFinalizersRemain", text)
        }),
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    );
    conditions
}

fn set(
    conditions: &mut Vec<NamespaceCondition>,
    now: Timestamp,
    kind: &str,
    bad: Option<(&str, String)>,
    good: (&str, &str),
) {
    let status = if bad.is_some() { "True" } else { "False" };
    let (reason, message) = bad.unwrap_or_else(|| (good.0, good.1.to_owned()));
    let mut condition = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|known| known.type_ == kind) {
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Objects left, each of a resource and with finalizers; and resources of which nothing could be learnt.
    #[derive(Clone, Debug)]
    struct Left {
        objects: Vec<(usize, Vec<usize>)>,
        failures: Vec<usize>,
    }

    fn left() -> impl Strategy<Value = Left> {
        let objects = prop::collection::vec((0usize..3, prop::collection::vec(0usize..2, 0..2)), 0..6);
        (objects, prop::collection::vec(0usize..3, 0..3)).prop_map(|(objects, failures)| Left { objects, failures })
    }

    fn told(left: &Left) -> Remaining {
        let mut told = Remaining::default();
        for (resource, finalizers) in &left.objects {
            let finalizers: Vec<_> = finalizers.iter().map(|n| format!("f{n}")).collect();
            told.note(&format!("r{resource}"), &finalizers);
        }
        left.failures.iter().for_each(|n| told.failed(format!("e{n}")));
        told
    }

    proptest! {
        #[test]
        fn conditions_say_what_is_left_and_move_only_with_it(before in left(), after in left(), foreign in any::<bool>()) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let others = NamespaceCondition { type_: "Foreign".into(), status: "True".into(), ..Default::default() };
            let first = updated(foreign.then_some(others.clone()).into_iter().collect(), &told(&before), at(1));
            let second = updated(first.clone(), &told(&after), at(2));
            prop_assert_eq!(&updated(second.clone(), &told(&after), at(3)), &second, "what says the same stays as it is");
            let mut turned = after.clone();
            turned.objects.reverse();
            turned.failures.reverse();
            prop_assert_eq!(&updated(first.clone(), &told(&turned), at(2)), &second, "in whatever order it is found");
            prop_assert_eq!(second.iter().filter(|condition| **condition == others).count(), usize::from(foreign));
            for (old, new) in first.iter().zip(&second) {
                prop_assert_eq!(&old.type_, &new.type_);
                prop_assert_eq!(old.status == new.status, old.last_transition_time == new.last_transition_time);
            }
            let says = |kind: &str| second.iter().find(|condition| condition.type_ == kind).unwrap();
            let holds = |kind: &str| says(kind).status == "True";
            prop_assert_eq!(holds("NamespaceContentRemaining"), !after.objects.is_empty());
            prop_assert_eq!(holds("NamespaceDeletionContentFailure"), !after.failures.is_empty());
            let held = after.objects.iter().any(|(_, finalizers)| !finalizers.is_empty());
            prop_assert_eq!(holds("NamespaceFinalizersRemaining"), held);
            prop_assert_eq!(told(&after).is_done(), after.objects.is_empty() && after.failures.is_empty());
            for resource in 0..3 {
                let count = after.objects.iter().filter(|(of, _)| *of == resource).count();
                let message = says("NamespaceContentRemaining").message.clone().unwrap();
                prop_assert_eq!(message.contains(&format!("r{resource} has {count} resource instances")), count > 0);
            }
        }
    }

    #[test]
    fn tells_what_remains_and_then_that_nothing_does() {
        let now = Timestamp::UNIX_EPOCH;
        let mut left = Remaining::default();
        left.note("pods.", &["example.com/hold".to_owned()]);
        left.note("pods.", &[]);
        let conditions = updated(Vec::new(), &left, now);
        assert_eq!(conditions.len(), 5);
        assert_eq!(
            conditions[3].message.as_deref(),
            Some("Some resources are remaining: pods. has 2 resource instances")
        );
        assert_eq!(
            conditions[4].message.as_deref(),
            Some("Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances")
        );
        let later = Timestamp::from_second(9).unwrap();
        let conditions = updated(conditions, &Remaining::default(), later);
        assert!(conditions.iter().all(|condition| condition.status == "False"));
        assert_eq!(conditions[3].last_transition_time, Some(Time(later)));
        assert_eq!(conditions[0].last_transition_time, Some(Time(now)));
    }
}
