//! The Pod Security Standards: what a Pod may ask of its node, by the labels of its namespace.
//!
//! Pods are refused by `enforce`; `warn` speaks to whoever writes Pods or what makes Pods (Deployments, Jobs, ...); a namespace
//! whose labels become stricter is told which of its Pods would not do. Containers of both kinds, Wasm and native, obey the
//! same rules: what is written in a Pod counts, not what would run it. Behaviour and words are those of
//! k8s.io/pod-security-admission with its default configuration, which exempts nobody.

mod checks;
mod fields;
mod policy;

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use policy::{Level, Policy, Standard};
use serde_json::Value;
use wherry_api::meta;
use wherry_api::status::Status;

use self::checks::{Subject, Verdict};
use super::{Attributes, Operation, Plugin};
use crate::objects;

/// Subresources of a Pod that leave alone what the standards look at.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// At most so many Pods are looked at when a namespace's labels change.
const MOST_PODS: usize = 3000;
/// What makes Pods, and where its template is.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

pub(super) struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        if attributes.operation == Operation::Delete {
            return Ok(());
        }
        if attributes.is("", "namespaces") {
            return namespace(attributes, object);
        }
        let resource = attributes.resource;
        if resource.group.is_empty() && resource.plural == "pods" && !HARMLESS.contains(&attributes.subresource) {
            return pod(attributes, object);
        }
        if let Some((_, _, pointer)) = TEMPLATES.iter().find(|(group, plural, _)| attributes.is(group, plural))
            && let Some(template) = object.pointer(pointer).filter(|t| t.is_object())
        {
            warn(attributes, policy(attributes)?, template, None);
        }
        Ok(())
    }
}

fn policy(attributes: &Attributes<'_>) -> Result<Policy, Status> {
    let missing = || Status::internal(format!("failed to lookup namespace {:?}", attributes.namespace));
    let entry = attributes.engine.lookup("namespaces", "", attributes.namespace).ok_or_else(missing)?;
    Ok(Policy::of(&objects::stored_tree(&entry)?).0)
}

fn pod(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if attributes.old.is_some_and(|old| !is_significant(pod, old)) {
        return Ok(());
    }
    let policy = policy(attributes)?;
    annotate("enforce-policy", || policy.enforce.to_string());
    let enforced = checks::evaluate(policy.enforce, Subject::of(pod));
    if !enforced.is_allowed() {
        audit(policy, pod);
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, enforced.detail());
        return Err(attributes.forbidden(why));
    }
    warn(attributes, policy, pod, Some(enforced));
    Ok(())
}

/// Notes something for the audit log.
fn annotate(key: &str, value: impl FnOnce() -> String) {
    crate::audit::annotate(&format!("pod-security.kubernetes.io/{key}"), value);
}

/// Says what the levels `warn` and `audit` find. `enforced` is the verdict of the level `enforce` if there was one.
fn warn(attributes: &Attributes<'_>, policy: Policy, object: &Value, enforced: Option<Verdict>) {
    audit(policy, object);
    let verdict = match enforced {
        Some(verdict) if policy.warn == policy.enforce => verdict,
        _ => checks::evaluate(policy.warn, Subject::of(object)),
    };
    if !verdict.is_allowed() {
        attributes.notes.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, verdict.detail()));
    }
}

fn audit(policy: Policy, object: &Value) {
    let verdict = checks::evaluate(policy.audit, Subject::of(object));
    if !verdict.is_allowed() {
        let found = || format!("would violate PodSecurity \"{}\": {}", policy.audit, verdict.detail());
        annotate("audit-violations", found);
    }
}

/// Whether an update changes what the standards look at: only images can change, and containers come.
fn is_significant(new: &Value, old: &Value) -> bool {
    let list = |pod: &'_ Value, key: &str| pod["spec"][key].as_array().cloned().unwrap_or_default();
    for key in ["containers", "initContainers"] {
        let (new, old) = (list(new, key), list(old, key));
        if new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| new["image"] != old["image"]) {
            return true;
        }
    }
    let before = list(old, "ephemeralContainers");
    list(new, "ephemeralContainers").iter().any(|container| {
        !before.iter().any(|old| old["name"] == container["name"] && old["image"] == container["image"])
    })
}

fn namespace(attributes: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
    let (policy, errors) = Policy::of(namespace);
    let invalid = || Status::invalid("", "Namespace", attributes.name, &errors);
    let Some(old) = attributes.old else {
        return if errors.is_empty() { Ok(()) } else { Err(invalid()) };
    };
    let (before, old_errors) = Policy::of(old);
    if !errors.is_empty() && errors != old_errors {
        return Err(invalid());
    }
    let (new, old) = (policy.enforce, before.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new != old && new.level != Level::Privileged && !relaxed {
        for warning in pods_that_would_not_do(attributes, new)? {
            attributes.notes.warn(warning);
        }
    }
    Ok(())
}

/// Warnings about the Pods of a namespace that violate a standard, grouped by what is wrong; one Pod a controller is looked at
/// before the others.
fn pods_that_would_not_do(attributes: &Attributes<'_>, standard: Standard) -> Result<Vec<String>, Status> {
    let entries = attributes.engine.of_namespace("pods", attributes.name)?;
    let mut controllers = HashSet::new();
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for entry in &entries {
        let pod = objects::stored_tree(entry)?;
        let owner = meta::controller_of(&pod).map(|owner| owner["uid"].to_string());
        if owner.is_none_or(|uid| controllers.insert(uid)) { first.push(pod) } else { others.push(pod) }
    }
    first.append(&mut others);
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in first.iter().take(MOST_PODS) {
        let verdict = checks::evaluate(standard, Subject::of(pod));
        if !verdict.is_allowed() {
            let name = meta::name(pod).to_owned();
            let (least, count) = found.entry(verdict.reason()).or_insert_with(|| (name.clone(), 0));
            *count += 1;
            if name < *least {
                *least = name;
            }
        }
    }
    let mut warnings = Vec::new();
    if first.len() > MOST_PODS {
        let total = first.len();
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        let namespace = attributes.name;
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut each: Vec<String> = found
        .into_iter()
        .map(|(reason, (name, count))| match count {
            1 => format!("{name}: {reason}"),
            2 => format!("{name} (and 1 other pod): {reason}"),
            _ => format!("{name} (and {} other pods): {reason}", count - 1),
        })
        .collect();
    each.sort();
    warnings.append(&mut each);
    Ok(warnings)
}
