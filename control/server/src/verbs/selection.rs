//! Which objects a list, watch or deletecollection is about.

use wherry_api::selector::{FieldSelector, LabelSelector};
use wherry_api::status::Status;
use wherry_store::{Entry, Range};

use crate::engine::Call;
use crate::layers::info::Verb;
use crate::options::Query;

/// The selectors of a request.
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    everything: bool,
    /// The only name that can match.
    name: Option<String>,
}

impl Selection {
    pub(crate) fn parse(call: &Call, query: &Query<'_>) -> Result<Self, Status> {
        let labels = query.get("labelSelector").map(LabelSelector::parse).transpose();
        let labels = labels.map_err(|e| unreadable(&e))?.unwrap_or_else(LabelSelector::everything);
        let fields = query.get("fieldSelector").map(FieldSelector::parse).transpose();
        let fields = fields.map_err(|e| unreadable(&e))?.unwrap_or_else(FieldSelector::everything);
        call.stored.check_fields(&fields)?;
        // Watches of one object, in the deprecated form, have its name in the path.
        let name = call.info.name.clone().filter(|_| call.info.verb == Verb::Watch);
        let named = fields.exact("metadata.name");
        if name.is_some() && !fields.is_everything() && name.as_deref() != named {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        let name = name.or_else(|| named.filter(|name| !name.is_empty()).map(str::to_owned));
        let everything = labels.is_everything() && fields.is_everything();
        Ok(Self { labels, fields, everything, name })
    }

    /// Whether nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        self.everything || self.labels.matches(&entry.attributes.labels) && self.fields.matches(&entry.attributes)
    }

    /// `range` narrowed by what the field selector says of name and namespace.
    pub(crate) fn narrow(&self, call: &Call, range: Range) -> Range {
        let range = match &self.name {
            Some(name) => range.name(name.as_str()),
            None => range,
        };
        match self.fields.exact("metadata.namespace") {
            Some(namespace) if call.resource.namespaced && range.namespace.is_none() && !namespace.is_empty() => {
                range.namespace(namespace)
            }
            _ => range,
        }
    }
}

/// A selector that cannot be read.
pub(crate) fn unreadable(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(error.to_string())
}
