//! The audit log: who did what, when, and how it came out, as far as the policy wants it known.
//!
//! ```text
//! authenticate -> layer: level by policy, event RequestReceived -> the request -> ResponseStarted (streams), ResponseComplete
//!                                                   |                                             |
//!                                                   +--> bounded queue --> a thread: JSON lines, rotation by size
//! ```
//!
//! Policies and events are those of `audit.k8s.io/v1`. Guarantees: a request never waits for the log; what finds no room in
//! the queue is dropped, counted and said in the server's log; bodies are copied as they pass, never held back.

mod body;
mod event;
mod file;
pub(crate) mod layer;
mod policy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub use file::{Audit, Rotation};
pub use policy::Policy;

use crate::User;

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy cannot be read or is not one.
    #[error("audit policy {}: {detail}", path.display())]
    Policy {
        /// The policy's file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The log cannot be written.
    #[error("audit log {}: {source}", path.display())]
    Log {
        /// The log's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Policy {
    /// Reads the policy in a file.
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let failed = |detail: String| AuditError::Policy { path: path.to_path_buf(), detail };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text).map_err(failed)
    }
}

/// What becomes known of a request while it is handled.
struct Context {
    /// Who sent it.
    user: User,
    /// As whom it is done, if that is somebody else.
    impersonated: OnceLock<User>,
    annotations: Mutex<BTreeMap<String, String>>,
}

tokio::task_local! {
    /// The request that this task handles; not set where nothing is audited.
    static CURRENT: Arc<Context>;
}

/// Notes something about the request that this task handles; the first value of a key stays.
pub(crate) fn annotate(key: &str, value: impl FnOnce() -> String) {
    // Without a request or a log there is nobody to tell.
    let _ = CURRENT.try_with(|context| {
        context.annotations.lock().entry(key.to_owned()).or_insert_with(value);
    });
}
