//! POST pods/eviction: a delete that asks first. Disruption budgets come with their controller; until then an
//! eviction is a delete with its options.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::status::Status;

use crate::admission::{Attributes, Notes, Operation};
use crate::engine::{Call, read_body};
use crate::verbs::delete::{self, Options};
use crate::{input, objects};

pub(super) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let schema = call.resource.subresource("eviction").and_then(|s| s.schema.clone());
    let mut eviction: Value = input::document(call, &read_body(body).await?, schema)?;
    if !matches!(meta::kind(&eviction), "" | "Eviction") {
        return Err(Status::bad_request(format!("expected Eviction, got {:?}", meta::kind(&eviction))));
    }
    if !matches!(meta::name(&eviction), "") && meta::name(&eviction) != call.name() {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options::from_value(&eviction["deleteOptions"])?;
    options.dry_run |= call.query().dry_run()?;
    let notes = Notes::default();
    let attributes = Attributes {
        engine: &call.engine,
        user: &call.user,
        operation: Operation::Create,
        resource: &call.resource,
        subresource: "eviction",
        namespace: call.namespace(),
        name: call.name(),
        old: None,
        dry_run: options.dry_run,
        notes: &notes,
    };
    call.engine.admission.admit(&attributes, &mut eviction).await?;
    call.engine.admission.validate(&attributes, &eviction).await?;
    delete::delete(call, call.name(), &options).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    objects::status_response(accepted, StatusCode::CREATED, &status, &call.headers)
}
