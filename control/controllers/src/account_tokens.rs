//! Tokens in Secrets, for those who ask for one: a Secret of type `kubernetes.io/service-account-token` that names an account by
//! annotation is given that account's token, the cluster's root certificate and its namespace (upstream's tokens controller).
//! It goes with its account.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Filter, Informer, ObjectKey, Outcome, Queue, Reconciler};

use crate::{
    Authority,
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "service-account-tokens";
const WORKERS: usize = 2;
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const INDEX: &str = "account";

struct Controller {
    context: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    root_ca_pem: String,
    authority: Arc<dyn Authority>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(
    context: Context,
    root_ca_pem: String,
    authority: Arc<dyn Authority>,
    cancel: CancellationToken,
) {
    let controller = Arc::new(Controller {
        secrets: context.informers.get_filtered(Filter::fields(format!("type={TYPE}"))),
        accounts: context.informers.get(),
        root_ca_pem,
        authority,
        context,
    });
    controller.secrets.index(INDEX, |secret: &Secret| account_of(secret).map(|key| vec![key]).unwrap_or_default());
    let synced = async { controller.secrets.synced().await && controller.accounts.synced().await };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let secrets = feed(controller.secrets.subscribe(), &cancel, |change| {
        if let Some(secret) = &change.new {
            queue.add(key_of(secret));
        }
    });
    let accounts = feed(controller.accounts.subscribe(), &cancel, |change| {
        let Some(account) = change.object() else { return };
        let meta = &account.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let index = format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default());
        for secret in controller.secrets.by_index(INDEX, &index) {
            queue.add(key_of(&secret));
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(secrets, accounts, work);
}

fn key_of(secret: &Secret) -> ObjectKey {
    let meta = &secret.metadata;
    ObjectKey::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// `NAMESPACE/NAME` of the account that the Secret names.
fn account_of(secret: &Secret) -> Option<String> {
    Some(format!("{}/{}", secret.metadata.namespace.as_deref()?, annotation(secret, ACCOUNT)?))
}

impl Controller {
    /// What the Secret lacks; `None` where it has all.
    fn missing(&self, secret: &Secret, account: &ServiceAccount) -> Result<Option<BTreeMap<&str, ByteString>>, Error> {
        let key = key_of(secret);
        let has = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).filter(|value| !value.0.is_empty());
        let mut data = BTreeMap::new();
        if has("ca.crt").is_none_or(|ca| ca.0 != self.root_ca_pem.as_bytes()) {
            data.insert("ca.crt", ByteString(self.root_ca_pem.clone().into_bytes()));
        }
        if has("namespace").is_none() {
            data.insert("namespace", ByteString(key.namespace.clone().into_bytes()));
        }
        if has("token").is_none() {
            let (name, uid) = (account.metadata.name.as_deref(), account.metadata.uid.as_deref());
            let (name, uid) = (name.unwrap_or_default(), uid.unwrap_or_default());
            let token = self.authority.token(&key.namespace, name, uid, &key.name).map_err(Error::Partial)?;
            data.insert("token", ByteString(token.into_bytes()));
        }
        let named = annotation(secret, ACCOUNT_UID).is_some();
        Ok((!data.is_empty() || !named).then_some(data))
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(secret) = self.secrets.get_key(&key) else { return Ok(Outcome::Done) };
        let Some(name) = annotation(&secret, ACCOUNT) else { return Ok(Outcome::Done) };
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let account = match self.accounts.get(&key.namespace, name) {
            Some(account) => Some(account),
            // The cache may be behind: a Secret is not removed for an account that it has yet to hear of.
            None => {
                let accounts: Api<ServiceAccount> = Api::namespaced(self.context.client.clone(), &key.namespace);
                accounts.get_opt(name).await?.map(Arc::new)
            }
        };
        let uid = annotation(&secret, ACCOUNT_UID);
        let account = account.filter(|account| uid.is_none() || uid == account.metadata.uid.as_deref());
        let Some(account) = account else {
            let uid = secret.metadata.uid.clone();
            let only_it = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
            error::gone_is_fine(api.delete(&key.name, &only_it).await)?;
            return Ok(Outcome::Done);
        };
        if let Some(data) = self.missing(&secret, &account)? {
            let patch = json!({
                "metadata": {
                    "resourceVersion": secret.metadata.resource_version,
                    "annotations": {ACCOUNT_UID: account.metadata.uid},
                },
                "data": data,
            });
            error::gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        }
        Ok(Outcome::Done)
    }
}
