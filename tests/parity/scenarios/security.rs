//! What a Pod asks not to be allowed.

use super::{READY, Scenario, pod};
use crate::stage::ready;

/// All that the Pod Security Standard `restricted` asks for.
const RESTRICTED: &str =
    "securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}";
const CONTAINER: &str = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";

pub(crate) fn all() -> Vec<Scenario> {
    vec![Scenario {
        name: "restricted",
        manifest: || pod(RESTRICTED, CONTAINER),
        play: |stage| {
            stage.until("ready", ready("True"))?;
            stage.ok("/").map(drop)
        },
        expected: READY,
    }]
}
