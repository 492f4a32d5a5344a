//! What the holder of the cluster's keys does for the controllers.

use wherry_api::certificates::Request;

/// Signs with the cluster's keys. Whether a thing should be signed is decided by the controllers.
pub trait Authority: Send + Sync + 'static {
    /// A certificate (PEM) for `request`, good for `usages` and `seconds`. An error says why it cannot be made.
    fn certificate(&self, request: &Request, usages: &[&str], seconds: i64) -> Result<String, String>;

    /// A token without an end for the service account `name` (of that `uid`) in `namespace`, to be kept in the Secret
    /// `secret`. An error says why it cannot be made.
    fn token(&self, namespace: &str, name: &str, uid: &str, secret: &str) -> Result<String, String>;
}
