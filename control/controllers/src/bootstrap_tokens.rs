//! Removes bootstrap tokens whose time is over (upstream's tokencleaner). Their end is a deadline in the queue.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Filter, Informer, ObjectKey, Outcome, Queue, Reconciler};

use crate::{
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "bootstrap-tokens";
const WORKERS: usize = 1;
const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

struct Controller {
    context: Context,
    secrets: Informer<Secret>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let filter = Filter::fields(format!("type={TYPE},metadata.namespace={NAMESPACE}"));
    let controller = Arc::new(Controller { secrets: context.informers.get_filtered(filter), context });
    if cancel.run_until_cancelled(controller.secrets.synced()).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let secrets = feed(controller.secrets.subscribe(), &cancel, |change| {
        if let Some(name) = change.new.as_ref().and_then(|secret| secret.metadata.name.clone()) {
            queue.add(ObjectKey::new(NAMESPACE, name));
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(secrets, work);
}

/// How long the token is still good; none where it has no end. An end that cannot be read has come.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let end = &secret.data.as_ref()?.get("expiration")?.0;
    if end.is_empty() {
        return None;
    }
    let end = std::str::from_utf8(end).ok().and_then(|end| end.parse::<Timestamp>().ok());
    Some(end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()).unwrap_or_default())
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(secret) = self.secrets.get_key(&key) else { return Ok(Outcome::Done) };
        match left(&secret, Timestamp::now()) {
            None => Ok(Outcome::Done),
            Some(left) if !left.is_zero() => Ok(Outcome::After(left)),
            Some(_) => {
                let api: Api<Secret> = Api::namespaced(self.context.client.clone(), NAMESPACE);
                let uid = secret.metadata.uid.clone();
                let only_it = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
                error::gone_is_fine(api.delete(&key.name, &only_it).await)?;
                Ok(Outcome::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn an_end_that_cannot_be_read_has_come() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (end, expected) in [
            (None, None),
            (Some(""), None),
            (Some("2026-01-01T00:01:00Z"), Some(60)),
            (Some("2025-12-31T00:00:00Z"), Some(0)),
            (Some("soon"), Some(0)),
        ] {
            let data = end.map(|end| [("expiration".to_owned(), ByteString(end.as_bytes().to_vec()))].into());
            let secret = Secret { data, ..Secret::default() };
            assert_eq!(left(&secret, now), expected.map(Duration::from_secs), "{end:?}");
        }
    }
}
