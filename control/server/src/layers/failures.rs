//! Failures in the format that the client asked for.
//!
//! A failure may arise in any layer, most of which do not know what the client accepts; so all of them speak JSON, and
//! here, outside of them, the few that are wanted otherwise are written anew. A client that accepts nothing that can be
//! made gets JSON: what went wrong is worth more than how it is written.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};

use crate::negotiate::{Format, Offers, accept};
use crate::respond::{self, Told};

/// Writes a failure anew if the client wants it in another format than JSON.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let format = wanted(request.headers());
    let response = next.run(request).await;
    match (format, response.extensions().get::<Told>().cloned()) {
        (Format::Json, _) | (_, None) => response,
        (format, Some(Told(document))) => {
            let Ok(written) = respond::value(response.status(), &document, format, &HeaderMap::new()) else {
                return response;
            };
            let (mut parts, _) = response.into_parts();
            parts.headers.remove(CONTENT_LENGTH);
            if let Some(content_type) = written.headers().get(CONTENT_TYPE) {
                parts.headers.insert(CONTENT_TYPE, content_type.clone());
            }
            Response::from_parts(parts, written.into_body())
        }
    }
}

fn wanted(headers: &HeaderMap) -> Format {
    if !headers.contains_key(ACCEPT) {
        return Format::Json;
    }
    accept(headers, Offers::Documents).map_or(Format::Json, |accepted| accepted.format)
}
