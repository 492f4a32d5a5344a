//! CronJobs, the ends of Jobs' lives, disruption budgets.

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job},
        core::v1::{Pod, ResourceQuota},
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::harness::{Cluster, deployment};
use crate::jobs::{end, is_running, running};

fn cron(name: &str, spec: serde_json::Value) -> CronJob {
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "app", "image": "app:1" }] });
    let mut all = json!({ "jobTemplate": { "spec": { "template": { "spec": pod } } } });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": all })).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_job_starts_replaces_and_forgets_jobs() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<CronJob>("default");
    let spec = json!({ "schedule": "@every 1s", "concurrencyPolicy": "Replace", "successfulJobsHistoryLimit": 0 });
    api.create(&PostParams::default(), &cron("tick", spec)).await.unwrap();
    let started = cluster
        .until::<CronJob>("default", "tick", |cron| {
            let status = cron.status.clone().unwrap_or_default();
            status.last_schedule_time.is_some() && status.active.is_some_and(|active| active.len() == 1)
        })
        .await;
    let time = started.status.as_ref().unwrap().last_schedule_time.clone().unwrap().0;
    let name = format!("tick-{}", time.as_second() / 60);
    let job = cluster.until::<Job>("default", &name, |_| true).await;
    let scheduled = &job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert!(scheduled.parse::<Timestamp>().unwrap() <= time, "{scheduled}");
    cluster.patch(&api, "tick", json!({ "spec": { "suspend": true } })).await;
    let reasons: Vec<_> =
        cluster.until_event("SuccessfulCreate").await.into_iter().filter_map(|event| event.reason).collect();
    assert!(!reasons.contains(&"UnexpectedJob".to_owned()), "{reasons:?}");

    // A Job that is done goes by the history's limit.
    let pods = cluster.until_all::<Pod>("of the job", |pods| pods.iter().any(|pod| is_running(pod))).await;
    for pod in pods {
        let done = json!({ "status": { "phase": "Succeeded" } });
        let _ = cluster
            .api::<Pod>("default")
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(done))
            .await;
    }
    cluster.until_gone_all::<Job>("default").await;
    cluster.until_gone_all::<Pod>("default").await;
    let idle = cluster
        .until::<CronJob>("default", "tick", |cron| cron.status.as_ref().is_some_and(|s| s.active.is_none()))
        .await;
    assert!(idle.status.as_ref().unwrap().last_schedule_time.is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_when_its_time_is_over() {
    let cluster = Cluster::start().await;
    let job: Job = serde_json::from_value(json!({ "metadata": { "name": "brief" }, "spec": {
        "ttlSecondsAfterFinished": 0, "template": { "spec": {
            "restartPolicy": "Never", "containers": [{ "name": "app", "image": "app:1" }],
        } },
    } }))
    .unwrap();
    cluster.api("default").create(&PostParams::default(), &job).await.unwrap();
    let pod = running(&cluster, 1).await.remove(0);
    end(&cluster.api("default"), &pod.name_any(), "Succeeded").await;
    cluster.until_gone_all::<Job>("default").await;
    cluster.until_gone_all::<Pod>("default").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_count_and_evictions_spend() {
    let cluster = Cluster::start().await;
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    }))
    .unwrap();
    cluster.api("default").create(&PostParams::default(), &budget).await.unwrap();
    cluster.api("default").create(&PostParams::default(), &deployment("web", "app:1", 3)).await.unwrap();
    let counts = |allowed, healthy| {
        move |budget: &PodDisruptionBudget| {
            let status = budget.status.clone().unwrap_or_default();
            (status.disruptions_allowed, status.current_healthy) == (Some(allowed), Some(healthy))
        }
    };
    cluster.until("default", "web", counts(1, 3)).await;
    cluster.hold_deletions();
    let pods = cluster.until_count::<Pod>("default", 3).await;
    let evict = async |pod: &Pod| -> Result<serde_json::Value, kube::Error> {
        let name = pod.name_any();
        let eviction = json!({ "metadata": { "name": name } });
        cluster.api::<Pod>("default").create_subresource("eviction", &name, &PostParams::default(), &eviction).await
    };
    evict(&pods[0]).await.unwrap();
    // What it took is given back once its replacement is ready.
    cluster.until("default", "web", counts(1, 3)).await;
    let told =
        cluster.until::<Pod>("default", &pods[0].name_any(), |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let conditions = told.status.as_ref().unwrap().conditions.clone().unwrap();
    let target = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.reason.as_deref(), Some("EvictionByEvictionAPI"));
    cluster.release_deletions().await;
    cluster.stop().await;
}

/// No Pod tells that more of them are wanted: a quota lets none be made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_counts_what_is_wanted_though_no_pod_changes() {
    let cluster = Cluster::start().await;
    let quota: ResourceQuota =
        serde_json::from_value(json!({ "metadata": { "name": "one" }, "spec": { "hard": { "pods": "1" } } })).unwrap();
    cluster.api("default").create(&PostParams::default(), &quota).await.unwrap();
    cluster
        .until::<ResourceQuota>("default", "one", |quota| quota.status.as_ref().is_some_and(|s| s.hard.is_some()))
        .await;
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "minAvailable": "50%", "selector": { "matchLabels": { "app": "web" } } },
    }))
    .unwrap();
    cluster.api("default").create(&PostParams::default(), &budget).await.unwrap();
    let deployments = cluster.api("default");
    deployments.create(&PostParams::default(), &deployment("web", "app:1", 1)).await.unwrap();
    let desires = |desired, expected| {
        move |budget: &PodDisruptionBudget| {
            let status = budget.status.clone().unwrap_or_default();
            (status.desired_healthy, status.expected_pods, status.current_healthy)
                == (Some(desired), Some(expected), Some(1))
        }
    };
    cluster.until("default", "web", desires(1, 1)).await;
    cluster.patch(&deployments, "web", json!({ "spec": { "replicas": 4 } })).await;
    cluster.until_event("FailedCreate").await;
    cluster.until("default", "web", desires(2, 4)).await;
    cluster.stop().await;
}
