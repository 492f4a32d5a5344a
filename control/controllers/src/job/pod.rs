//! The Pods of a Job. Pure.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};

use super::{
    manage::Slot,
    view::{FINALIZER, INDEX, INDEX_FAILURES, INDEX_IGNORED},
};
use crate::hand::pod_of;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// So that a Pod's host name and the end of its own name fit.
const MAX_GENERATED: usize = 58;

/// The Pod for a slot.
pub(super) fn make(job: &Job, slot: &Slot) -> Pod {
    let mut pod = job.spec.as_ref().map(|spec| pod_of(job, &spec.template)).unwrap_or_default();
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = slot.index else { return pod };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let suffix = format!("-{index}-");
    let mut stem = name.to_owned();
    stem.truncate(MAX_GENERATED - suffix.len());
    pod.metadata.generate_name = Some(stem + &suffix);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some((failures, ignored)) = slot.failures {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
    pod
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    env.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}
