//! FlowSchemas and PriorityLevelConfigurations (upstream: `pkg/apis/flowcontrol/validation`).

use serde_json::Value;

use super::{At, Errors, is_set, items, names, text};

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
/// How many bits a flow's hash has to deal a hand with.
const HASH_BITS: u32 = 60;

/// FlowSchema.
pub(crate) fn flow_schema(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let precedence = spec["matchingPrecedence"].as_i64().unwrap_or(0);
    let precedence_at = at.field("matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(&precedence_at, precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(&precedence_at, precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && text(&object["metadata"], "name") != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(&precedence_at, precedence, why);
    }
    if is_set(spec, "distinguisherMethod") {
        let at = at.field("distinguisherMethod");
        errors.one_of(&at.field("type"), text(&spec["distinguisherMethod"], "type"), &["ByNamespace", "ByUser"]);
    }
    let level_at = at.field("priorityLevelConfiguration");
    match text(&spec["priorityLevelConfiguration"], "name") {
        "" => errors.required(&level_at.field("name"), "must reference a priority level"),
        name => errors.rule(&level_at.field("name"), name, names::subdomain),
    }
    let rules_at = at.field("rules");
    for (i, rule) in items(spec, "rules").iter().enumerate() {
        rules(rule, &rules_at.index(i), errors);
    }
}

fn rules(rule: &Value, at: &At, errors: &mut Errors) {
    let subjects_at = at.field("subjects");
    if items(rule, "subjects").is_empty() {
        errors.required(&subjects_at, "subjects must contain at least one value");
    }
    for (i, found) in items(rule, "subjects").iter().enumerate() {
        subject(found, &subjects_at.index(i), errors);
    }
    let (of_resources, of_urls) = (items(rule, "resourceRules"), items(rule, "nonResourceRules"));
    if of_resources.is_empty() && of_urls.is_empty() {
        errors.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let rules_at = at.field("resourceRules");
    for (i, rule) in of_resources.iter().enumerate() {
        resource_rule(rule, &rules_at.index(i), errors);
    }
    let rules_at = at.field("nonResourceRules");
    for (i, rule) in of_urls.iter().enumerate() {
        let at = rules_at.index(i);
        verbs(rule, &at, errors);
        let needed = "nonResourceURLs must contain at least one value";
        if listed(rule, "nonResourceURLs", needed, "non-resource URLs", &at, errors) {
            let urls_at = at.field("nonResourceURLs");
            for (i, url) in texts(rule, "nonResourceURLs").enumerate() {
                if let Some(why) = url_problem(url) {
                    errors.invalid(&urls_at.index(i), url, why);
                }
            }
        }
    }
}

fn subject(subject: &Value, at: &At, errors: &mut Errors) {
    const FORMS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(subject, "kind");
    let Some((_, form)) = FORMS.iter().find(|(name, _)| *name == kind) else {
        errors.not_supported(&at.field("kind"), kind, &["Group", "ServiceAccount", "User"]);
        return;
    };
    let form_at = at.field(form);
    if !is_set(subject, form) {
        errors.required(&form_at, format!("{form} is required when subject kind is '{kind}'"));
    } else {
        let (found, name_at) = (&subject[*form], form_at.field("name"));
        match text(found, "name") {
            "" => errors.required(&name_at, ""),
            name if *form == "serviceAccount" && name != "*" => errors.rule(&name_at, name, names::subdomain),
            _ => {}
        }
        if *form == "serviceAccount" {
            match text(found, "namespace") {
                "" => errors.required(&form_at.field("namespace"), "must specify namespace for service account"),
                namespace => errors.rule(&form_at.field("namespace"), namespace, names::label),
            }
        }
    }
    for (other, field) in FORMS.iter().filter(|(name, field)| *name != kind && is_set(subject, field)) {
        errors.forbidden(&at.field(field), format!("{field} is forbidden when subject kind is not '{other}'"));
    }
}

fn resource_rule(rule: &Value, at: &At, errors: &mut Errors) {
    verbs(rule, at, errors);
    listed(rule, "apiGroups", "resource rules must supply at least one api group", "api groups", at, errors);
    listed(rule, "resources", "resource rules must supply at least one resource", "resources", at, errors);
    let needed = "resource rules that are not cluster scoped must supply at least one namespace";
    if items(rule, "namespaces").is_empty() && rule["clusterScope"] == true {
        return;
    }
    if listed(rule, "namespaces", needed, "namespaces", at, errors) {
        let namespaces_at = at.field("namespaces");
        for (i, namespace) in texts(rule, "namespaces").enumerate() {
            for why in names::label(namespace) {
                let intro = "each member of this list must be '*' or a DNS-1123 label; ";
                errors.invalid(&namespaces_at.index(i), namespace, format!("{intro}{why}"));
            }
        }
    }
}

fn verbs(rule: &Value, at: &At, errors: &mut Errors) {
    let known = |verb: &str| VERBS.contains(&verb);
    let needed = "verbs must contain at least one value";
    if listed(rule, "verbs", needed, "verbs", at, errors) && !texts(rule, "verbs").all(known) {
        errors.not_supported(&at.field("verbs"), rule["verbs"].clone(), &VERBS);
    }
}

/// Checks a list that must have something in it, `*` alone or other items; true if its items need a look.
fn listed(rule: &Value, key: &str, needed: &str, others: &str, at: &At, errors: &mut Errors) -> bool {
    let found = items(rule, key);
    let wild = found.iter().any(|item| item == "*");
    if found.is_empty() {
        errors.required(&at.field(key), needed);
    } else if wild && found.len() > 1 {
        let why = format!("if '*' is present, must not specify other {others}");
        errors.invalid(&at.field(key), rule[key].clone(), why);
    }
    !found.is_empty() && !wild
}

fn texts<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    items(value, key).iter().filter_map(Value::as_str)
}

