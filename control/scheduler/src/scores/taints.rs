//! Taints that only advise against a node.

use super::less_is_better;
use crate::{cluster::NodeInfo, filters::Cycle, matching::untolerated};

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let count = |node: &&NodeInfo| {
        let taints = untolerated(&node.taints, &cycle.pod.tolerations, &["PreferNoSchedule"]).count();
        i64::try_from(taints).unwrap_or(i64::MAX)
    };
    less_is_better(nodes.iter().map(count).collect())
}
