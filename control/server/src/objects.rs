//! Stored objects and what is shown of them: conversion between versions, attributes, writes.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use wherry_api::encode::{Encoded, protobuf, wire};
use wherry_api::meta;
use wherry_api::resource::Resource;
use wherry_api::status::{Reason, Status};
use wherry_store::{Entry, Key, Op, Precondition, Range, StoreError, Write};

use crate::allocate::services::Reservation;
use crate::engine::{Call, Engine, converts};
use crate::negotiate::{Accepted, Format, Offers, View, accept};
use crate::quota::Charge;
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

/// An entry's message in protobuf, in the version that `resource` serves. It is kept with the entry where that is the
/// stored version: objects are listed far more often than written.
pub(crate) fn message(resource: &Resource, entry: &Entry) -> Result<Bytes, Status> {
    if converts(resource) {
        return protobuf::from_tree(&tree(resource, entry)?, &resource.schema).map(Bytes::from);
    }
    if let Some(message) = entry.message.get() {
        return Ok(message.clone());
    }
    let message = Bytes::from(protobuf::from_json(&entry.json, &resource.schema)?.into_boxed_slice());
    Ok(entry.message.get_or_init(|| message).clone())
}

/// The apiVersion of what metadata is shown as.
pub(crate) fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

/// A stored object as `PartialObjectMetadata`.
pub(crate) fn partial(entry: &Entry, beta: bool) -> Result<String, Status> {
    let metadata = raw_metadata(entry)?.get();
    let version = meta_version(beta);
    Ok(format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{version}\",\"metadata\":{metadata}}}"))
}

/// An object's tree as `PartialObjectMetadata`.
pub(crate) fn partial_tree(object: &Value, beta: bool) -> Value {
    serde_json::json!({
        "kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": object["metadata"],
    })
}

/// The message of a stored object's `PartialObjectMetadata`.
pub(crate) fn partial_message(entry: &Entry) -> Result<Bytes, Status> {
    let mut parser = serde_json::Deserializer::from_str(raw_metadata(entry)?.get());
    let metadata = protobuf::metadata(&mut parser, "ObjectMeta")?;
    let mut message = Vec::with_capacity(metadata.len() + 4);
    wire::head(&mut message, 1, metadata.len());
    message.extend_from_slice(&metadata);
    Ok(message.into())
}

/// Whether somebody asked for a representation that exists; to be known before anything is written.
pub(crate) fn negotiate(call: &Call) -> Result<Accepted, Status> {
    accept(&call.headers, Offers::Objects)
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
        (View::Whole, Format::Protobuf) => {
            let (api_version, kind) = (call.info.group_version(), &call.resource.kind);
            let body = wire::envelope(&api_version, kind, &message(&call.resource, entry)?);
            Ok(respond::written(code, body.into(), Format::Protobuf, &call.headers))
        }
        (View::Metadata { beta, list: false }, Format::Json) => {
            Ok(respond::written(code, partial(entry, beta)?.into(), Format::Json, &call.headers))
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
        View::Metadata { beta, list: false } => partial_tree(&object, beta),
        View::Metadata { list: true, .. } => return Err(not_a_list(call)),
        View::Table { beta } => tables::of_object(call, &object, beta)?,
    };
    respond::value(code, &shown, accepted.format, &call.headers)
}

/// 406: metadata of a list was asked for where there is one object.
fn not_a_list(call: &Call) -> Status {
    let kind = go_type(call, &call.resource.kind);
    not_of_this_number(format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list ({kind})"
    ))
}

/// 406: metadata of one object was asked for where there is a list.
pub(crate) fn is_a_list(call: &Call) -> Status {
    let kind = go_type(call, &call.resource.list_kind);
    not_of_this_number(format!("you requested PartialObjectMetadata, but the requested object is a list ({kind})"))
}

fn not_of_this_number(message: String) -> Status {
    Status::new(406, Reason::NotAcceptable, message)
}

/// A kind's internal type, as upstream names it.
fn go_type(call: &Call, kind: &str) -> String {
    let package = call.resource.group.split('.').next().filter(|p| !p.is_empty()).unwrap_or("core");
    format!("*{package}.{kind}")
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

/// What is kept until the outcome of a write is known.
#[derive(Default)]
pub(crate) struct Held {
    reservation: Option<Reservation>,
    charges: Vec<Charge>,
}

impl Held {
    pub(crate) fn new(reservation: Option<Reservation>, charges: Vec<Charge>) -> Self {
        Self { reservation, charges }
    }
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
        held: Held,
    ) -> Result<Written, Status> {
        let op = Op::Put {
            object: Encoded::new(object)?,
            attributes: resource.attributes(object),
            uid: Arc::from(meta::uid(object)),
        };
        self.write(Write { key, precondition, op, durable: resource.durable }, held).await
    }

    /// Replaces an object of the stored resource `storage` as of `entry`, without waiting until that would survive a power cut.
    pub(crate) async fn put_without_sync(
        self: &Arc<Self>,
        storage: &str,
        entry: &Entry,
        object: &Value,
    ) -> Result<Written, Status> {
        let row = self.registry.stored(storage).ok_or_else(|| Status::internal(format!("no resource {storage}")))?;
        let op =
            Op::Put { object: Encoded::new(object)?, attributes: row.attributes(object), uid: Arc::clone(&entry.uid) };
        let precondition = Precondition::Revision(entry.revision);
        self.write(Write { key: entry.key.clone(), precondition, op, durable: false }, Held::default()).await
    }

    /// Removes the object; `last` is what watchers see of it.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        resource: &Resource,
        entry: &Entry,
        last: &Value,
        held: Held,
    ) -> Result<Written, Status> {
        let op = Op::Delete { object: Encoded::new(last)? };
        let precondition = Precondition::Revision(entry.revision);
        self.write(Write { key: entry.key.clone(), precondition, op, durable: resource.durable }, held).await
    }

    async fn write(self: &Arc<Self>, write: Write, held: Held) -> Result<Written, Status> {
        let Held { reservation, charges } = held;
        if reservation.is_none() && charges.is_empty() {
            return outcome(self.store.write(write).await);
        }
        // A write may happen although its client has gone and this future with it; what is held must follow the
        // write's outcome, so both are seen through in a task of their own.
        let store = Arc::clone(&self.store);
        let task = self.tasks.spawn(async move {
            let result = store.write(write).await;
            match (reservation, &result) {
                (None, _) => {}
                (Some(reservation), Ok(_)) => reservation.commit(),
                (
                    Some(reservation),
                    Err(StoreError::Conflict { .. } | StoreError::Exists { .. } | StoreError::NotFound),
                ) => drop(reservation),
                (Some(reservation), Err(_)) => reservation.keep(),
            }
            drop(charges);
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
