//! What is to be logged of which requests: the first rule that matches says.

use serde::Deserialize;

use crate::User;
use crate::layers::authorize::Attributes;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// An audit policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What is to be logged of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) level: Level,
    omitted: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Verdict {
    pub(super) fn wants(&self, stage: Stage) -> bool {
        self.level > Level::None && !self.omitted.contains(&stage)
    }
}

impl Policy {
    /// Reads a policy (YAML or JSON); the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(format!("expected a Policy of audit.k8s.io/v1, not {} of {}", policy.kind, policy.api_version));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{i}]: {why}"))?;
        }
        Ok(policy)
    }

    pub(super) fn judge(&self, user: &User, attributes: &Attributes<'_>) -> Verdict {
        match self.rules.iter().find(|rule| rule.matches(user, attributes)) {
            Some(rule) => Verdict {
                level: rule.level,
                omitted: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
            },
            None => Verdict { level: Level::None, omitted: Vec::new(), omit_managed_fields: false },
        }
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == value)
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let about_objects = !self.resources.is_empty() || !self.namespaces.is_empty();
        if about_objects && !self.paths.is_empty() {
            return Err("rules cannot apply to both regular resources and non-resource URLs".to_owned());
        }
        for path in self.paths.iter().filter(|path| *path != "*") {
            if !path.starts_with('/') {
                return Err(format!("{path:?}: non-resource URL rules must begin with a '/' character"));
            }
            if path.trim_end_matches('*').contains('*') {
                return Err(format!(
                    "{path:?}: non-resource URL wildcards '*' must be the final character of the rule"
                ));
            }
        }
        if self.resources.iter().any(|group| !group.resource_names.is_empty() && group.resources.is_empty()) {
            return Err("using resourceNames requires at least one resource".to_owned());
        }
        Ok(())
    }

    fn matches(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        let who = (self.users.is_empty() || has(&self.users, &user.name))
            && (self.user_groups.is_empty() || user.groups.iter().any(|group| has(&self.user_groups, group)));
        if !who || !(self.verbs.is_empty() || has(&self.verbs, attributes.verb)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, attributes.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|group| group.matches(attributes)));
        }
        if !self.paths.is_empty() {
            let matches = |path: &String| {
                let rest = path.strip_suffix('*');
                path == attributes.path || rest.is_some_and(|prefix| attributes.path.starts_with(prefix))
            };
            return !attributes.is_resource && self.paths.iter().any(matches);
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let (resource, subresource) = (attributes.resource, attributes.subresource);
        if self.group != attributes.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || has(&self.resource_names, attributes.name);
        named
            && self.resources.iter().any(|wanted| match wanted.split_once('/') {
                _ if wanted == "*" => true,
                None => subresource.is_empty() && wanted == resource,
                Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
                Some((of, "*")) => of == resource,
                Some((of, sub)) => of == resource && sub == subresource,
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: ["system:kube-scheduler"]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: RequestResponse
  omitManagedFields: false
  namespaces: ["kube-system"]
  resources: [{group: "", resources: ["configmaps"], resourceNames: ["loud"]}]
- level: Request
  verbs: ["create", "patch"]
  resources: [{group: "", resources: ["pods/*"]}, {group: "apps"}, {group: "*", resources: ["*/scale"]}]
- level: Metadata
  userGroups: ["dev"]
  omitStages: [ResponseStarted]
"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY).unwrap();
        let resource = |verb, group, resource, subresource, namespace, name| Attributes {
            is_resource: true,
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        let (dev, scheduler) = (User::new("jane", ["dev"]), User::component("kube-scheduler"));
        let other = User::new("joe", ["ops"]);
        for (user, attributes, expected) in [
            (&scheduler, resource("create", "", "pods", "binding", "a", "b"), Level::None),
            (&dev, path("/healthz/ping"), Level::None),
            (&dev, path("/versions"), Level::Metadata),
            (&other, path("/versions"), Level::None),
            (&other, resource("get", "", "configmaps", "", "kube-system", "loud"), Level::RequestResponse),
            (&other, resource("get", "", "configmaps", "", "kube-system", "quiet"), Level::None),
            (&other, resource("get", "", "configmaps", "", "default", "loud"), Level::None),
            (&other, resource("create", "", "pods", "", "a", "b"), Level::Request),
            (&other, resource("create", "", "pods", "eviction", "a", "b"), Level::Request),
            (&other, resource("create", "apps", "deployments", "", "a", "b"), Level::Request),
            (&other, resource("patch", "x", "things", "scale", "a", "b"), Level::Request),
            (&other, resource("get", "x", "things", "scale", "a", "b"), Level::None),
            (&dev, resource("get", "", "secrets", "", "a", "b"), Level::Metadata),
        ] {
            assert_eq!(policy.judge(user, &attributes).level, expected, "{} {attributes:?}", user.name);
        }
        let verdict = policy.judge(&dev, &resource("get", "", "secrets", "", "a", "b"));
        assert!(!verdict.wants(Stage::RequestReceived) && !verdict.wants(Stage::ResponseStarted));
        assert!(verdict.wants(Stage::ResponseComplete) && verdict.omit_managed_fields);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for (text, why) in [
            ("kind: Policy", "apiVersion"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy}", "0 rules"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Loud}]}", "Loud"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, nonResourceURLs: [a]}]}", "rules[0]"),
            ("{apiVersion: v1, kind: Policy, rules: [{level: None}]}", "audit.k8s.io/v1"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
