//! What a namespace's labels ask of its Pods: a level and a version for each of enforce, audit and warn.

use std::fmt;

use serde_json::Value;
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;

/// How strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// How strict, as of which version of the standards: a minor version of Kubernetes 1, none for the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Option<u32>,
}

impl Standard {
    const DEFAULT: Self = Self { level: Level::Privileged, version: None };
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            None => write!(f, "{}:latest", self.level.as_str()),
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
        }
    }
}

/// What is asked of the Pods of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Policy {
    /// The policy of a namespace and what is wrong with its labels. Labels that cannot be read enforce the strictest level,
    /// and neither audit nor warn.
    pub(super) fn of(namespace: &Value) -> (Self, Vec<FieldError>) {
        let mut policy = Self { enforce: Standard::DEFAULT, audit: Standard::DEFAULT, warn: Standard::DEFAULT };
        let mut errors = Vec::new();
        let mut enforced = false;
        let modes: [(&str, &mut Standard, Level); 3] = [
            ("enforce", &mut policy.enforce, Level::Restricted),
            ("audit", &mut policy.audit, Level::Privileged),
            ("warn", &mut policy.warn, Level::Privileged),
        ];
        for (mode, standard, fallback) in modes {
            let label = format!("pod-security.kubernetes.io/{mode}");
            if let Some(text) = meta::label(namespace, &label) {
                let level = Level::parse(text);
                enforced |= mode == "enforce" && level.is_some();
                standard.level = level.unwrap_or(fallback);
                if level.is_none() {
                    errors.push(invalid(&label, text, "must be one of privileged, baseline, restricted"));
                }
            }
            let label = format!("{label}-version");
            if let Some(text) = meta::label(namespace, &label) {
                match version(text) {
                    Some(version) => standard.version = version,
                    None => errors.push(invalid(&label, text, "must be \"latest\" or \"v1.x\"")),
                }
            }
        }
        // Who enforces is warned too, unless the labels say how.
        let says = |label: &str| meta::label(namespace, label).is_some();
        if enforced && !says("pod-security.kubernetes.io/warn") && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !says("pod-security.kubernetes.io/warn-version") {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

fn invalid(label: &str, value: &str, why: &str) -> FieldError {
    FieldError::invalid(&Path::new("metadata.labels").key(label), value, why)
}

/// The version that a text names (none in it for the latest); `None` if it names none.
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor == "0" || !minor.starts_with('0') && minor.bytes().all(|b| b.is_ascii_digit());
    if !plain {
        return None;
    }
    minor.parse().ok().map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_read_as_upstream_reads_them() {
        for (labels, expected, errors) in [
            (json!({}), ["privileged:latest", "privileged:latest", "privileged:latest"], 0),
            (json!({"enforce": "baseline"}), ["baseline:latest", "privileged:latest", "baseline:latest"], 0),
            (
                json!({"enforce": "baseline", "enforce-version": "v1.20", "warn": "restricted"}),
                ["baseline:v1.20", "privileged:latest", "restricted:latest"],
                0,
            ),
            (
                json!({"enforce": "baseline", "enforce-version": "v1.20", "warn-version": "v1.3"}),
                ["baseline:v1.20", "privileged:latest", "baseline:v1.3"],
                0,
            ),
            (
                json!({"enforce": "strict", "audit": "loose", "warn-version": "1.2", "audit-version": "v1.01"}),
                ["restricted:latest", "privileged:latest", "privileged:latest"],
                4,
            ),
        ] {
            let labels: serde_json::Map<String, Value> = labels
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone()))
                .collect();
            let (policy, found) = Policy::of(&json!({"metadata": {"labels": labels}}));
            let shown = [policy.enforce, policy.audit, policy.warn].map(|standard| standard.to_string());
            assert_eq!(shown, expected, "{labels:?}");
            assert_eq!(found.len(), errors, "{found:?}");
        }
    }
}
