//! Which Pods could leave within the disruption budgets.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use wherry_api::selector::LabelSelector;

use crate::{matching::selector, pod::PodInfo};

/// A disruption budget as it stands.
#[derive(Debug)]
pub(super) struct Budget {
    namespace: String,
    selector: LabelSelector,
    /// How many Pods may be disrupted now.
    allowed: i32,
    /// The names of Pods that were evicted and are counted already.
    disrupted: HashSet<String>,
}

impl Budget {
    pub(super) fn new(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.clone().unwrap_or_default();
        Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
            allowed: status.disruptions_allowed.unwrap_or_default(),
            disrupted: status.disrupted_pods.unwrap_or_default().into_keys().collect(),
        }
    }

    fn spends(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.key.namespace
            && self.selector.matches(&pod.labels)
            && !self.disrupted.contains(&pod.key.name)
    }
}

/// Parts Pods into those that would break a budget if all left in this order, and the others. The order is kept.
pub(super) fn split(pods: Vec<Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut broken = false;
        for (_, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| budget.spends(pod)) {
            *left -= 1;
            broken |= *left < 0;
        }
        broken
    })
}
