//! Where a Pod may run: selectors, affinity, tolerations, taints, spreading.

use serde_json::Value;

use super::{At, Errors, is_set, items, meta, names, text};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A label selector object.
pub(crate) fn label_selector(selector: &Value, at: &At, errors: &mut Errors) {
    meta::labels(&selector["matchLabels"], &at.field("matchLabels"), errors);
    for (i, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let at = at.field("matchExpressions");
        let at = at.index(i);
        operator(expression, &["In", "NotIn"], &[], &at, errors);
        errors.rule(&at.field("key"), text(expression, "key"), names::qualified);
        values(expression, &at, errors);
    }
}

/// Operators that want values, those that want one, and those that want none.
fn operator(expression: &Value, many: &[&str], one: &[&str], at: &At, errors: &mut Errors) {
    let (operator, count) = (text(expression, "operator"), items(expression, "values").len());
    let at_values = at.field("values");
    if many.contains(&operator) {
        if count == 0 {
            errors.required(&at_values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
    } else if one.contains(&operator) {
        if count != 1 {
            errors.required(&at_values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
    } else if matches!(operator, "Exists" | "DoesNotExist") {
        if count > 0 {
            errors.forbidden(&at_values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
    } else {
        errors.invalid(&at.field("operator"), operator, "not a valid selector operator");
    }
}

fn values(expression: &Value, at: &At, errors: &mut Errors) {
    for (i, value) in items(expression, "values").iter().filter_map(Value::as_str).enumerate() {
        errors.rule(&at.field("values").index(i), value, names::label_value);
    }
}

/// Tolerations of taints.
pub(crate) fn tolerations(spec: &Value, at: &At, errors: &mut Errors) {
    for (i, toleration) in items(spec, "tolerations").iter().enumerate() {
        let at = at.index(i);
        let (key, operator, value, effect) = (
            text(toleration, "key"),
            text(toleration, "operator"),
            text(toleration, "value"),
            text(toleration, "effect"),
        );
        if key.is_empty() {
            if operator != "Exists" {
                let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                errors.invalid(&at.field("operator"), operator, why);
            }
        } else {
            errors.rule(&at.field("key"), key, names::qualified);
        }
        if is_set(toleration, "tolerationSeconds") && effect != "NoExecute" {
            errors.invalid(&at.field("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "Equal" | "" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.invalid(&at.field("operator"), value, messages.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&at.field("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" => errors.not_supported(&at.field("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]),
            other => errors.not_supported(&at.field("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            errors.one_of(&at.field("effect"), effect, &EFFECTS);
        }
    }
}

/// Taints of a Node.
pub(crate) fn taints(spec: &Value, at: &At, errors: &mut Errors) {
    let list = items(spec, "taints");
    for (i, taint) in list.iter().enumerate() {
        let at = at.index(i);
        errors.rule(&at.field("key"), text(taint, "key"), names::qualified);
        let messages = names::label_value(text(taint, "value"));
        if !messages.is_empty() {
            errors.invalid(&at.field("value"), text(taint, "value"), messages.join(";"));
        }
        super::container::required_one_of(taint, "effect", &EFFECTS, &at, errors);
        if list[..i].iter().any(|earlier| earlier["key"] == taint["key"] && earlier["effect"] == taint["effect"]) {
            errors.duplicate_because(&at, taint.clone(), "taints must be unique by key and effect pair");
        }
    }
}

/// Affinity to nodes and to other Pods.
pub(crate) fn affinity(spec: &Value, at: &At, errors: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let affinity = &spec["affinity"];
    let (node, node_at) = (&affinity["nodeAffinity"], at.field("nodeAffinity"));
    if is_set(node, REQUIRED) {
        node_selector(&node[REQUIRED], &node_at.field(REQUIRED), errors);
    }
    let weight = |term: &Value, at: &At, errors: &mut Errors| {
        let weight = term["weight"].as_i64().unwrap_or(0);
        if !(1..=100).contains(&weight) {
            errors.invalid(&at.field("weight"), weight, "must be in the range 1-100");
        }
    };
    for (i, term) in items(node, PREFERRED).iter().enumerate() {
        let at = node_at.field(PREFERRED);
        let at = at.index(i);
        weight(term, &at, errors);
        node_selector_term(&term["preference"], false, &at.field("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (pods, at) = (&affinity[kind], at.field(kind));
        for (i, term) in items(pods, REQUIRED).iter().enumerate() {
            pod_affinity_term(term, &at.field(REQUIRED).index(i), errors);
        }
        for (i, term) in items(pods, PREFERRED).iter().enumerate() {
            let at = at.field(PREFERRED);
            let at = at.index(i);
            weight(term, &at, errors);
            pod_affinity_term(&term["podAffinityTerm"], &at.field("podAffinityTerm"), errors);
        }
    }
}

/// Terms of which a Node must match one.
pub(crate) fn node_selector(selector: &Value, at: &At, errors: &mut Errors) {
    let (terms, at) = (items(selector, "nodeSelectorTerms"), at.field("nodeSelectorTerms"));
    if terms.is_empty() {
        errors.required(&at, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(term, true, &at.index(i), errors);
    }
}

fn node_selector_term(term: &Value, strict: bool, at: &At, errors: &mut Errors) {
    for (i, expression) in items(term, "matchExpressions").iter().enumerate() {
        let at = at.field("matchExpressions");
        let at = at.index(i);
        operator(expression, &["In", "NotIn"], &["Gt", "Lt"], &at, errors);
        errors.rule(&at.field("key"), text(expression, "key"), names::qualified);
        if strict {
            values(expression, &at, errors);
        }
    }
    for (i, expression) in items(term, "matchFields").iter().enumerate() {
        let at = at.field("matchFields");
        let at = at.index(i);
        let operator = text(expression, "operator");
        if !matches!(operator, "In" | "NotIn") {
            errors.invalid(&at.field("operator"), operator, "not a valid selector operator");
        } else if items(expression, "values").len() != 1 {
            errors.required(
                &at.field("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        if text(expression, "key") != "metadata.name" {
            errors.invalid(&at.field("key"), text(expression, "key"), "not a valid field selector key");
        } else {
            for (i, name) in items(expression, "values").iter().filter_map(Value::as_str).enumerate() {
                errors.rule(&at.field("values").index(i), name, names::subdomain);
            }
        }
    }
}

fn pod_affinity_term(term: &Value, at: &At, errors: &mut Errors) {
    for key in ["labelSelector", "namespaceSelector"] {
        label_selector(&term[key], &at.field(key), errors);
    }
    label_keys(term, at, errors);
    for namespace in items(term, "namespaces").iter().filter_map(Value::as_str) {
        errors.rule(&at.field("namespace"), namespace, names::label);
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&at.field("topologyKey"), "can not be empty");
    }
    errors.rule(&at.field("topologyKey"), key, names::qualified);
}

/// Spreading over domains.
pub(crate) fn topology_spread(spec: &Value, at: &At, errors: &mut Errors) {
    let list = items(spec, "topologySpreadConstraints");
    for (i, constraint) in list.iter().enumerate() {
        let at = at.index(i);
        let skew = constraint["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&at.field("maxSkew"), skew, "must be greater than zero");
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.required(&at.field("topologyKey"), "can not be empty");
        }
        let action = text(constraint, "whenUnsatisfiable");
        errors.one_of(&at.field("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let same =
            |other: &&Value| ["topologyKey", "whenUnsatisfiable"].iter().all(|key| other[*key] == constraint[*key]);
        if list[i + 1..].iter().any(|other| same(&other)) {
            let pair = format!("{{{}, {action}}}", text(constraint, "topologyKey"));
            errors.duplicate(&at.field("{topologyKey, whenUnsatisfiable}"), pair);
        }
        if let Some(domains) = constraint["minDomains"].as_i64() {
            if domains <= 0 {
                errors.invalid(&at.field("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&at.field("minDomains"), domains, why);
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"].into_iter().filter(|key| is_set(constraint, key)) {
            errors.one_of(&at.field(key), text(constraint, key), &["Honor", "Ignore"]);
        }
        label_keys(constraint, &at, errors);
        label_selector(&constraint["labelSelector"], &at.field("labelSelector"), errors);
    }
}

/// Labels of the Pod itself that join the selector.
fn label_keys(term: &Value, at: &At, errors: &mut Errors) {
    let selector = &term["labelSelector"];
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, at) = (items(term, list), at.field(list));
        if selector.is_null() && !keys.is_empty() {
            errors.forbidden(&at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            errors.rule(&at.index(i), key, names::qualified);
        }
    }
    let matched = items(term, "matchLabelKeys");
    let mut seen: Vec<&str> = super::entries(&selector["matchLabels"]).map(|(key, _)| key.as_str()).collect();
    for key in items(selector, "matchExpressions").iter().map(|expression| text(expression, "key")) {
        if let Some(i) = matched.iter().position(|matched| matched == key).filter(|_| seen.contains(&key)) {
            errors.invalid(&at.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
    for (i, key) in matched.iter().enumerate().filter(|(_, key)| items(term, "mismatchLabelKeys").contains(key)) {
        let at = at.field("matchLabelKeys");
        errors.invalid(&at.index(i), key.clone(), "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}
