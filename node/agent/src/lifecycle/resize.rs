//! In-place resize: what a Pod was given against what its manifest says now, and what a running container has against that.
//!
//! ```text
//!  manifest ──(the node grants it)──► allocation ──(step)──► what runs
//!      └─ PodResizePending                └─ PodResizeInProgress
//! ```
//!
//! An agent works by the manifest with the resources that it has allocated ([`with_allocation`]): whatever starts, restarts or is
//! told has these.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use serde_json::{Value, json};
use wherry_api::quantity::Quantity;
use wherry_reconcile::resources::{DEFERRED, INFEASIBLE, RESIZE_PENDING};

use super::Slot;
use super::plan::Action;
use super::spec::{container, is_sidecar, name};
use super::state::{Given, Live, Pending, PodState, Run};

/// The condition of a Pod that has been granted resources which not all of its containers have yet.
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";
/// What may change while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What is to be done about a running container's resources.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    None,
    /// They are changed while it runs.
    InPlace(Action),
    /// It is started again with them: its resizePolicy says so.
    Restart,
}

/// Compares what `live` has with what it was allocated.
pub(super) fn step(pod: &Pod, slot: Slot, live: &Live) -> Step {
    let Some(spec) = container(pod, slot) else { return Step::None };
    let changed = changes(&live.resources, spec.resources.as_ref());
    if changed.is_empty() {
        return Step::None;
    }
    // Nobody knows that it has other ones: it need not end for that.
    if live.resources != Given::Unknown && changed.iter().any(|name| restarts(&spec, name)) {
        return Step::Restart;
    }
    match &live.resize {
        Some(resize) if resize.failed.is_none() || resize.wanted == spec.resources => Step::None,
        _ => Step::InPlace(Action::Resize { slot, wanted: spec.resources.clone() }),
    }
}

/// Which resources are to be changed.
fn changes(given: &Given, wanted: Option<&ResourceRequirements>) -> Vec<&'static str> {
    let changed = |name: &&str| match given {
        Given::Known(given) => differs(name, given.as_ref(), wanted),
        Given::Unknown => amount(name, wanted) != (None, None),
    };
    RESIZABLE.into_iter().filter(changed).collect()
}

fn differs(name: &str, a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    amount(name, a) != amount(name, b)
}

/// Limit and request.
fn amount(name: &str, of: Option<&ResourceRequirements>) -> (Option<i64>, Option<i64>) {
    let read = |list: Option<&BTreeMap<_, _>>| -> Option<i64> {
        let text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = list?.get(name)?;
        Quantity::parse(&text.0).ok().map(|quantity| quantity.milli_value())
    };
    (read(of.and_then(|of| of.limits.as_ref())), read(of.and_then(|of| of.requests.as_ref())))
}

fn restarts(spec: &Container, name: &str) -> bool {
    let policies = spec.resize_policy.iter().flatten();
    policies.filter(|policy| policy.resource_name == name).any(|policy| policy.restart_policy == "RestartContainer")
}

/// Why a container could not be resized, where one could not.
pub(super) fn failure(pod: &Pod, state: &PodState) -> Option<String> {
    let failed = state.slots().filter_map(|(slot, container)| {
        let resize = container.run.live()?.resize.as_ref()?;
        resize.failed.as_ref().map(|message| format!("{}: {message}", name(pod, slot)))
    });
    failed.max()
}

/// Every container has what it was allocated, or will start with it.
pub(crate) fn is_done(pod: &Pod, state: &PodState) -> bool {
    state.slots().all(|(slot, run)| match &run.run {
        Run::Waiting { .. } | Run::Exited { .. } | Run::Stopping { restart: false, .. } => true,
        Run::Starting { .. } | Run::Stopping { restart: true, .. } => false,
        Run::Running(live) => {
            let spec = container(pod, slot);
            live.resize.is_none()
                && changes(&live.resources, spec.and_then(|spec| spec.into_owned().resources).as_ref()).is_empty()
        }
    })
}

/// Whether `wanted` has other resources than `allocated`, the same Pod before.
pub(crate) fn asks(wanted: &Pod, allocated: &Pod) -> bool {
    pairs(wanted, allocated)
        .any(|(new, old)| RESIZABLE.iter().any(|name| differs(name, old.resources.as_ref(), new.resources.as_ref())))
}

