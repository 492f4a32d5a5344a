//! What every namespace has from the start: the ServiceAccount `default`, and the ConfigMap `kube-root-ca.crt` by which
//! Pods recognise the API server. Both are put back when they are deleted or, for the certificate, changed.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Filter, Informer, ObjectKey, Outcome, Queue, Reconciler};

use crate::{
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "namespace-defaults";
const WORKERS: usize = 4;
const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const CERTIFICATE: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "The certificates by which the API server is recognised from within the cluster, for example as kubernetes.default.svc.",
);

struct Controller {
    /// For the service accounts.
    context: Context,
    /// For the certificates.
    publisher: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
    certificates: Informer<ConfigMap>,
    root_ca_pem: String,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, root_ca_pem: String, cancel: CancellationToken) {
    let named = |name: &str| Filter::fields(format!("metadata.name={name}"));
    let controller = Arc::new(Controller {
        namespaces: context.informers.get(),
        accounts: context.informers.get_filtered(named(ACCOUNT)),
        certificates: context.informers.get_filtered(named(ROOT_CA)),
        root_ca_pem,
        publisher: context.acting_as("root-ca-cert-publisher").client,
        context,
    });
    let synced = async {
        controller.namespaces.synced().await
            && controller.accounts.synced().await
            && controller.certificates.synced().await
    };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let wake = |namespace: Option<&String>| {
        if let Some(name) = namespace {
            queue.add(ObjectKey::new("", name.clone()));
        }
    };
    let namespaces = feed(controller.namespaces.subscribe(), &cancel, |change| {
        wake(change.object().and_then(|namespace| namespace.metadata.name.as_ref()));
    });
    let accounts = feed(controller.accounts.subscribe(), &cancel, |change| {
        wake(change.object().and_then(|account| account.metadata.namespace.as_ref()));
    });
    let certificates = feed(controller.certificates.subscribe(), &cancel, |change| {
        wake(change.object().and_then(|map| map.metadata.namespace.as_ref()));
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(namespaces, accounts, certificates, work);
}

impl Controller {
    async fn ensure_account(&self, namespace: &str) -> Result<(), kube::Error> {
        if self.accounts.get(namespace, ACCOUNT).is_some() {
            return Ok(());
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(ACCOUNT.into()),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.context.client.clone(), namespace);
        created(api.create(&PostParams::default(), &account).await)
    }

    async fn ensure_certificate(&self, namespace: &str) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.publisher.clone(), namespace);
        let data = BTreeMap::from([(CERTIFICATE.to_owned(), self.root_ca_pem.clone())]);
        match self.certificates.get(namespace, ROOT_CA) {
            Some(known) if known.data.as_ref() == Some(&data) => Ok(()),
            Some(known) => {
                // Keys that do not belong here go too.
                let map = ConfigMap { data: Some(data), ..ConfigMap::clone(&known) };
                error::gone_is_fine(api.replace(ROOT_CA, &PostParams::default(), &map).await).map(drop)
            }
            None => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(ROOT_CA.into()),
                        namespace: Some(namespace.into()),
                        annotations: Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into()),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    ..ConfigMap::default()
                };
                created(api.create(&PostParams::default(), &map).await)
            }
        }
    }
}

/// Somebody else having created it, or the namespace being on its way out, is as good.
fn created<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error::already_exists(&error) || error::is_namespace_terminating(&error) => Ok(()),
        Err(error) => error::gone_is_fine(Err::<(), _>(error)).map(drop),
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let namespace = self.namespaces.get_key(&key);
        if namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none()) {
            self.ensure_account(&key.name).await?;
            self.ensure_certificate(&key.name).await?;
        }
        Ok(Outcome::Done)
    }
}
