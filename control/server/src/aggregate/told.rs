//! What extension API servers told of themselves when they were last asked.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use serde_json::Value;
use wherry_api::discovery::Remote;

use super::registration::Registration;

/// By the APIService's name.
#[derive(Default)]
pub(super) struct Told(RwLock<BTreeMap<String, Word>>);

/// What one told.
#[derive(Debug, Clone, Default)]
pub(super) struct Word {
    /// Its resources in aggregated form.
    pub(super) resources: Value,
    /// Where its OpenAPI v3 document is, if it has one.
    pub(super) document: Option<String>,
}

impl Told {
    /// Takes what an APIService's server told.
    pub(super) fn take(&self, name: &str, word: Word) {
        self.0.write().insert(name.to_owned(), word);
    }

    /// Forgets an APIService that has gone.
    pub(super) fn forget(&self, name: &str) {
        self.0.write().remove(name);
    }

    /// An APIService with what its server told.
    pub(super) fn remote(&self, registration: &Registration) -> Remote {
        let resources = self.0.read().get(&registration.name()).map(|word| word.resources.clone()).unwrap_or_default();
        Remote {
            group: registration.group.clone(),
            version: registration.version.clone(),
            group_priority: registration.group_priority,
            version_priority: registration.version_priority,
            is_current: registration.available && !resources.is_null(),
            resources,
        }
    }

    /// The paths of all documents, and where they are.
    pub(super) fn documents(&self) -> Vec<(String, String)> {
        let path = |name: &str| name.split_once('.').map(|(version, group)| format!("apis/{group}/{version}"));
        self.0.read().iter().filter_map(|(name, word)| Some((path(name)?, word.document.clone()?))).collect()
    }
}
