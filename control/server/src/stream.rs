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
use wherry_api::resource::Resource;
use wherry_api::status::Status;
use wherry_store::Entry;

use crate::engine::Call;
use crate::negotiate::View;
use crate::verbs::list::{Page, list_type};
use crate::{objects, respond};

/// How much is handed to the connection at a time.
const CHUNK: usize = 64 << 10;

/// Answers with the page as a JSON list.
pub(crate) fn list(call: &Call, view: View, page: Page) -> Result<Response, Status> {
    let (api_version, kind) = list_type(call, view);
    let metadata = Value::Object(page.metadata());
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[");
    let size: usize = page.entries.iter().map(|e| e.json.len() + 1).sum();
    let compress = size >= respond::COMPRESS_FROM && respond::accepts_gzip(&call.headers);
    let mut writer =
        ListWriter { resource: Arc::clone(&call.resource), view, entries: page.entries, next: 0, head: Some(head) };
    let content_type = HeaderValue::from_static("application/json");
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

/// Writes a list piece by piece.
struct ListWriter {
    resource: Arc<Resource>,
    view: View,
    entries: Vec<Arc<Entry>>,
    next: usize,
    /// What comes before the items; none once it and the end were written.
    head: Option<String>,
}

impl ListWriter {
    /// Appends up to about [`CHUNK`] bytes; false once all was written.
    fn fill(&mut self, out: &mut Vec<u8>) -> Result<bool, Status> {
        if self.next > self.entries.len() {
            return Ok(false);
        }
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        while let Some(entry) = self.entries.get(self.next) {
            if self.next > 0 {
                out.push(b',');
            }
            match self.view {
                View::Metadata => out.extend_from_slice(objects::partial(entry)?.as_bytes()),
                _ => out.extend_from_slice(&objects::bytes(&self.resource, entry)?),
            }
            self.next += 1;
            if out.len() >= CHUNK {
                return Ok(true);
            }
        }
        out.extend_from_slice(b"]}");
        self.next += 1;
        Ok(true)
    }
}
