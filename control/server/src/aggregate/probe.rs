//! Asking an extension API server whether it is there and what it serves.

use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rand::seq::SliceRandom as _;
use serde_json::Value;
use wherry_api::discovery;

use super::proxy;
use super::registration::Registration;
use super::told::Word;
use crate::backends::Place;
use crate::engine::Engine;

/// How long a place may take.
const TIME: Duration = Duration::from_secs(5);
/// How many places are tried.
const PLACES: usize = 5;
/// The longest document that is read.
const LIMIT: usize = 8 << 20;

/// What the server tells at the first place that answers; else why the last one did not.
pub(super) async fn ask(engine: &Engine, registration: &Registration) -> Result<Word, String> {
    let mut places = proxy::places(engine, registration)?;
    places.shuffle(&mut rand::rng());
    let mut last = format!("no endpoints available for service {:?}", registration.service);
    for place in places.iter().take(PLACES) {
        let address = format!("https://{}:{}{}", registration.host(), registration.port, registration.path());
        match tokio::time::timeout(TIME, one(engine, registration, place)).await {
            Ok(Ok(word)) => return Ok(word),
            Ok(Err(why)) => last = format!("failing or missing response from {address}: {why}"),
            Err(_) => last = format!("timed out waiting for {address}"),
        }
    }
    Err(last)
}

async fn one(engine: &Engine, registration: &Registration, place: &Place) -> Result<Word, String> {
    let stream = proxy::connect(engine, registration, place).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let asked = async {
        let path = registration.path();
        let (status, list) = get(&mut sender, &path, registration).await?;
        if !status.is_success() {
            return Err(format!("bad status from {path}: {}", status.as_u16()));
        }
        let resources = discovery::aggregated_resources(&list).unwrap_or_default();
        // A server without one is no worse for it.
        let index = get(&mut sender, "/openapi/v3", registration).await;
        let index = index.ok().filter(|(status, _)| *status == StatusCode::OK).map(|(_, index)| index);
        let index = index.unwrap_or_default();
        let document = &index["paths"][registration.path().trim_start_matches('/')];
        Ok(Word { resources, document: document["serverRelativeURL"].as_str().map(str::to_owned) })
    };
    // When the connection ends, the question that is under way fails by itself.
    let ended = async {
        let _ended = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        told = asked => told,
        () = ended => Err("connection closed".to_owned()),
    }
}

/// A document; null if it is not JSON.
async fn get(
    sender: &mut SendRequest<Body>,
    path: &str,
    registration: &Registration,
) -> Result<(StatusCode, Value), String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let answer = sender.send_request(proxy::question(path, registration)?).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LIMIT).collect().await.map_err(|error| error.to_string())?;
    Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
}
