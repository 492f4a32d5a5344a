//! What a Pod asks not to be allowed.

use super::{Scenario, pod};
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
        expected: "
phase: Pending > Running
PodScheduled: True
PodReadyToStartContainers: False > True
Initialized: True
ContainersReady: False/ContainersNotReady > True
Ready: False/ContainersNotReady > True
echo: ContainerCreating > Running
echo restarts: 0
echo started: false > true
echo ready: false > true
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started",
    }]
}
