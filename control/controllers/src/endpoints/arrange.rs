//! How endpoints are spread over slices, touching as few slices as possible. Pure.
//!
//! Slices hold endpoints with the same ports. What is in a slice stays there; what is new goes first into slices that must
//! be written anyway, then into the fullest slice with room, then into new slices.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

/// The most endpoints in a slice.
pub(super) const MAX_ENDPOINTS: usize = 100;

/// Endpoints with the same ports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// What has to be written.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) create: Vec<Group>,
    /// A slice and its new endpoints.
    pub(super) update: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// A slice on its way to its new content.
struct Draft {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// Decides for the slices of one Service and address family. If there are no endpoints at all, one empty slice remains to
/// tell that this is known.
pub(super) fn arrange(groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut slices: Vec<Arc<EndpointSlice>> = existing.to_vec();
    for group in groups {
        let (matching, others) =
            slices.into_iter().partition(|slice| slice.ports.as_deref().unwrap_or_default() == group.ports);
        slices = others;
        arrange_group(group, matching, &mut changes);
    }
    changes.delete.extend(slices);
    keep_one(existing, &mut changes);
    changes
}

fn arrange_group(group: Group, slices: Vec<Arc<EndpointSlice>>, changes: &mut Changes) {
    let mut wanted: BTreeMap<(String, String), Endpoint> =
        group.endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let mut drafts: Vec<Draft> = slices
        .into_iter()
        .map(|slice| {
            let before = slice.endpoints.as_deref().unwrap_or_default();
            let endpoints: Vec<Endpoint> =
                before.iter().filter_map(|endpoint| wanted.remove(&identity(endpoint))).collect();
            let changed = endpoints != before;
            Draft { slice, endpoints, changed }
        })
        .collect();

    let mut new: Vec<Endpoint> = wanted.into_values().collect();
    let fill = |draft: &mut Draft, new: &mut Vec<Endpoint>| {
        let room = MAX_ENDPOINTS.saturating_sub(draft.endpoints.len()).min(new.len());
        draft.changed |= room > 0;
        draft.endpoints.extend(new.drain(..room));
    };
    for draft in drafts.iter_mut().filter(|draft| draft.changed) {
        fill(draft, &mut new);
    }
    if !new.is_empty() && new.len() < MAX_ENDPOINTS {
        let fits = |draft: &&mut Draft| draft.endpoints.len() + new.len() <= MAX_ENDPOINTS;
        if let Some(draft) = drafts.iter_mut().filter(fits).max_by_key(|draft| draft.endpoints.len()) {
            fill(draft, &mut new);
        }
    }
    while !new.is_empty() {
        let rest = new.split_off(new.len().min(MAX_ENDPOINTS));
        changes.create.push(Group { ports: group.ports.clone(), endpoints: std::mem::replace(&mut new, rest) });
    }
    for draft in drafts {
        if draft.endpoints.is_empty() {
            changes.delete.push(draft.slice);
        } else if draft.changed {
            changes.update.push((draft.slice, draft.endpoints));
        }
    }
}

/// Where nothing would be left, empties a slice instead of deleting it, or creates an empty one.
fn keep_one(existing: &[Arc<EndpointSlice>], changes: &mut Changes) {
    if !changes.create.is_empty() || changes.delete.len() < existing.len() {
        return;
    }
    match changes.delete.pop() {
        Some(slice) if slice.endpoints.as_ref().is_none_or(Vec::is_empty) => {}
        Some(slice) => changes.update.push((slice, Vec::new())),
        None => changes.create.push(Group { ports: Vec::new(), endpoints: Vec::new() }),
    }
}

/// What makes two endpoints the same one, in whatever state.
fn identity(endpoint: &Endpoint) -> (String, String) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (uid.unwrap_or_default(), endpoint.addresses.join(","))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::discovery::v1::EndpointConditions;
    use kube::api::ObjectMeta;
    use proptest::prelude::*;

    use super::*;

    fn endpoint(number: u16, ready: bool) -> Endpoint {
        Endpoint {
            addresses: vec![format!("10.0.{}.{}", number / 256, number % 256)],
            conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
            ..Default::default()
        }
    }

