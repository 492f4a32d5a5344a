//! GET of one object: the store's bytes, as they are.

use axum::response::Response;
use http::StatusCode;
use wherry_api::status::Status;

use super::list::{parse_revision, wait};
use crate::engine::Call;
use crate::objects;

pub(crate) async fn run(call: &Call) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    // A read at resourceVersion=N of one object is answered at the newest state, which is never older than N
    // unless N is from the future.
    if let Some(asked) = call.query().get("resourceVersion").map(parse_revision).transpose()? {
        wait(call, asked).await?;
    }
    let entry = call.engine.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    objects::entry_response(call, accepted, StatusCode::OK, &entry)
}
