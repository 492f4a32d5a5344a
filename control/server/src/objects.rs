//! Stored objects and what is shown of them: conversion between versions, attributes, writes.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use wherry_api::encode::Encoded;
use wherry_api::meta;
use wherry_api::resource::Resource;
use wherry_api::status::Status;
use wherry_store::{Entry, Key, Op, Precondition, Range, StoreError, Write};

use crate::allocate::services::Reservation;
use crate::engine::{Call, Engine, converts};
use crate::negotiate::{Accepted, Format, Offers, View, accept};
use crate::{respond, tables};

/// An entry as a tree, in the version that `resource` serves.
pub(crate) fn tree(resource: &Resource, entry: &Entry) -> Result<Value, Status> {
    let mut object = stored_tree(entry)?;
    resource.from_storage(&mut object);
    Ok(object)
}

/// An entry as a tree, as it is stored.
pub(crate) fn stored_tree(entry: &Entry) -> Result<Value, Status> {
    serde_json::from_slice(&entry.json).map_err(|e| Status::internal(format!("stored object {}: {e}", entry.key)))
}

/// An entry's bytes in the version that `resource` serves: the store's own where that is the stored version.
pub(crate) fn bytes(resource: &Resource, entry: &Entry) -> Result<Bytes, Status> {
    if !converts(resource) {
        return Ok(entry.json.clone());
    }
    serde_json::to_vec(&tree(resource, entry)?).map(Bytes::from).map_err(Status::internal)
}

/// The `metadata` of a stored object without reading the rest.
pub(crate) fn raw_metadata(entry: &Entry) -> Result<&RawValue, Status> {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    serde_json::from_slice::<Head<'_>>(&entry.json)
        .map(|head| head.metadata)
        .map_err(|e| Status::internal(format!("stored object {}: {e}", entry.key)))
}

/// A stored object as `PartialObjectMetadata`.
pub(crate) fn partial(entry: &Entry) -> Result<String, Status> {
    let metadata = raw_metadata(entry)?.get();
    Ok(format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}"))
}

/// Whether somebody asked for a representation that exists; to be known before anything is written.
pub(crate) fn negotiate(call: &Call) -> Result<Accepted, Status> {
    accept(&call.headers, Offers { transformable: true, watch: false })
}

/// An object as the answer.
pub(crate) fn entry_response(
    call: &Call,
    accepted: Accepted,
    code: StatusCode,
    entry: &Arc<Entry>,
) -> Result<Response, Status> {
    match (accepted.view, accepted.format) {
        (View::Whole, Format::Json) => {
            Ok(respond::written(code, bytes(&call.resource, entry)?, Format::Json, &call.headers))
        }
        (View::Metadata, Format::Json) => {
            Ok(respond::written(code, partial(entry)?.into(), Format::Json, &call.headers))
        }
        _ => tree_response(call, accepted, code, tree(&call.resource, entry)?),
    }
}

/// A tree (in the served version) as the answer.
pub(crate) fn tree_response(
    call: &Call,
    accepted: Accepted,
    code: StatusCode,
    object: Value,
) -> Result<Response, Status> {
    let shown = match accepted.view {
        View::Whole => object,
        View::Metadata => serde_json::json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        }),
        View::Table { beta } => tables::of_object(call, &object, beta)?,
    };
    respond::value(code, &shown, accepted.format, &call.headers)
}

/// A Status object (of success) as the answer.
pub(crate) fn status_response(
    accepted: Accepted,
    code: StatusCode,
    status: &Value,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    respond::value(code, status, accepted.format, headers)
}

/// What a write came to.
pub(crate) enum Written {
    Done(Arc<Entry>),
    /// Somebody else was faster: read again.
    Conflict,
    Exists,
    NotFound,
}

impl Engine {
    /// Stores `object`, which is in the version of `resource`: that of storage.
    pub(crate) async fn put(
        self: &Arc<Self>,
        resource: &Resource,
        key: Key,
        precondition: Precondition,
        object: &Value,
        reservation: Option<Reservation>,
    ) -> Result<Written, Status> {
        let op = Op::Put {
            object: Encoded::new(object)?,
            attributes: resource.attributes(object),
            uid: Arc::from(meta::uid(object)),
        };
        self.write(Write { key, precondition, op, durable: resource.durable }, reservation).await
    }

    /// Removes the object; `last` is what watchers see of it.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        resource: &Resource,
        entry: &Entry,
        last: &Value,
        reservation: Option<Reservation>,
    ) -> Result<Written, Status> {
        let op = Op::Delete { object: Encoded::new(last)? };
        let precondition = Precondition::Revision(entry.revision);
        self.write(Write { key: entry.key.clone(), precondition, op, durable: resource.durable }, reservation).await
    }

    async fn write(self: &Arc<Self>, write: Write, reservation: Option<Reservation>) -> Result<Written, Status> {
        let Some(reservation) = reservation else {
            return outcome(self.store.write(write).await);
        };
        // A write may happen although its client has gone and this future with it; the numbers must follow the
        // write's outcome, so both are seen through in a task of their own.
        let store = Arc::clone(&self.store);
        let task = self.tasks.spawn(async move {
            let result = store.write(write).await;
            match &result {
                Ok(_) => reservation.commit(),
                Err(StoreError::Conflict { .. } | StoreError::Exists { .. } | StoreError::NotFound) => {
                    drop(reservation)
                }
                Err(_) => reservation.keep(),
            }
            result
        });
        outcome(task.await.map_err(Status::internal)?)
    }

    /// One object, read from memory.
    pub(crate) fn lookup(&self, storage: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.store.get(&Key::new(storage, namespace, name))
    }

    /// All objects of a resource in one namespace, newest state.
    pub(crate) fn of_namespace(&self, storage: &str, namespace: &str) -> Result<Vec<Arc<Entry>>, Status> {
        let list = self.store.list(&Range::all(storage).namespace(namespace), wherry_store::At::Latest);
        list.map(|list| list.entries).map_err(|e| store_status(&e))
    }

    /// All objects of a resource, newest state.
    pub(crate) fn everything(&self, storage: &str) -> Result<Vec<Arc<Entry>>, Status> {
        let list = self.store.list(&Range::all(storage), wherry_store::At::Latest);
        list.map(|list| list.entries).map_err(|e| store_status(&e))
    }
}

fn outcome(result: Result<Arc<Entry>, StoreError>) -> Result<Written, Status> {
    match result {
        Ok(entry) => Ok(Written::Done(entry)),
        Err(StoreError::Conflict { .. }) => Ok(Written::Conflict),
        Err(StoreError::Exists { .. }) => Ok(Written::Exists),
        Err(StoreError::NotFound) => Ok(Written::NotFound),
        Err(error) => Err(store_status(&error)),
    }
}

/// A store's failure as clients see it.
pub(crate) fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::ReadOnly(_) | StoreError::Closed => Status::server_unavailable(error.to_string()),
        StoreError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        other => Status::internal(other),
    }
}
