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

/// What becomes of a Secret.
#[derive(Debug, PartialEq)]
enum Step {
    /// It is as it should be, or nobody's token.
    Leave,
    /// Its account is no more.
    Delete,
    /// It is given this, its account's UID and, if it has none, a token.
    Fill { data: BTreeMap<&'static str, ByteString>, token: bool },
}

/// The next step for a Secret, given the account of the name that it says. Pure.
fn next(secret: &Secret, account: Option<&ServiceAccount>, root_ca_pem: &str) -> Step {
    if annotation(secret, ACCOUNT).is_none() {
        return Step::Leave;
    }
    let uid = annotation(secret, ACCOUNT_UID);
    if account.is_none_or(|account| uid.is_some() && uid != account.metadata.uid.as_deref()) {
        return Step::Delete;
    }
    let has = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).filter(|value| !value.0.is_empty());
    let mut data = BTreeMap::new();
    if has("ca.crt").is_none_or(|ca| ca.0 != root_ca_pem.as_bytes()) {
        data.insert("ca.crt", ByteString(root_ca_pem.as_bytes().to_vec()));
    }
    if has("namespace").is_none() {
        data.insert("namespace", ByteString(key_of(secret).namespace.into_bytes()));
    }
    let token = has("token").is_none();
    if data.is_empty() && !token && uid.is_some() { Step::Leave } else { Step::Fill { data, token } }
}

impl Controller {
    /// The account's token for this Secret.
    fn token(&self, key: &ObjectKey, account: &ServiceAccount) -> Result<ByteString, Error> {
        let (name, uid) = (account.metadata.name.as_deref(), account.metadata.uid.as_deref());
        let (name, uid) = (name.unwrap_or_default(), uid.unwrap_or_default());
        let token = self.authority.token(&key.namespace, name, uid, &key.name).map_err(Error::Partial)?;
        Ok(ByteString(token.into_bytes()))
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
        match (next(&secret, account.as_deref(), &self.root_ca_pem), account) {
            (Step::Delete, _) => {
                let uid = secret.metadata.uid.clone();
                let only_it = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
                error::gone_is_fine(api.delete(&key.name, &only_it).await)?;
            }
            (Step::Fill { mut data, token }, Some(account)) => {
                if token {
                    data.insert("token", self.token(&key, &account)?);
                }
                let patch = json!({
                    "metadata": {
                        "resourceVersion": secret.metadata.resource_version,
                        "annotations": {ACCOUNT_UID: account.metadata.uid},
                    },
                    "data": data,
                });
                error::gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CA: &str = "the root";

    proptest! {
        #[test]
        fn a_secret_goes_with_its_account_alone_and_keeps_its_token(
            named in any::<bool>(), uid in prop::option::of(0usize..2), account in prop::option::of(0usize..2),
            has in prop::collection::btree_map(0usize..4, prop::sample::select(vec!["", CA, "else"]), 0..5),
        ) {
            let names = ["ca.crt", "namespace", "token", "extra"];
            let mut secret = Secret::default();
            secret.metadata.namespace = Some("default".into());
            let said = [(ACCOUNT, named.then(|| "a".to_owned())), (ACCOUNT_UID, uid.map(|n| format!("u{n}")))];
            let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            secret.metadata.annotations = Some(said.collect());
            let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
            secret.data = Some(has.iter().map(|(n, value)| (names[*n].to_owned(), bytes(value))).collect());
            let account = account.map(|n| {
                let mut account = ServiceAccount::default();
                account.metadata.uid = Some(format!("u{n}"));
                account
            });
            let before = secret.data.clone().unwrap();
            match next(&secret, account.as_ref(), CA) {
                Step::Leave => {
                    prop_assert!(!named || account.is_some());
                }
                Step::Delete => {
                    let same = account.as_ref().is_some_and(|account| uid.is_none_or(|uid| account.metadata.uid == Some(format!("u{uid}"))));
                    prop_assert!(named && !same, "it goes with nobody else");
                }
                Step::Fill { mut data, token } => {
                    prop_assert!(named && account.is_some());
                    prop_assert_eq!(token, before.get("token").is_none_or(|known| known.0.is_empty()), "a token is never replaced");
                    if token {
                        data.insert("token", bytes("t"));
                    }
                    let (all, annotations) = (secret.data.get_or_insert_default(), secret.metadata.annotations.get_or_insert_default());
                    all.extend(data.into_iter().map(|(name, value)| (name.to_owned(), value)));
                    annotations.insert(ACCOUNT_UID.to_owned(), account.as_ref().unwrap().metadata.uid.clone().unwrap());
                    prop_assert_eq!(next(&secret, account.as_ref(), CA), Step::Leave, "once is enough");
                    let after = secret.data.unwrap();
                    prop_assert_eq!(&after["ca.crt"], &bytes(CA));
                    prop_assert!(names[..3].iter().all(|name| !after[*name].0.is_empty()));
                    prop_assert_eq!(after.get("extra"), before.get("extra"));
                }
            }
        }
    }
}
