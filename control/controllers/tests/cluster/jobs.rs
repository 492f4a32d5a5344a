//! Jobs: exact counts, indexes, failures, suspension, and what is left when they go.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::harness::Cluster;

fn job(name: &str, spec: serde_json::Value) -> Job {
    let mut all = json!({ "template": { "spec": {
        "restartPolicy": "Never", "containers": [{ "name": "app", "image": "app:1" }],
    } } });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": all })).unwrap()
}

fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")?.reason.as_deref()
}

fn counts(job: &Job) -> (i32, i32, i32) {
    let status = job.status.clone().unwrap_or_default();
    (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
}

pub(crate) async fn end(pods: &Api<Pod>, name: &str, phase: &str) {
    let patch = json!({ "status": { "phase": phase } });
    pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

pub(crate) fn is_running(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Waits for so many running Pods.
pub(crate) async fn running(cluster: &Cluster, count: usize) -> Vec<Arc<Pod>> {
    let all =
        cluster.until_all::<Pod>("running", |pods| pods.iter().filter(|pod| is_running(pod)).count() == count).await;
    all.into_iter().filter(|pod| is_running(pod)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_completes_and_counts_its_pods() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Job>("default");
    let pods = cluster.api::<Pod>("default");
    let policy = json!({ "rules": [{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] }] });
    let spec = json!({ "completions": 3, "parallelism": 2, "backoffLimit": 0, "podFailurePolicy": policy });
    api.create(&PostParams::default(), &job("sum", spec)).await.unwrap();
    let first = running(&cluster, 2).await;
    assert!(first.iter().all(|pod| pod.finalizers().contains(&"batch.kubernetes.io/job-tracking".to_owned())));

    // One that is disrupted is replaced and does not count, however it ends.
    let disrupted = json!({ "status": { "phase": "Failed", "conditions": [
        { "type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
    ] } });
    pods.patch_status(&first[0].name_any(), &PatchParams::default(), &Patch::Strategic(disrupted)).await.unwrap();
    end(&pods, &first[1].name_any(), "Succeeded").await;
    cluster.until::<Job>("default", "sum", |job| counts(job) == (2, 1, 0)).await;
    for pod in running(&cluster, 2).await {
        end(&pods, &pod.name_any(), "Succeeded").await;
    }
    let done = cluster.until::<Job>("default", "sum", |job| condition(job, "Complete").is_some()).await;
    assert_eq!((counts(&done), condition(&done, "Complete")), ((0, 3, 0), Some("CompletionsReached")));
    assert_eq!(condition(&done, "SuccessCriteriaMet"), Some("CompletionsReached"));
    cluster
        .until_all::<Pod>("without finalizers", |pods| {
            pods.len() == 4 && pods.iter().all(|pod| pod.finalizers().is_empty())
        })
        .await;
    cluster.until_event("Completed").await;
    api.delete("sum", &DeleteParams::background()).await.unwrap();
    cluster.until_gone_all::<Pod>("default").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_are_told_completed_and_given_up() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Job>("default");
    let pods = cluster.api::<Pod>("default");
    let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0 });
    api.create(&PostParams::default(), &job("parts", spec)).await.unwrap();
    let parts = running(&cluster, 3).await;
    let index = |pod: &Pod| pod.annotations()["batch.kubernetes.io/job-completion-index"].clone();
    assert_eq!(parts.iter().map(|pod| index(pod)).collect::<BTreeSet<_>>(), ["0", "1", "2"].map(str::to_owned).into());
    for pod in &parts {
        let n = index(pod);
        assert_eq!(pod.spec.as_ref().unwrap().hostname.as_deref(), Some(&*format!("parts-{n}")));
        end(&pods, &pod.name_any(), if n == "1" { "Failed" } else { "Succeeded" }).await;
    }
    let done = cluster.until::<Job>("default", "parts", |job| condition(job, "Failed").is_some()).await;
    assert_eq!((counts(&done), condition(&done, "Failed")), ((0, 2, 1), Some("FailedIndexes")));
    let status = done.status.clone().unwrap();
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("0,2"), Some("1")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_suspended_fail_and_leave_no_pods() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<Job>("default");
    let pods = cluster.api::<Pod>("default");
    api.create(&PostParams::default(), &job("calm", json!({ "suspend": true, "backoffLimit": 0 }))).await.unwrap();
    cluster.until::<Job>("default", "calm", |job| condition(job, "Suspended") == Some("JobSuspended")).await;
    cluster.patch(&api, "calm", json!({ "spec": { "suspend": false } })).await;
    running(&cluster, 1).await;
    cluster.patch(&api, "calm", json!({ "spec": { "suspend": true } })).await;
    cluster.until_gone_all::<Pod>("default").await;
    cluster.patch(&api, "calm", json!({ "spec": { "suspend": false } })).await;
    let pod = running(&cluster, 1).await.remove(0);
    cluster.until::<Job>("default", "calm", |job| counts(job) == (1, 0, 0)).await;

    // A Pod that somebody deletes has failed.
    pods.delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    let failed = cluster.until::<Job>("default", "calm", |job| condition(job, "Failed").is_some()).await;
    assert_eq!((counts(&failed), condition(&failed, "Failed")), ((0, 0, 1), Some("BackoffLimitExceeded")));
    cluster.until_event("BackoffLimitExceeded").await;

    // Pods outlive a Job that leaves them, and wait for nothing more.
    api.create(&PostParams::default(), &job("left", json!({}))).await.unwrap();
    let pod = running(&cluster, 1).await.remove(0);
    api.delete("left", &DeleteParams::orphan()).await.unwrap();
    cluster
        .until::<Pod>("default", &pod.name_any(), |pod| {
            pod.finalizers().is_empty() && pod.owner_references().is_empty()
        })
        .await;
    cluster.stop().await;
}
