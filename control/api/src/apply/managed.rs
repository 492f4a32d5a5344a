//! `metadata.managedFields`: who manages which fields, and since when
//! (upstream: apimachinery, `util/managedfields/internal/managedfields.go`).

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// How many entries of updates are kept; the oldest are merged into one (`capmanagers.go`).
const MAX_UPDATERS: usize = 10;
const OLD_UPDATERS: &str = "ancient-changes";

/// How a manager came by its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who: what tells one entry from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) operation: Operation,
    pub(super) manager: String,
    /// Of updates; who applies is the same at every version.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Identity {
    /// As conflicts name the manager.
    pub(super) fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            shown += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            shown += &format!(" using {}", self.api_version);
        }
        shown
    }
}

/// What one manager has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) who: Identity,
    /// The version whose fields these are.
    pub(super) api_version: String,
    /// When it last took some, RFC 3339.
    pub(super) time: Option<String>,
    pub(super) fields: FieldSet,
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Managers(pub(super) Vec<Entry>);

impl Managers {
    /// Reads `metadata.managedFields`.
    pub(super) fn parse(list: Option<&Value>) -> Result<Self, String> {
        let items = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut managers = Self::default();
        for item in items {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            let operation = match text("operation").as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            if text("fieldsType") != "FieldsV1" {
                return Err(format!("invalid fieldsType {:?}", text("fieldsType")));
            }
            let fields = item.get("fieldsV1").map_or_else(|| Ok(FieldSet::default()), FieldSet::parse)?;
            let who = Identity {
                operation,
                manager: text("manager"),
                api_version: if operation == Operation::Apply { String::new() } else { api_version.clone() },
                subresource: text("subresource"),
            };
            let time = item["time"].as_str().map(str::to_owned);
            managers.put(Entry { who, api_version, time, fields });
        }
        Ok(managers)
    }

    /// Writes `metadata.managedFields`: appliers first, then by time and name.
    pub(super) fn to_value(&self) -> Value {
        let mut entries: Vec<&Entry> = self.0.iter().collect();
        entries.sort_by_key(|e| (e.who.operation, &e.time, &e.who.manager, &e.api_version, &e.who.subresource));
        let written = entries.into_iter().map(|entry| {
            let mut map = Map::new();
            map.insert("manager".to_owned(), entry.who.manager.as_str().into());
            let operation = if entry.who.operation == Operation::Apply { "Apply" } else { "Update" };
            map.insert("operation".to_owned(), operation.into());
            map.insert("apiVersion".to_owned(), entry.api_version.as_str().into());
            if let Some(time) = &entry.time {
                map.insert("time".to_owned(), time.as_str().into());
            }
            map.insert("fieldsType".to_owned(), "FieldsV1".into());
            map.insert("fieldsV1".to_owned(), entry.fields.to_value());
            if !entry.who.subresource.is_empty() {
                map.insert("subresource".to_owned(), entry.who.subresource.as_str().into());
            }
            Value::Object(map)
        });
        written.collect()
    }

    pub(super) fn get(&self, who: &Identity) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.who == *who)
    }

    /// Puts an entry in the place of the manager's old one; without fields there is none.
    pub(super) fn put(&mut self, entry: Entry) {
        self.0.retain(|old| old.who != entry.who);
        if !entry.fields.is_empty() {
            self.0.push(entry);
        }
    }

    /// Merges the oldest updates until few enough are left, those of each version into one.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<Entry> =
            self.0.iter().filter(|entry| entry.who.operation == Operation::Update).cloned().collect();
        if updaters.len() <= MAX_UPDATERS {
            return;
        }
        updaters.sort_by(|a, b| (&a.time, &a.who).cmp(&(&b.time, &b.who)));
        let mut surplus = updaters.len() - MAX_UPDATERS;
        // The first of a version is kept until another joins it.
        let mut first: Vec<Entry> = Vec::new();
        for entry in updaters {
            if surplus == 0 {
                break;
            }
            let Some(bucket) = first.iter_mut().find(|bucket| bucket.api_version == entry.api_version) else {
                first.push(entry);
                continue;
            };
            self.0.retain(|old| old.who != entry.who && old.who != bucket.who);
            bucket.who.manager = OLD_UPDATERS.to_owned();
            bucket.who.subresource = String::new();
            bucket.fields = std::mem::take(&mut bucket.fields).union(entry.fields);
            bucket.time = entry.time;
            self.put(bucket.clone());
            surplus -= 1;
        }
    }
}

/// Whether a client asks for a new start: an empty list, or one empty entry.
pub(super) fn is_reset(list: Option<&Value>) -> bool {
    list.and_then(Value::as_array).is_some_and(|items| {
        items.is_empty()
            || matches!(items.as_slice(), [Value::Object(only)] if only.values().all(|value| *value == json!("")))
    })
}
