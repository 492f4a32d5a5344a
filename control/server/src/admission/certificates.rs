//! Certificate signing requests: who asked is the server's to say, and approving and signing need a permission for the
//! signer. Upstream's plugins CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::certificates::{API_CLIENT, Request};
use wherry_api::meta;
use wherry_api::status::Status;

use super::{Attributes, Operation, Plugin};
use crate::layers::authorize::{Attributes as Question, Decision};
use crate::user::MASTERS;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";

impl Attributes<'_> {
    /// Whether this updates a certificate signing request through a subresource; the request as it was.
    fn updates_request(&self, subresource: &str) -> Option<&Value> {
        let of = self.resource.group == GROUP && self.resource.plural == REQUESTS;
        (of && self.operation == Operation::Update && self.subresource == subresource).then_some(self.old)?
    }

    /// Whether the user has `verb` for a signer, by its name or by all of its domain.
    fn may_for_signer(&self, verb: &str, signer: &str) -> bool {
        let domain = signer.split('/').next().unwrap_or_default();
        [signer.to_owned(), format!("{domain}/*")].iter().any(|name| {
            let question =
                Question { is_resource: true, verb, group: GROUP, resource: "signers", name, ..Question::default() };
            matches!(self.engine.authorizer.authorize(self.user, &question), Decision::Allow { .. })
        })
    }

    /// Refuses who has not `verb` for the signer of `request`.
    fn check_signer(&self, verb: &str, request: &Value) -> Result<(), Status> {
        let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
        if self.may_for_signer(verb, signer) {
            return Ok(());
        }
        Err(self.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
    }
}

/// Writes into a new request who made it: signers and approvers go by that.
pub(super) struct CertificateRequester;

#[async_trait]
impl Plugin for CertificateRequester {
    fn name(&self) -> &'static str {
        "CertificateRequester"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if !attributes.creates(GROUP, REQUESTS) {
            return Ok(());
        }
        let spec = meta::map_mut(object, "spec");
        for key in ["username", "uid", "groups", "extra"] {
            spec.remove(key);
        }
        let user = attributes.user;
        for (key, value, empty) in [
            ("username", json!(user.name), user.name.is_empty()),
            ("uid", json!(user.uid), user.uid.is_empty()),
            ("groups", json!(user.groups), user.groups.is_empty()),
            ("extra", json!(user.extra), user.extra.is_empty()),
        ] {
            if !empty {
                spec.insert(key.to_owned(), value);
            }
        }
        Ok(())
    }
}

/// Approves and denies only who may `approve` for the signer.
pub(super) struct CertificateApproval;

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, attributes: &Attributes<'_>, _object: &Value) -> Result<(), Status> {
        let Some(old) = attributes.updates_request("approval") else { return Ok(()) };
        attributes.check_signer("approve", old)
    }
}

/// Issues and fails only who may `sign` for the signer.
pub(super) struct CertificateSigning;

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let Some(old) = attributes.updates_request("status") else { return Ok(()) };
        if ["certificate", "conditions"].iter().all(|key| object["status"][key] == old["status"][key]) {
            return Ok(());
        }
        attributes.check_signer("sign", old)
    }
}

/// Nobody gets a client certificate of the group that may do everything.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        if !attributes.creates(GROUP, REQUESTS) || object["spec"]["signerName"] != API_CLIENT {
            return Ok(());
        }
        let request = Request::from_base64(object["spec"]["request"].as_str().unwrap_or_default())
            .map_err(|error| attributes.forbidden(format!("failed to parse CSR: {error}")))?;
        if request.organizations.iter().any(|group| group == MASTERS) {
            return Err(attributes.forbidden(format!("use of {API_CLIENT} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}
