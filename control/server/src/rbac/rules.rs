//! Rules of roles: what they allow, whether some cover others, and how they are written.
//!
//! The behaviour is that of upstream's `pkg/apis/rbac/v1/evaluation_helpers.go` and of the policy comparator in
//! component-helpers.

use serde_json::{Map, Value};

use crate::layers::authorize::{Attributes, Rule};

const ALL: &str = "*";

/// Where a rule's lists are in an object, in the order of upstream's struct.
type Field = (&'static str, fn(&mut Rule) -> &mut Vec<String>);
const FIELDS: [Field; 5] = [
    ("verbs", |r| &mut r.verbs),
    ("apiGroups", |r| &mut r.groups),
    ("resources", |r| &mut r.resources),
    ("resourceNames", |r| &mut r.names),
    ("nonResourceURLs", |r| &mut r.paths),
];

/// The rules of a Role or ClusterRole.
pub(crate) fn of_role(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().map(Rule::from_value).collect()
}

impl Rule {
    /// A rule as it is in a role.
    pub(crate) fn from_value(value: &Value) -> Self {
        let mut rule = Self::default();
        for (key, field) in FIELDS {
            let texts = value[key].as_array().into_iter().flatten();
            *field(&mut rule) = texts.filter_map(Value::as_str).map(str::to_owned).collect();
        }
        rule
    }

    /// The rule as it is in a role and in the answer to a SelfSubjectRulesReview.
    pub(crate) fn to_value(&self) -> Value {
        let mut rule = self.clone();
        let mut map = Map::new();
        for (key, field) in FIELDS {
            let texts = std::mem::take(field(&mut rule));
            if !texts.is_empty() || key == "verbs" {
                map.insert(key.to_owned(), texts.into());
            }
        }
        map.into()
    }

    /// Whether the rule allows what `attributes` say.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.paths.iter().any(|path| path_covers(path, attributes.path));
        }
        has_or_all(&self.groups, attributes.group)
            && self.resources.iter().any(|r| resource_matches(r, attributes.resource, attributes.subresource))
            && (self.names.is_empty() || has(&self.names, attributes.name))
    }

    /// Whether everything that `part` (of one verb, resource and name) allows is allowed by this rule as well.
    fn covers(&self, part: &Rule) -> bool {
        let all = |own: &[String], parts: &[String]| parts.iter().all(|p| has_or_all(own, p));
        let resource = |wanted: &String| {
            let below = wanted.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
            has_or_all(&self.resources, wanted) || below.is_some_and(|all| has(&self.resources, &all))
        };
        all(&self.verbs, &part.verbs)
            && all(&self.groups, &part.groups)
            && part.resources.iter().all(resource)
            && (self.names.is_empty() || !part.names.is_empty() && part.names.iter().all(|n| has(&self.names, n)))
            && part.paths.iter().all(|wanted| self.paths.iter().any(|own| path_covers(own, wanted)))
    }

    /// The same as rules of one verb, group, resource and name each.
    fn break_down(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut parts = Vec::new();
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    match self.names.as_slice() {
                        [] => parts.push(part),
                        names => parts.extend(names.iter().map(|name| Self { names: one(name), ..part.clone() })),
                    }
                }
            }
        }
        for path in &self.paths {
            parts.extend(self.verbs.iter().map(|v| Self { verbs: one(v), paths: one(path), ..Self::default() }));
        }
        parts
    }

    /// The rule as messages show it.
    fn describe(&self) -> String {
        let parts = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(key, list)| format!("{key}:{}", quoted(list)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// A list of texts as Go's `%q` prints it.
pub(crate) fn quoted(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// What of `wanted` is not covered by `owned`, broken down.
pub(crate) fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::break_down);
    parts.filter(|part| !owned.iter().any(|own| own.covers(part))).collect()
}

/// Broken down rules as sorted lines, those that differ in the verb alone in one.
pub(crate) fn describe(parts: Vec<Rule>) -> Vec<String> {
    let mut compact: Vec<Rule> = Vec::new();
    for part in parts {
        let same = |r: &&mut Rule| {
            r.paths.is_empty() && (&r.groups, &r.resources, &r.names) == (&part.groups, &part.resources, &part.names)
        };
        match compact.iter_mut().find(same).filter(|_| part.paths.is_empty()) {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => compact.push(part),
        }
    }
    let mut lines: Vec<String> = compact.iter().map(Rule::describe).collect();
    lines.sort();
    lines.dedup();
    lines
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|text| text == wanted)
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|text| text == ALL || text == wanted)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    rule.strip_suffix(subresource)
        .and_then(|rest| rest.strip_suffix('/'))
        .is_some_and(|owner| owner == ALL || owner == resource)
}

