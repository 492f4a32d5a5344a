//! ClusterRoles that gather the rules of others by their labels: `admin`, `edit` and `view` among the default ones.
//!
//! Any change of a ClusterRole may concern any role that gathers; there are few, so all of them are looked at. A role that gathers a
//! role that gathers follows by the change that its own write makes. Upstream: `clusterrole-aggregation-controller`.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Informer, ObjectKey, Outcome, Queue, Reconciler, ownership::selects};

use crate::{
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 2;

struct Controller {
    context: Context,
    roles: Informer<ClusterRole>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller { roles: context.informers.get(), context });
    if cancel.run_until_cancelled(controller.roles.synced()).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let roles = feed(controller.roles.subscribe(), &cancel, |_| {
        let all = controller.roles.list();
        all.iter().filter(|role| role.aggregation_rule.is_some()).for_each(|role| queue.add(ObjectKey::of(&**role)));
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(roles, work);
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(role) = self.roles.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let Some(rules) = gathered(&role, self.roles.list()) else {
            return Ok(Outcome::Done);
        };
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Outcome::Done);
        }
        // Whatever else changed meanwhile, this is what the role must hold; another change is another look.
        let patch = json!({ "metadata": { "uid": role.metadata.uid }, "rules": rules });
        let api: Api<ClusterRole> = Api::all(self.context.client.clone());
        error::gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(Outcome::Done)
    }
}

/// The rules of all roles that `role` selects, each once, in the order of the selectors and then of names. None for a role
/// that gathers nothing.
fn gathered(role: &ClusterRole, mut all: Vec<Arc<ClusterRole>>) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let others = all.iter().filter(|other| other.metadata.name != role.metadata.name);
        for other in others.filter(|other| selects(selector, other.metadata.labels.as_ref())) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        #[test]
        fn what_is_gathered_is_the_union_of_what_is_selected(
            roles in prop::collection::vec((any::<[bool; 3]>(), prop::collection::vec(0usize..6, 0..4)), 1..6),
            selectors in prop::collection::vec(0usize..3, 0..3), turn in any::<prop::sample::Index>(),
        ) {
            let select = |label: &usize| json!({"matchLabels": {format!("l{label}"): "true"}});
            let rules = |rules: &[usize]| rules.iter().map(|n| rule(&format!("r{n}"))).collect::<Vec<_>>();
            let mut all: Vec<_> = roles.iter().enumerate().map(|(n, (labels, holds))| {
                let labels: serde_json::Map<_, _> =
                    labels.iter().enumerate().filter(|(_, has)| **has).map(|(n, _)| (format!("l{n}"), json!("true"))).collect();
                let mut made = json!({"metadata": {"name": format!("n{n}"), "labels": labels}, "rules": rules(holds)});
                if n == 0 {
                    made["aggregationRule"] = json!({"clusterRoleSelectors": selectors.iter().map(select).collect::<Vec<_>>()});
                }
                role(made)
            }).collect();
            let gathers = all[0].clone();
            let found = gathered(&gathers, all.clone()).unwrap();
            let mut resources: Vec<_> = found.iter().map(|rule| rule.resources.clone().unwrap().concat()).collect();
            resources.sort();
            // Also of a role that gathers only what others hold: what it holds itself does not keep itself alive.
            let selected = roles[1..].iter().filter(|(labels, _)| selectors.iter().any(|label| labels[*label]));
            let union: std::collections::BTreeSet<_> = selected.flat_map(|(_, holds)| holds).map(|n| format!("r{n}")).collect();
            prop_assert_eq!(&resources, &union.into_iter().collect::<Vec<_>>(), "each once");
            let middle = turn.index(all.len());
            all.rotate_left(middle);
            prop_assert_eq!(gathered(&gathers, all.clone()).unwrap(), found.clone(), "in whatever order the roles are told");
            let mut held = ClusterRole::clone(&gathers);
            held.rules = Some(found.clone());
            let all = all.into_iter().map(|role| if role.metadata.name == held.metadata.name { Arc::new(held.clone()) } else { role });
            prop_assert_eq!(gathered(&held, all.collect()).unwrap(), found, "then it rests");
        }
    }

    fn role(value: Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn rule(resource: &str) -> Value {
        json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]})
    }

    #[test]
    fn rules_of_selected_roles_are_gathered() {
        let select = |label: &str| json!({"matchLabels": {label: "true"}});
        let view = role(json!({
            "metadata": {"name": "view", "labels": {"b": "true"}}, "rules": [rule("old")],
            "aggregationRule": {"clusterRoleSelectors": [select("b"), select("a")]},
        }));
        let all = vec![
            role(json!({"metadata": {"name": "z", "labels": {"a": "true"}}, "rules": [rule("pods"), rule("nodes")]})),
            role(json!({"metadata": {"name": "y", "labels": {"a": "true"}}, "rules": [rule("secrets")]})),
            role(json!({"metadata": {"name": "x", "labels": {"b": "true"}}, "rules": [rule("pods")]})),
            role(json!({"metadata": {"name": "w", "labels": {"a": "false"}}, "rules": [rule("jobs")]})),
            role(json!({"metadata": {"name": "v", "labels": {"a": "true"}}})),
            view.clone(),
        ];
        let rules = gathered(&view, all.clone()).unwrap();
        let resources: Vec<_> = rules.iter().map(|rule| rule.resources.as_ref().unwrap()[0].as_str()).collect();
        assert_eq!(resources, ["pods", "secrets", "nodes"]);
        assert_eq!(gathered(&all[0], all.clone()), None);
        let none = role(json!({"metadata": {"name": "n"}, "aggregationRule": {}}));
        assert_eq!(gathered(&none, all), Some(vec![]));
    }
}