fn pairs<'a>(new: &'a Pod, old: &'a Pod) -> impl Iterator<Item = (&'a Container, &'a Container)> {
    containers(new).zip(containers(old))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// `wanted` with the resources of `allocated`.
pub(crate) fn with_allocation(wanted: &Pod, allocated: &Pod) -> Pod {
    let mut pod = wanted.clone();
    if let Some(spec) = &mut pod.spec {
        let own = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        own.zip(containers(allocated)).for_each(|(own, old)| own.resources.clone_from(&old.resources));
    }
    pod
}

/// The manifest as an earlier life of the agent had allocated it, from the status that it wrote.
pub(crate) fn recovered(pod: &Pod) -> Cow<'_, Pod> {
    let Some(status) = &pod.status else { return Cow::Borrowed(pod) };
    let (pending, resizing) = told(status);
    if pending.is_none() && resizing.is_some() {
        return Cow::Borrowed(pod);
    }
    let mut allocated = pod.clone();
    let lists = allocated.spec.iter_mut().flat_map(|spec| {
        let main = spec.containers.iter_mut().zip(std::iter::repeat(&status.container_statuses));
        let init = spec.init_containers.iter_mut().flatten().zip(std::iter::repeat(&status.init_container_statuses));
        init.chain(main)
    });
    for (container, statuses) in lists {
        let Some(status) = statuses.iter().flatten().find(|status| status.name == container.name) else { continue };
        let (Some(requests), Some(own)) = (&status.allocated_resources, &mut container.resources) else { continue };
        let limits = status.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        for name in RESIZABLE {
            for (list, told) in [(&mut own.requests, Some(requests)), (&mut own.limits, limits)] {
                if let (Some(amount), Some(told)) =
                    (list.as_mut().and_then(|list| list.get_mut(name)), told.and_then(|told| told.get(name)))
                {
                    amount.clone_from(told);
                }
            }
        }
    }
    Cow::Owned(allocated)
}

/// What a status tells of a resize: one that waits, and the generation of one that is under way.
pub(super) fn told(status: &PodStatus) -> (Option<Pending>, Option<i64>) {
    let find = |type_: &str| status.conditions.iter().flatten().find(|one| one.type_ == type_ && one.status == "True");
    let pending = find(RESIZE_PENDING).map(|condition| Pending {
        reason: if condition.reason.as_deref() == Some(INFEASIBLE) { INFEASIBLE } else { DEFERRED },
        message: condition.message.clone().unwrap_or_default(),
        generation: condition.observed_generation.unwrap_or_default(),
        since: condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    });
    (pending, find(IN_PROGRESS).map(|condition| condition.observed_generation.unwrap_or_default()))
}

/// The text of an event about a resize: what happened, and to what.
pub(crate) fn event(what: &str, pod: &Pod, generation: i64, error: &str) -> String {
    let of = |container: &Container| {
        let resources = container.resources.as_ref();
        let lists = [
            ("limits", resources.and_then(|list| list.limits.as_ref())),
            ("requests", resources.and_then(|list| list.requests.as_ref())),
        ];
        let told: serde_json::Map<String, Value> =
            lists.into_iter().filter_map(|(name, list)| Some((name.to_owned(), json!(list?)))).collect();
        json!({ "name": container.name, "resources": told })
    };
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten().enumerate();
    let sidecars: Vec<Value> =
        init.filter(|(n, _)| is_sidecar(pod, Slot::Init(*n))).map(|(_, container)| of(container)).collect();
    let mains: Vec<Value> = spec.iter().flat_map(|spec| &spec.containers).map(of).collect();
    let mut text = format!("Pod resize {what}: {{");
    if !sidecars.is_empty() {
        text.push_str(&format!("\"initContainers\":{},", Value::Array(sidecars)));
    }
    text.push_str(&format!("\"containers\":{},\"generation\":{generation}", Value::Array(mains)));
    if !error.is_empty() {
        text.push_str(&format!(",\"error\":{}", Value::from(error)));
    }
    text.push('}');
    text
}
