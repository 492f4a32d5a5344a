//! Leaving a containerd that is not ours as it was.

use containerd_client::services::v1::{DeleteNamespaceRequest, DeleteRequest, ListRequest};
use wherry_runtime::{Runtime, RuntimeError};

use crate::ContainerRuntime;
use crate::client::{failed, unless_missing};

impl ContainerRuntime {
    /// Gives back what containerd holds for us: the leases, with them all unpacked images, and the namespace. Every container
    /// has been removed before; images are unpacked anew by the next life.
    ///
    /// # Errors
    /// When containerd does not answer, or something of ours is still there.
    pub async fn vacate(&self) -> Result<(), RuntimeError> {
        if !self.list().await?.is_empty() {
            return Err(RuntimeError::Failed("containers are left in containerd".to_owned()));
        }
        let client = &self.inner().client;
        let request = client.call(ListRequest { filters: Vec::new() });
        let leases = client.leases().list(request).await.map_err(failed("list leases"))?.into_inner().leases;
        let count = leases.len();
        for (index, lease) in leases.into_iter().enumerate() {
            // The last one waits until what they all held is collected.
            let request = client.call(DeleteRequest { id: lease.id, sync: index + 1 == count });
            unless_missing(client.leases().delete(request).await).map_err(failed("end a lease"))?;
        }
        let request = client.call(DeleteNamespaceRequest { name: client.namespace().to_owned() });
        unless_missing(client.namespaces().delete(request).await).map_err(failed("remove its namespace"))?;
        Ok(())
    }
}
