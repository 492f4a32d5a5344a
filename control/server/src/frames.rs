//! Watch events on the wire: `{"type":"ADDED","object":...}`, one a line.

use std::sync::Arc;

use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::resource::Resource;
use wherry_api::status::Status;
use wherry_store::Entry;

use crate::engine::Call;
use crate::negotiate::View;
use crate::objects;
use crate::tables::{self, Include};

/// The annotation of the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Modified,
    Deleted,
}

impl Kind {
    fn head(self) -> &'static [u8] {
        match self {
            Kind::Added => b"{\"type\":\"ADDED\",\"object\":",
            Kind::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            Kind::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        }
    }
}

/// Writes the events of one watch in the representation its client asked for.
pub(crate) struct Encoder {
    resource: Arc<Resource>,
    api_version: String,
    view: View,
    include: Include,
    /// Whether a table's columns were sent: only the first table has them.
    columns_sent: bool,
}

impl Encoder {
    pub(crate) fn new(call: &Call, view: View) -> Result<Self, Status> {
        Ok(Self {
            resource: Arc::clone(&call.resource),
            api_version: call.info.group_version(),
            view,
            include: Include::parse(&call.query())?,
            columns_sent: false,
        })
    }

    /// Appends an event about a stored object.
    pub(crate) fn event(&mut self, out: &mut Vec<u8>, kind: Kind, entry: &Entry) -> Result<(), Status> {
        out.extend_from_slice(kind.head());
        match self.view {
            View::Whole => out.extend_from_slice(&objects::bytes(&self.resource, entry)?),
            View::Metadata => out.extend_from_slice(objects::partial(entry)?.as_bytes()),
            View::Table { .. } => self.write(out, &objects::tree(&self.resource, entry)?)?,
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    /// Appends the DELETED of an object that the selectors no longer match: as it was, at the revision of the change.
    pub(crate) fn left(&mut self, out: &mut Vec<u8>, previous: &Entry, revision: u64) -> Result<(), Status> {
        let mut object = objects::tree(&self.resource, previous)?;
        meta::set(&mut object, "resourceVersion", &revision.to_string());
        out.extend_from_slice(Kind::Deleted.head());
        match self.view {
            View::Metadata => {
                let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
                serde_json::to_writer(&mut *out, &partial).map_err(Status::internal)?;
            }
            View::Whole => serde_json::to_writer(&mut *out, &object).map_err(Status::internal)?,
            View::Table { .. } => self.write(out, &object)?,
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    /// Appends a bookmark.
    pub(crate) fn bookmark(&mut self, out: &mut Vec<u8>, revision: u64, initial_end: bool) -> Result<(), Status> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.view {
            View::Whole => {
                json!({"kind": self.resource.kind, "apiVersion": self.api_version, "metadata": metadata})
            }
            View::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            // A row would be printed as an object: the table says its revision and no more.
            View::Table { beta } => {
                json!({"kind": "Table", "apiVersion": tables::api_version(beta), "metadata": metadata, "columnDefinitions": [], "rows": []})
            }
        };
        serde_json::to_writer(&mut *out, &json!({"type": "BOOKMARK", "object": object})).map_err(Status::internal)?;
        out.push(b'\n');
        Ok(())
    }

    /// An ERROR event.
    pub(crate) fn error(&mut self, status: &Status) -> Vec<u8> {
        let mut line = json!({"type": "ERROR", "object": status.to_value()}).to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// Appends `object` as a table of one row.
    fn write(&mut self, out: &mut Vec<u8>, object: &Value) -> Result<(), Status> {
        let View::Table { beta } = self.view else {
            return Ok(());
        };
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        let table = tables::of_one(&self.resource, object, self.include, beta, columns);
        serde_json::to_writer(out, &table).map_err(Status::internal)
    }
}
