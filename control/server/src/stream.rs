//! Bodies of lists, made while they are sent.
//!
//! Shared bytes are copied into chunks of [`CHUNK`] once, when the client is ready for them; what is compressed
//! goes through the encoder chunk by chunk. Memory a list in flight is thus a chunk and a pointer an object.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use wherry_api::encode::{protobuf, wire};
use wherry_api::resource::Resource;
use wherry_api::status::Status;
use wherry_store::Entry;

use crate::engine::Call;
use crate::negotiate::{Format, View};
use crate::verbs::list::{Page, list_type};
use crate::{objects, respond};

/// How much is handed to the connection at a time.
const CHUNK: usize = 64 << 10;

/// Answers with the page as a list in JSON or protobuf, of whole objects or their metadata.
pub(crate) fn list(call: &Call, view: View, format: Format, page: Page) -> Result<Response, Status> {
    let (head, items, size) = match format {
        Format::Protobuf => protobuf_parts(call, view, page)?,
        _ => json_parts(call, view, page),
    };
    let compress = size >= respond::COMPRESS_FROM && respond::accepts_gzip(&call.headers);
    let mut writer = ListWriter { items, next: 0, head: Some(head) };
    let content_type = HeaderValue::from_static(format.media_type());
    if size < CHUNK {
        let mut all = Vec::with_capacity(size + 256);
        while writer.fill(&mut all)? {}
        return Ok(respond::body(StatusCode::OK, content_type, Body::from(all)));
    }
    if !compress {
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::with_capacity(CHUNK + (CHUNK >> 2));
            match writer.fill(&mut chunk) {
                Ok(true) => Some(Ok(Bytes::from(chunk))),
                Ok(false) => None,
                Err(status) => Some(Err(status)),
            }
        });
        return Ok(respond::body(StatusCode::OK, content_type, Body::from_stream(futures::stream::iter(chunks))));
    }
    let mut encoder = Some(GzEncoder::new(Vec::with_capacity(CHUNK), respond::COMPRESSION));
    let chunks = std::iter::from_fn(move || {
        let result = compressed(&mut writer, &mut encoder);
        result.transpose()
    });
    let body = Body::from_stream(futures::stream::iter(chunks));
    Ok(respond::mark_gzip(respond::body(StatusCode::OK, content_type, body)))
}

/// The next compressed chunk; `None` after the last.
fn compressed(writer: &mut ListWriter, encoder: &mut Option<GzEncoder<Vec<u8>>>) -> Result<Option<Bytes>, Status> {
    let Some(gzip) = encoder.as_mut() else {
        return Ok(None);
    };
    let mut plain = Vec::with_capacity(CHUNK + (CHUNK >> 2));
    // The encoder keeps what it has not finished: go on until it gives something.
    while gzip.get_ref().len() < CHUNK / 4 {
        plain.clear();
        if !writer.fill(&mut plain)? {
            let last = encoder.take().map(GzEncoder::finish).transpose().map_err(Status::internal)?;
            return Ok(last.map(Bytes::from));
        }
        gzip.write_all(&plain).map_err(Status::internal)?;
    }
    Ok(Some(Bytes::from(std::mem::take(gzip.get_mut()))))
}

/// What comes before the items, the items, and about how many bytes they are.
type Parts = (Vec<u8>, Items, usize);

fn json_parts(call: &Call, view: View, page: Page) -> Parts {
    let (api_version, kind) = list_type(call, view);
    let metadata = Value::Object(page.metadata());
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[");
    let size = page.entries.iter().map(|e| e.json.len() + 1).sum();
    (head.into_bytes(), Items::Json { resource: Arc::clone(&call.resource), view, entries: page.entries }, size)
}

/// A message says its length first, so all items are at hand before anything is sent.
fn protobuf_parts(call: &Call, view: View, page: Page) -> Result<Parts, Status> {
    let (api_version, kind) = list_type(call, view);
    let metadata = protobuf::metadata(Value::Object(page.metadata()), "ListMeta")?;
    let message = |entry: &Arc<Entry>| match view {
        View::Metadata { .. } => objects::partial_message(entry),
        _ => objects::message(&call.resource, entry),
    };
    let items = page.entries.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let size = wire::size(1, metadata.len()) + items.iter().map(|item| wire::size(2, item.len())).sum::<usize>();
    let mut head = wire::envelope_start(&api_version, kind, size);
    wire::head(&mut head, 1, metadata.len());
    head.extend_from_slice(&metadata);
    Ok((head, Items::Protobuf(items), size))
}

/// The items of a list.
enum Items {
    Json { resource: Arc<Resource>, view: View, entries: Vec<Arc<Entry>> },
    Protobuf(Vec<Bytes>),
}

impl Items {
    fn count(&self) -> usize {
        match self {
            Self::Json { entries, .. } => entries.len(),
            Self::Protobuf(items) => items.len(),
        }
    }

    /// Appends item `index` with what separates it from others.
    fn write(&self, index: usize, out: &mut Vec<u8>) -> Result<(), Status> {
        match self {
            Self::Json { resource, view, entries } => {
                if index > 0 {
                    out.push(b',');
                }
                match view {
                    View::Metadata { beta, .. } => {
                        out.extend_from_slice(objects::partial(&entries[index], *beta)?.as_bytes());
                    }
                    _ => out.extend_from_slice(&objects::bytes(resource, &entries[index])?),
                }
            }
            Self::Protobuf(items) => {
                wire::head(out, 2, items[index].len());
                out.extend_from_slice(&items[index]);
            }
        }
        Ok(())
    }

    /// What comes after the items.
    fn end(&self) -> &'static [u8] {
        match self {
            Self::Json { .. } => b"]}",
            Self::Protobuf(_) => wire::ENVELOPE_END,
        }
    }
}

/// Writes a list piece by piece.
struct ListWriter {
    items: Items,
    next: usize,
    /// What comes before the items; none once it was written.
    head: Option<Vec<u8>>,
}

impl ListWriter {
    /// Appends up to about [`CHUNK`] bytes; false once all was written.
    fn fill(&mut self, out: &mut Vec<u8>) -> Result<bool, Status> {
        if self.next > self.items.count() {
            return Ok(false);
        }
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        while self.next < self.items.count() {
            self.items.write(self.next, out)?;
            self.next += 1;
            if out.len() >= CHUNK {
                return Ok(true);
            }
        }
        out.extend_from_slice(self.items.end());
        self.next += 1;
        Ok(true)
    }
}
