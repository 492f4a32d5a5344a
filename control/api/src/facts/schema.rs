//! A type together with the facts it lives in, and the `apiVersion` and `kind` that objects of it must carry.

use std::sync::Arc;

use serde_json::Value;

use super::{Facts, Type, TypeId};

/// What objects of one resource, or one kind of request body, must look like.
#[derive(Debug, Clone)]
pub struct Schema {
    facts: Arc<Facts>,
    root: TypeId,
    api_version: String,
    kind: String,
}

impl Schema {
    /// The built-in type with this `apiVersion` and `kind`.
    pub fn builtin(api_version: &str, kind: &str) -> Option<Self> {
        let facts = Facts::builtin();
        let root = facts.by_kind(api_version, kind)?;
        Some(Self { facts: facts.clone(), root, api_version: api_version.to_owned(), kind: kind.to_owned() })
    }

    /// A built-in type of the machinery (`DeleteOptions`, `Status`, ...), whose bodies may say any `apiVersion`.
    pub fn machinery(kind: &str) -> Option<Self> {
        let facts = Facts::builtin();
        let root = facts.find(&format!("meta.v1.{kind}"))?;
        Some(Self { facts: facts.clone(), root, api_version: String::new(), kind: kind.to_owned() })
    }

    /// A type of `facts`.
    pub fn new(facts: Arc<Facts>, root: TypeId, api_version: String, kind: String) -> Self {
        Self { facts, root, api_version, kind }
    }

    /// The types.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The id of the type of whole objects.
    pub fn root(&self) -> TypeId {
        self.root
    }

    /// The type of whole objects.
    pub fn root_type(&self) -> &Type {
        self.facts.get(self.root)
    }

    /// An object in which nothing is set: what Go writes of it.
    pub fn empty(&self) -> Value {
        Value::Object(self.root_type().empty(&self.facts))
    }

    /// Puts in what Go always writes of an object, such as an empty status.
    pub fn complete(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            self.root_type().complete(&self.facts, map);
        }
    }

    /// The `apiVersion` objects must have; empty if any will do.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// The `kind` objects must have.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}
