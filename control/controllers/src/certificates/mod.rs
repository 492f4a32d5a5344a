//! Certificate signing requests: approves those of nodes, signs what is approved for Kubernetes' own signers, and clears away
//! what is over (upstream's csrapproving, csrsigning and csrcleaner, in one pass a request).
//!
//! Driven by changes; an end that lies ahead is a deadline in the queue.

mod step;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use step::{Permission, Step};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Informer, ObjectKey, Outcome, Queue, Reconciler};

use crate::{
    Authority,
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "certificates";
const WORKERS: usize = 2;

struct Controller {
    context: Context,
    requests: Informer<CertificateSigningRequest>,
    authority: Arc<dyn Authority>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, authority: Arc<dyn Authority>, cancel: CancellationToken) {
    let controller = Arc::new(Controller { requests: context.informers.get(), authority, context });
    if cancel.run_until_cancelled(controller.requests.synced()).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let requests = feed(controller.requests.subscribe(), &cancel, |change| {
        if let Some(name) = change.new.as_ref().and_then(|request| request.metadata.name.clone()) {
            queue.add(ObjectKey::new("", name));
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(requests, work);
}

impl Controller {
    fn api(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.context.client.clone())
    }

    /// The first of `permissions` that the request's author has.
    async fn permitted(
        &self,
        csr: &CertificateSigningRequest,
        permissions: Vec<Permission>,
    ) -> Result<Option<Permission>, Error> {
        let spec = &csr.spec;
        for permission in permissions {
            let attributes = ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(permission.0.to_owned()),
                verb: Some("create".to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            };
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: spec.username.clone(),
                    uid: spec.uid.clone(),
                    groups: spec.groups.clone(),
                    extra: spec.extra.clone(),
                    resource_attributes: Some(attributes),
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            let reviews: Api<SubjectAccessReview> = Api::all(self.context.client.clone());
            let review = reviews.create(&PostParams::default(), &review).await?;
            if review.status.is_some_and(|status| status.allowed) {
                return Ok(Some(permission));
            }
        }
        Ok(None)
    }

    /// Adds a condition through the subresource `part`.
    async fn decide(
        &self,
        csr: &CertificateSigningRequest,
        part: &str,
        (kind, reason, message): (&str, &str, &str),
    ) -> Result<(), Error> {
        let mut conditions = csr.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.push(CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..CertificateSigningRequestCondition::default()
        });
        self.write(csr, part, json!({ "conditions": conditions })).await
    }

    /// Writes `status` through the subresource `part`, unless the request has changed since it was read.
    async fn write(&self, csr: &CertificateSigningRequest, part: &str, status: Value) -> Result<(), Error> {
        let name = csr.metadata.name.clone().unwrap_or_default();
        let patch = json!({"metadata": {"resourceVersion": csr.metadata.resource_version}, "status": status});
        let written = self.api().patch_subresource(part, &name, &PatchParams::default(), &Patch::Merge(patch)).await;
        Ok(error::gone_is_fine(written).map(drop)?)
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(csr) = self.requests.get_key(&key) else { return Ok(Outcome::Done) };
        let now = Timestamp::now();
        match step::next(&csr, now) {
            Step::Ask(permissions) => {
                if let Some((_, message)) = self.permitted(&csr, permissions).await? {
                    self.decide(&csr, "approval", ("Approved", "AutoApproved", message)).await?;
                }
            }
            Step::Sign { request, usages, seconds } => {
                let usages: Vec<&str> = usages.iter().map(String::as_str).collect();
                let pem = self.authority.certificate(&request, &usages, seconds).map_err(Error::Partial)?;
                let certificate = k8s_openapi::ByteString(pem.into_bytes());
                self.write(&csr, "status", json!({"certificate": certificate})).await?;
            }
            Step::Fail(why) => {
                self.decide(&csr, "status", ("Failed", "SignerValidationFailure", &why)).await?;
            }
            Step::Delete => {
                let uid = csr.metadata.uid.clone();
                let only_it = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
                error::gone_is_fine(self.api().delete(&key.name, &only_it).await)?;
            }
            Step::Wait(until) => {
                let left = until.and_then(|until| std::time::Duration::try_from(until.duration_since(now)).ok());
                return Ok(left.map_or(Outcome::Done, Outcome::After));
            }
        }
        Ok(Outcome::Done)
    }
}
