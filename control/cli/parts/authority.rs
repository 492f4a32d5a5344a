//! The cluster's keys for the controllers.

use std::sync::Arc;

use wherry_api::certificates::Request;
use wherry_controllers::Authority;
use wherry_server::Issuer;
use wherry_server::pki::Pki;

/// Signs with the certificate authority and the service account key of this control plane.
pub(crate) struct Keys {
    pub(crate) pki: Arc<Pki>,
    pub(crate) issuer: Arc<Issuer>,
}

impl Authority for Keys {
    fn certificate(&self, request: &Request, usages: &[&str], seconds: i64) -> Result<String, String> {
        self.pki.sign(request, usages, seconds).map_err(|error| error.to_string())
    }

    fn token(&self, namespace: &str, name: &str, uid: &str, secret: &str) -> Result<String, String> {
        self.issuer.legacy_token(namespace, name, uid, secret).map_err(|error| error.to_string())
    }
}