fn url_problem(url: &str) -> Option<&'static str> {
    let wild = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if wild > 1 || wild == 1 && !url.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

/// PriorityLevelConfiguration.
pub(crate) fn priority_level(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let (kind, type_at) = (text(spec, "type"), at.field("type"));
    if (text(&object["metadata"], "name") == "exempt") != (kind == "Exempt") {
        errors.invalid(&type_at, kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind {
        "Exempt" => {
            if is_set(spec, "limited") {
                errors.forbidden(&at.field("limited"), "must be nil if the type is not Limited");
            }
            shares(&spec["exempt"], &at.field("exempt"), errors);
        }
        "Limited" => {
            if is_set(spec, "exempt") {
                errors.forbidden(&at.field("exempt"), "must be nil if the type is Limited");
            }
            if is_set(spec, "limited") {
                limited(&spec["limited"], &at.field("limited"), errors);
            } else {
                errors.required(&at.field("limited"), "must not be empty when type is Limited");
            }
        }
        "" => errors.required(&type_at, ""),
        other => errors.not_supported(&type_at, other, &["Exempt", "Limited"]),
    }
}

fn shares(level: &Value, at: &At, errors: &mut Errors) {
    if let Some(shares) = level["nominalConcurrencyShares"].as_i64().filter(|n| *n < 0) {
        errors.invalid(&at.field("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    if let Some(percent) = level["lendablePercent"].as_i64().filter(|n| !(0..=100).contains(n)) {
        errors.invalid(&at.field("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn limited(limited: &Value, at: &At, errors: &mut Errors) {
    shares(limited, at, errors);
    if let Some(percent) = limited["borrowingLimitPercent"].as_i64().filter(|n| *n < 0) {
        errors.invalid(&at.field("borrowingLimitPercent"), percent, "if specified, must be a non-negative integer");
    }
    let (response, response_at) = (&limited["limitResponse"], at.field("limitResponse"));
    let queuing_at = response_at.field("queuing");
    match text(response, "type") {
        "Reject" if is_set(response, "queuing") => {
            errors.forbidden(&queuing_at, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if is_set(response, "queuing") => queuing(&response["queuing"], &queuing_at, errors),
        "Queue" => errors.required(&queuing_at, "must not be empty if limited.limitResponse.type is Limited"),
        "" => errors.required(&response_at.field("type"), ""),
        other => errors.not_supported(&response_at.field("type"), other, &["Queue", "Reject"]),
    }
}

fn queuing(queuing: &Value, at: &At, errors: &mut Errors) {
    let [limit, queues, hand] =
        ["queueLengthLimit", "queues", "handSize"].map(|key| queuing[key].as_i64().unwrap_or(0));
    if limit <= 0 {
        errors.invalid(&at.field("queueLengthLimit"), limit, "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&at.field("queues"), queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(&at.field("queues"), queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let hand_at = at.field("handSize");
    if hand <= 0 {
        errors.invalid(&hand_at, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&hand_at, hand, format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&hand_at, hand, why);
    }
}

/// The bits of a hash that dealing `hand` of `queues` cards uses up.
fn entropy_bits(queues: i64, hand: i64) -> u32 {
    ((queues as f64).log2() * hand as f64).ceil() as u32
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(check: fn(&Value, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    fn schema() -> Value {
        json!({"metadata": {"name": "s"}, "spec": {
            "matchingPrecedence": 10, "priorityLevelConfiguration": {"name": "l"}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/x/*"]}],
            }],
        }})
    }

    #[test]
    fn flow_schemas() {
        assert!(problems(flow_schema, &schema()).is_empty());
        for (pointer, value, problem) in [
            (
                "/spec/matchingPrecedence",
                json!(0),
                "spec.matchingPrecedence: Invalid value: 0: must be a positive value",
            ),
            ("/spec/matchingPrecedence", json!(1), "only the schema named 'exempt' may have matchingPrecedence 1"),
            ("/spec/matchingPrecedence", json!(10_001), "must not be greater than 10000"),
            ("/spec/distinguisherMethod/type", json!("x"), "spec.distinguisherMethod.type: Unsupported value: \"x\""),
            ("/spec/priorityLevelConfiguration/name", json!(""), "must reference a priority level"),
            ("/spec/rules/0/subjects", json!([]), "spec.rules[0].subjects: Required value"),
            ("/spec/rules/0/subjects/0/kind", json!("User"), "user is required when subject kind is 'User'"),
            (
                "/spec/rules/0/subjects/0/group",
                json!({"name": "g"}),
                "group is forbidden when subject kind is not 'Group'",
            ),
            (
                "/spec/rules/0/subjects/0/serviceAccount/namespace",
                json!(""),
                "must specify namespace for service account",
            ),
            (
                "/spec/rules/0/resourceRules/0/clusterScope",
                json!(false),
                "spec.rules[0].resourceRules[0].namespaces: Required",
            ),
            (
                "/spec/rules/0/resourceRules/0/namespaces",
                json!(["A"]),
                "each member of this list must be '*' or a DNS-1123 label",
            ),
            (
                "/spec/rules/0/resourceRules/0/verbs",
                json!(["*", "get"]),
                "if '*' is present, must not specify other verbs",
            ),
            ("/spec/rules/0/nonResourceRules/0/verbs", json!(["head"]), "Unsupported value"),
            (
                "/spec/rules/0/nonResourceRules/0/nonResourceURLs",
                json!(["/x*"]),
                "wildcard can only do suffix matching",
            ),
            ("/spec/rules/0/nonResourceRules/0/nonResourceURLs", json!(["x"]), "must start with slash"),
        ] {
            let mut object = schema();
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            object.pointer_mut(parent).expect("a parent")[key] = value;
            let found = problems(flow_schema, &object);
            assert!(found.iter().any(|found| found.contains(problem)), "{pointer}: {found:?}");
        }
    }

    #[test]
    fn priority_levels() {
        let level = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        let queue = |queues: i64, hand: i64| {
            let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
            level("l", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}))
        };
        for good in [
            level("exempt", json!({"type": "Exempt", "exempt": {"lendablePercent": 0}})),
            level("l", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}})),
            queue(64, 8),
        ] {
            assert!(problems(priority_level, &good).is_empty(), "{good}");
        }
        for (bad, problem) in [
            (level("l", json!({"type": "Exempt"})), "must be 'Exempt' if and only if `name` is 'exempt'"),
            (level("l", json!({"type": "Limited"})), "must not be empty when type is Limited"),
            (level("l", json!({})), "spec.type: Required value"),
            (queue(4, 8), "should not be greater than queues (4)"),
            (queue(128, 9), "required entropy bits of deckSize 128 and handSize 9 should not be greater than 60"),
            (queue(0, 0), "spec.limited.limitResponse.queuing.queues: Invalid value: 0: must be positive"),
        ] {
            let found = problems(priority_level, &bad);
            assert!(found.iter().any(|found| found.contains(problem)), "{bad}: {found:?}");
        }
    }
}
