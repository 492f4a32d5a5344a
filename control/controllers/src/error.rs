//! What can go wrong in a reconciliation.

use kube::core::Status;
use thiserror::Error;

/// Every variant is retried with backoff by the queue.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The API refused or could not be reached.
    #[error("{}", message(.0))]
    Api(#[from] kube::Error),
    /// The name that the template hashes to is taken by something else.
    #[error("replica set {0:?} exists and is not ours")]
    HashCollision(String),
    /// The object is being replaced under our hands.
    #[error("{0} was deleted and created again")]
    Replaced(String),
    /// Some of several independent steps failed.
    #[error("{0}")]
    Partial(String),
}

/// What the server said, or the error itself: the text that events and conditions show.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The Status that the server answered with, if it was that.
pub(crate) fn status(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.code == 404)
}

pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
}

pub(crate) fn already_exists(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.reason == "AlreadyExists")
}

/// The namespace is being deleted: creating something in it is pointless, and nobody's fault.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| {
        status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating")
    })
}

/// A write whose aim is reached when the object is gone.
pub(crate) fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
