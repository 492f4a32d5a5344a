//! A Pod's phase.

use k8s_openapi::api::core::v1::Pod;

use super::restart::{After, after};
use super::spec::is_sidecar;
use super::state::{ContainerState, Ended, Phase, PodState, Run};
use super::{Slot, order};

/// The phase that `state` amounts to. `ending`: no container is started any more.
pub(super) fn phase(pod: &Pod, state: &PodState, ending: bool) -> Phase {
    if state.phase.is_terminal() {
        return state.phase;
    }
    let live = state.is_live();
    if state.verdict.is_some() && !live {
        return Phase::Failed;
    }
    let begun = state.begun();
    let (mut pending, mut failed) = (false, false);
    for (n, container) in state.init.iter().enumerate() {
        let slot = Slot::Init(n);
        if is_sidecar(pod, slot) {
            pending |= !begun && !container.started();
            continue;
        }
        match final_exit(container) {
            Some(ended) if ended.code != 0 => {
                let kept = matches!(container.run, Run::Exited { restart: true, .. });
                failed |= !kept && (after(pod, slot, ended.code) == After::Nothing || (ending && !live));
                pending = true;
            }
            Some(_) if matches!(container.run, Run::Exited { .. }) => {}
            _ => pending = !begun || pending,
        }
    }
    if failed && !begun {
        return Phase::Failed;
    }
    let all_zero = || {
        state.containers.iter().all(|container| matches!(&container.run, Run::Exited { ended, .. } if ended.code == 0))
    };
    let end = || if all_zero() { Phase::Succeeded } else { Phase::Failed };
    if ending && !live {
        return if begun { end() } else { Phase::Failed };
    }
    let waiting = state.containers.iter().any(|container| container.attempts == 0);
    if (pending && !begun) || waiting {
        // A Pod that is begun anew as a whole has run before, and is told so.
        let renewed = state.slots().any(|(_, container)| container.base > 0);
        return if renewed && state.phase == Phase::Running { Phase::Running } else { Phase::Pending };
    }
    // A sidecar that is still there has yet to be stopped.
    let sidecars = state.init.iter().any(|container| container.run.is_live());
    if order::is_over_all(pod, state) && !sidecars { end() } else { Phase::Running }
}

/// How a container that is not live ended last.
fn final_exit(container: &ContainerState) -> Option<&Ended> {
    match &container.run {
        Run::Exited { ended, .. } => Some(ended),
        Run::Waiting { .. } | Run::Starting { .. } => container.last.as_ref(),
        Run::Running(_) | Run::Stopping { .. } => None,
    }
}