    fn ports(number: i32) -> Vec<EndpointPort> {
        vec![EndpointPort { port: Some(number), ..Default::default() }]
    }

    fn slice(name: &str, port: i32, endpoints: Vec<Endpoint>) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            address_type: "IPv4".into(),
            metadata: ObjectMeta { name: Some(name.into()), ..Default::default() },
            endpoints: Some(endpoints),
            ports: Some(ports(port)),
        })
    }

    fn group(port: i32, endpoints: Vec<Endpoint>) -> Group {
        Group { ports: ports(port), endpoints }
    }

    /// The slices after the changes.
    fn applied(existing: &[Arc<EndpointSlice>], changes: &Changes, created: &str) -> Vec<Arc<EndpointSlice>> {
        let mut slices: Vec<_> = existing.iter().filter(|slice| !changes.delete.contains(slice)).cloned().collect();
        for (slice, endpoints) in &changes.update {
            let found = slices.iter_mut().find(|known| known.metadata.name == slice.metadata.name).unwrap();
            Arc::make_mut(found).endpoints = Some(endpoints.clone());
        }
        for (number, group) in changes.create.iter().enumerate() {
            let mut new = EndpointSlice::clone(&slice(&format!("{created}-{number}"), 0, group.endpoints.clone()));
            new.ports = Some(group.ports.clone());
            slices.push(Arc::new(new));
        }
        slices
    }

    #[test]
    fn a_change_of_state_touches_one_slice() {
        let full = |from: u16| (from..from + 100).map(|number| endpoint(number, true)).collect::<Vec<_>>();
        let existing = [slice("a", 80, full(0)), slice("b", 80, full(100))];
        let mut wanted: Vec<_> = full(0).into_iter().chain(full(100)).collect();
        wanted[150] = endpoint(150, false);
        let changes = arrange(vec![group(80, wanted)], &existing);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
        assert_eq!(changes.update[0].0.metadata.name.as_deref(), Some("b"));
    }

    #[test]
    fn an_empty_slice_remains() {
        let changes = arrange(Vec::new(), &[]);
        assert_eq!(changes.create.len(), 1);
        let existing = [slice("a", 80, vec![endpoint(1, true)]), slice("b", 80, vec![endpoint(2, true)])];
        let changes = arrange(Vec::new(), &existing);
        assert_eq!((changes.update.len(), changes.delete.len()), (1, 1));
        let emptied = applied(&existing, &changes, "x");
        assert_eq!(arrange(Vec::new(), &emptied), Changes::default(), "and is left alone");
    }

    proptest! {
        #[test]
        fn slices_hold_exactly_what_is_wanted_and_then_rest(
            rounds in prop::collection::vec((prop::collection::btree_set(0u16..350, 0..300), prop::collection::btree_set(0u16..50, 0..20)), 1..5)
        ) {
            let mut slices: Vec<Arc<EndpointSlice>> = Vec::new();
            for (round, (first, second)) in rounds.into_iter().enumerate() {
                let wanted = || {
                    let groups = [(80, &first), (90, &second)];
                    groups
                        .into_iter()
                        .filter(|(_, members)| !members.is_empty())
                        .map(|(port, members)| group(port, members.iter().map(|number| endpoint(*number, true)).collect()))
                        .collect::<Vec<_>>()
                };
                let changes = arrange(wanted(), &slices);
                slices = applied(&slices, &changes, &format!("round-{round}"));
                for (port, members) in [(80, &first), (90, &second)] {
                    let held: Vec<String> = slices
                        .iter()
                        .filter(|slice| slice.ports.as_deref() == Some(&ports(port)))
                        .flat_map(|slice| slice.endpoints.iter().flatten())
                        .map(|endpoint| endpoint.addresses[0].clone())
                        .collect();
                    let expected: BTreeSet<String> = members.iter().map(|number| endpoint(*number, true).addresses[0].clone()).collect();
                    prop_assert_eq!(held.len(), expected.len());
                    prop_assert_eq!(held.into_iter().collect::<BTreeSet<_>>(), expected);
                }
                prop_assert!(slices.iter().all(|slice| slice.endpoints.as_ref().unwrap().len() <= MAX_ENDPOINTS));
                prop_assert_eq!(arrange(wanted(), &slices), Changes::default());
            }
        }
    }
}