fn path_covers(rule: &str, path: &str) -> bool {
    rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |text: &str| match text {
            "-" => Vec::new(),
            text => text.split(',').map(str::to_owned).collect(),
        };
        Rule { verbs: list(verbs), groups: list(groups), resources: list(resources), names: list(names), paths: vec![] }
    }

    fn paths(verbs: &str, paths: &[&str]) -> Rule {
        Rule { paths: paths.iter().map(|p| (*p).to_owned()).collect(), ..rule(verbs, "-", "-", "-") }
    }

    #[test]
    fn rules_allow_what_they_name() {
        // rule, (verb, group, resource, subresource, name), allowed
        let table = [
            (rule("get,list", "", "pods", "-"), ("list", "", "pods", "", ""), true),
            (rule("get,list", "", "pods", "-"), ("watch", "", "pods", "", ""), false),
            (rule("*", "", "pods", "-"), ("escalate", "", "pods", "", "x"), true),
            (rule("get", "apps", "deployments", "-"), ("get", "", "deployments", "", ""), false),
            (rule("get", "*", "deployments", "-"), ("get", "x", "deployments", "", ""), true),
            (rule("get", "", "pods", "-"), ("get", "", "pods", "log", ""), false),
            (rule("get", "", "pods/log", "-"), ("get", "", "pods", "log", ""), true),
            (rule("get", "", "pods/log", "-"), ("get", "", "pods", "", ""), false),
            (rule("get", "", "*/scale", "-"), ("get", "", "deployments", "scale", ""), true),
            (rule("get", "", "*/scale", "-"), ("get", "", "deployments", "upscale", ""), false),
            (rule("get", "", "*/scale", "-"), ("get", "", "deployments", "", ""), false),
            (rule("get", "", "*", "-"), ("get", "", "pods", "exec", ""), true),
            (rule("get", "", "pods/*", "-"), ("get", "", "pods", "exec", ""), false),
            (rule("get", "", "pods", "a,b"), ("get", "", "pods", "", "b"), true),
            (rule("get", "", "pods", "a,b"), ("get", "", "pods", "", "c"), false),
            (rule("create", "", "pods", "a"), ("create", "", "pods", "", ""), false),
            (rule("get", "-", "pods", "-"), ("get", "", "pods", "", ""), false),
            (rule("get", "", "-", "-"), ("get", "", "pods", "", ""), false),
            (rule("-", "", "pods", "-"), ("get", "", "pods", "", ""), false),
            (paths("get", &["*"]), ("get", "", "pods", "", ""), false),
        ];
        for (rule, (verb, group, resource, subresource, name), allowed) in table {
            let attributes =
                Attributes { is_resource: true, verb, group, resource, subresource, name, ..Attributes::default() };
            assert_eq!(rule.allows(&attributes), allowed, "{rule:?} {attributes:?}");
        }
        for (rule, verb, path, allowed) in [
            (paths("get", &["/healthz", "/apis/*"]), "get", "/healthz", true),
            (paths("get", &["/healthz", "/apis/*"]), "get", "/healthz/ping", false),
            (paths("get", &["/healthz", "/apis/*"]), "get", "/apis/apps", true),
            (paths("get", &["/healthz", "/apis/*"]), "get", "/apis", false),
            (paths("get", &["*"]), "post", "/x", false),
            (paths("*", &["*"]), "post", "/x", true),
            (rule("*", "*", "*", "-"), "get", "/x", false),
        ] {
            assert_eq!(rule.allows(&Attributes { verb, path, ..Attributes::default() }), allowed, "{rule:?} {path}");
        }
    }

    #[test]
    fn rules_cover_others() {
        // owned, wanted, what is missing
        let table = [
            (rule("*", "*", "*", "-"), rule("get", "", "pods", "x"), ""),
            (
                rule("get", "", "pods", "-"),
                rule("get,list,watch", "", "pods", "-"),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
            ),
            (rule("get", "", "*/log", "-"), rule("get", "", "pods/log", "-"), ""),
            (
                rule("get", "", "pods", "a"),
                rule("get", "", "pods", "a,b"),
                r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["b"], Verbs:["get"]}"#,
            ),
            (
                rule("get", "", "pods", "a"),
                rule("get", "", "pods", "-"),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#,
            ),
            (
                rule("get", "", "pods", "-"),
                rule("*", "", "pods", "-"),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#,
            ),
            (
                paths("get", &["/apis/*"]),
                paths("get", &["/apis/apps", "/api"]),
                r#"{NonResourceURLs:["/api"], Verbs:["get"]}"#,
            ),
            (rule("*", "*", "*", "-"), paths("get", &["*"]), r#"{NonResourceURLs:["*"], Verbs:["get"]}"#),
        ];
        for (owned, wanted, lacking) in table {
            assert_eq!(
                describe(missing(std::slice::from_ref(&owned), std::slice::from_ref(&wanted))).join("\n"),
                lacking,
                "{owned:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn rules_are_read_and_written() {
        let value = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]});
        assert_eq!(Rule::from_value(&value), rule("get", "", "pods", "x"));
        assert_eq!(Rule::from_value(&value).to_value(), value);
        assert_eq!(of_role(&json!({"rules": null})), []);
    }

    fn words(from: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(proptest::sample::select(from).prop_map(str::to_owned), 0..3)
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let resources: &[&str] = &["*", "pods", "pods/log", "*/log", "services"];
        (words(&["*", "get", "list"]), words(&["*", "", "apps"]), words(resources), words(&["a", "b"]))
            .prop_map(|(verbs, groups, resources, names)| Rule { verbs, groups, resources, names, paths: Vec::new() })
    }

    proptest! {
        /// What is covered cannot do more than what covers it.
        #[test]
        fn covered_rules_allow_no_more(
            owned in proptest::collection::vec(any_rule(), 0..4), wanted in any_rule(),
            verb in proptest::sample::select(vec!["get", "list"]), group in proptest::sample::select(vec!["", "apps"]),
            resource in proptest::sample::select(vec!["pods", "services"]), sub in proptest::sample::select(vec!["", "log"]),
            name in proptest::sample::select(vec!["", "a", "b"]),
        ) {
            let attributes =
                Attributes { is_resource: true, verb, group, resource, subresource: sub, name, ..Attributes::default() };
            if missing(&owned, std::slice::from_ref(&wanted)).is_empty() && wanted.allows(&attributes) {
                prop_assert!(owned.iter().any(|rule| rule.allows(&attributes)));
            }
        }
    }
}
