//! Server-side tables: what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::resource::Resource;
use wherry_api::status::Status;

use crate::engine::Call;
use crate::objects;
use crate::options::{Query, invalid};
use crate::verbs::list::Page;

/// How much of the object each row carries (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(query: &Query<'_>) -> Result<Self, Status> {
        match query.get("includeObject") {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => {
                let supported = ["None", "Metadata", "Object", ""];
                Err(invalid("TableOptions", FieldError::not_supported(&Path::new("includeObject"), other, &supported)))
            }
        }
    }
}

/// The table of a list.
pub(crate) fn of_page(call: &Call, page: &Page, beta: bool) -> Result<Value, Status> {
    let include = Include::parse(&call.query())?;
    let now = Timestamp::now();
    let rows = page.entries.iter().map(|entry| {
        objects::tree(&call.resource, entry).map(|object| row(&call.resource, &object, include, beta, now))
    });
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(table(&call.resource, page.metadata(), rows, beta, true))
}

/// The table of objects that are stored nowhere.
pub(crate) fn of_trees(call: &Call, objects: &[Value], beta: bool) -> Result<Value, Status> {
    let include = Include::parse(&call.query())?;
    let now = Timestamp::now();
    let rows = objects.iter().map(|object| row(&call.resource, object, include, beta, now)).collect();
    Ok(table(&call.resource, Map::new(), rows, beta, true))
}

/// The table of an object that is the answer to a get or a write.
pub(crate) fn of_object(call: &Call, object: &Value, beta: bool) -> Result<Value, Status> {
    Ok(of_one(&call.resource, object, Include::parse(&call.query())?, beta, true))
}

/// A table of one row, in watches without the columns but for the first.
pub(crate) fn of_one(resource: &Resource, object: &Value, include: Include, beta: bool, columns: bool) -> Value {
    let mut metadata = Map::new();
    let version = meta::resource_version(object);
    if !version.is_empty() {
        metadata.insert("resourceVersion".to_owned(), version.into());
    }
    let rows = vec![row(resource, object, include, beta, Timestamp::now())];
    table(resource, metadata, rows, beta, columns)
}

fn table(resource: &Resource, metadata: Map<String, Value>, rows: Vec<Value>, beta: bool, columns: bool) -> Value {
    let definitions: Vec<Value> = if columns {
        let definition = |c: &wherry_api::columns::Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
        resource.strategy.columns.iter().map(definition).collect()
    } else {
        Vec::new()
    };
    json!({
        "kind": "Table", "apiVersion": objects::meta_version(beta), "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn row(resource: &Resource, object: &Value, include: Include, beta: bool, now: Timestamp) -> Value {
    let mut row = json!({"cells": resource.strategy.row(object, now)});
    match include {
        Include::None => {}
        Include::Metadata => {
            row["object"] = objects::partial_tree(object, beta);
        }
        Include::Object => row["object"] = object.clone(),
    }
    row
}
