//! Sums of quantities by resource name, and what a Pod asks for in all.

use std::collections::BTreeMap;

use serde_json::Value;
use wherry_api::quantity::Quantity;

/// Quantities by resource name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The amounts in a map of an object; what is no quantity is left out (validation has refused it, or will).
pub(crate) fn of(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value)?))).collect()
}

/// Adds `more` to `sum`.
pub(crate) fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let slot = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *slot = *slot + *quantity;
    }
}

/// Raises what is smaller in `most` than in `other`.
fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, quantity) in other {
        let slot = most.entry(name.clone()).or_insert(*quantity);
        if *quantity > *slot {
            *slot = *quantity;
        }
    }
}

/// Which of the two amounts of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Limits,
}

impl Side {
    fn key(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// What the containers of a Pod ask for in all (upstream's PodRequests and PodLimits, of the spec alone and without
/// overhead): the sum of those that run together, or what the most demanding init container needs with the sidecars
/// started before it; where the Pod itself says how much it wants, that.
pub(crate) fn of_containers(pod: &Value, side: Side) -> Amounts {
    let spec = &pod["spec"];
    let list = |key: &str| spec[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut sum = Amounts::new();
    for container in list("containers") {
        add(&mut sum, &of(&container["resources"][side.key()]));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let own = of(&container["resources"][side.key()]);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut most, &sidecars);
        } else {
            let mut together = own;
            add(&mut together, &sidecars);
            raise(&mut most, &together);
        }
    }
    raise(&mut sum, &most);
    for (name, quantity) in of(&spec["resources"][side.key()]) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            sum.insert(name, quantity);
        }
    }
    sum
}

/// The same with the Pod's overhead, which counts towards a limit only where there is one.
pub(crate) fn of_pod(pod: &Value, side: Side) -> Amounts {
    let mut sum = of_containers(pod, side);
    for (name, quantity) in of(&pod["spec"]["overhead"]) {
        match (side, sum.get_mut(&name)) {
            (_, Some(present)) if side == Side::Requests || !present.is_zero() => *present = *present + quantity,
            (Side::Requests, _) => {
                sum.insert(name, quantity);
            }
            (Side::Limits, _) => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_needs_what_runs_together_or_the_greediest_step_before() {
        let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}, "limits": {"cpu": amount}}});
        let sidecar = |amount: &str| {
            let mut container = cpu(amount);
            container["restartPolicy"] = json!("Always");
            container
        };
        for (init, expected) in [
            (json!([]), "300m"),
            (json!([cpu("1")]), "1"),
            (json!([sidecar("100m"), cpu("1")]), "1100m"),
            (json!([cpu("100m"), sidecar("100m")]), "400m"),
        ] {
            let pod = json!({"spec": {"containers": [cpu("100m"), cpu("200m")], "initContainers": init}});
            for side in [Side::Requests, Side::Limits] {
                assert_eq!(of_containers(&pod, side)["cpu"].to_string(), expected, "{pod}");
            }
        }
    }

    #[test]
    fn the_pods_own_word_counts_and_overhead_comes_on_top() {
        let pod = json!({"spec": {
            "containers": [{"resources": {"requests": {"cpu": "100m"}}}],
            "resources": {"requests": {"cpu": "2"}},
            "overhead": {"cpu": "1", "memory": "1Mi"},
        }});
        assert_eq!(of_pod(&pod, Side::Requests)["cpu"].to_string(), "3");
        assert_eq!(of_pod(&pod, Side::Requests)["memory"].to_string(), "1Mi");
        assert!(of_pod(&pod, Side::Limits).is_empty());
    }
}
