//! GET of one object: the store's bytes, as they are.

use axum::response::Response;
use http::StatusCode;
use wherry_api::status::Status;

use crate::engine::Call;
use crate::objects;

pub(crate) fn run(call: &Call) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let entry = call.engine.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    // A read at resourceVersion=N of one object is answered at the newest state, which is never older than N
    // unless N is from the future.
    if let Some(asked) = call.query().get("resourceVersion").and_then(|v| v.parse::<u64>().ok())
        && asked > call.engine.store.revision()
    {
        return Err(Status::resource_version_too_large(asked, call.engine.store.revision()));
    }
    objects::entry_response(call, accepted, StatusCode::OK, &entry)
}
