//! Service account tokens for a Pod's projected volumes: asked of the API server as the node, and anew in time.
//!
//! A token is bound to its Pod. It is replaced when 80% of its life is over, or after a day (as kubelet's token manager does);
//! until then it is kept, so that a volume written for another reason does not cost a request. After a restart of the agent
//! all are asked for again: tokens are kept in memory and in the volumes alone.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use rand::Rng as _;
use wherry_reconcile::Backoff;
use wherry_runtime::PodRef;

use super::shared::Shared;
use crate::config::projection::TokenAsk;
use crate::lifecycle::add;

/// A token is never older than this when it is used.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// How often a token is asked for in a row, within two seconds.
const TRIES: u32 = 6;
/// Pods that began together do not all ask in the same moment.
const JITTER: f64 = 10.0;

/// The tokens of one Pod.
#[derive(Clone, Default)]
pub(crate) struct Tokens(HashMap<TokenAsk, Issued>);

#[derive(Clone)]
struct Issued {
    token: Bytes,
    /// When it is to be replaced.
    until: Timestamp,
}

impl Tokens {
    pub(crate) fn get(&self, ask: &TokenAsk) -> Option<&Bytes> {
        self.0.get(ask).map(|issued| &issued.token)
    }

    /// When the first is to be replaced.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.0.values().map(|issued| issued.until).min()
    }
}

/// The tokens that the Pod's volumes need: those of `known` that are not due, and new ones.
pub(super) async fn fetch(shared: &Shared, pod: &Pod, reference: &PodRef, known: &Tokens) -> Result<Tokens, String> {
    let now = shared.clock.now();
    let mut tokens = Tokens::default();
    for ask in asks(pod) {
        if tokens.0.contains_key(&ask) {
            continue;
        }
        let issued = match known.0.get(&ask).filter(|issued| now < issued.until) {
            Some(issued) => issued.clone(),
            None => issue(shared, pod, reference, &ask, now).await?,
        };
        tokens.0.insert(ask, issued);
    }
    Ok(tokens)
}

fn asks(pod: &Pod) -> impl Iterator<Item = TokenAsk> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    sources.filter_map(|source| source.service_account_token.as_ref()).map(TokenAsk::of)
}

async fn issue(
    shared: &Shared,
    pod: &Pod,
    reference: &PodRef,
    ask: &TokenAsk,
    now: Timestamp,
) -> Result<Issued, String> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(reference.name.clone()),
        uid: Some(reference.uid.clone()),
    };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(ask.audience.iter().cloned().collect()),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(ask.seconds),
        }),
        ..TokenRequest::default()
    };
    let failed = |why: String| format!("failed to fetch token: {why}");
    let _permit = shared.limits.writes.acquire().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(shared.client.clone(), &reference.namespace);
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    let answer = loop {
        match accounts.create_token_request(account, &PostParams::default(), &request).await {
            Ok(answer) => break answer,
            Err(error) if backoff.failures() < TRIES && may_pass(&error) => {
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    let seconds = answer.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(ask.seconds);
    let token = answer.status.and_then(|status| status.token).ok_or_else(|| failed("no token came".to_owned()))?;
    let jitter = rand::rng().random_range(0.0..JITTER);
    Ok(Issued { token: token.into(), until: add(now, kept(seconds, jitter)) })
}

/// Whether another try soon may succeed. Refused may be a node whose authorizer has yet to hear that the Pod is its own.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 403 | 429 | 500..),
        _ => true,
    }
}

/// How long a token that is good for so many seconds is used.
fn kept(seconds: i64, jitter: f64) -> Duration {
    let life = Duration::from_secs(seconds.max(0).unsigned_abs());
    (life / 5 * 4).saturating_sub(Duration::from_secs_f64(jitter)).min(OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_for_most_of_its_life_and_at_most_a_day() {
        for (seconds, jitter, expected) in [(600, 0.0, 480), (3600, 10.0, 2870), (1 << 32, 0.0, 86_400), (0, 5.0, 0)] {
            assert_eq!(kept(seconds, jitter), Duration::from_secs(expected), "{seconds}");
        }
    }
}
