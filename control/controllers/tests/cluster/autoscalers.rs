//! HorizontalPodAutoscalers where nobody measures: bounds hold, and what is not known changes nothing.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::api::PostParams;
use serde_json::json;
use wherry_reconcile::waking::{SLEEPS, WAITED_FOR};

use crate::harness::{Cluster, NODE, deployment};

fn condition(hpa: &HorizontalPodAutoscaler, kind: &str) -> Option<(String, String)> {
    let conditions = hpa.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_hold_and_the_unknown_changes_nothing() {
    let cluster = Cluster::start().await;
    cluster.api("default").create(&PostParams::default(), &deployment("web", "app:1", 1)).await.unwrap();
    let hpa = |name: &str, target: &str| -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": {
            "minReplicas": 2, "maxReplicas": 4,
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": target },
            "metrics": [{ "type": "Resource", "resource": {
                "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 },
            } }],
        } }))
        .unwrap()
    };
    let api = cluster.api::<HorizontalPodAutoscaler>("default");
    api.create(&PostParams::default(), &hpa("web", "web")).await.unwrap();
    cluster
        .until::<Deployment>("default", "web", |web| {
            web.spec.as_ref().unwrap().replicas == Some(2)
                && web.status.as_ref().and_then(|status| status.ready_replicas) == Some(2)
        })
        .await;
    let scaled =
        cluster.until::<HorizontalPodAutoscaler>("default", "web", |hpa| condition(hpa, "AbleToScale").is_some()).await;
    assert_eq!(condition(&scaled, "AbleToScale"), Some(("True".into(), "SucceededRescale".into())));
    assert_eq!(scaled.status.as_ref().unwrap().desired_replicas, 2);
    cluster.until_event("SuccessfulRescale").await;
    // Now it is within its bounds, and looks at what nobody tells.
    cluster.patch(&api, "web", json!({ "spec": { "maxReplicas": 5 } })).await;
    cluster
        .until::<HorizontalPodAutoscaler>("default", "web", |hpa| {
            condition(hpa, "ScalingActive") == Some(("False".into(), "FailedGetResourceMetric".into()))
        })
        .await;
    assert_eq!(cluster.api::<Deployment>("default").get("web").await.unwrap().spec.unwrap().replicas, Some(2));

    api.create(&PostParams::default(), &hpa("lost", "nothing")).await.unwrap();
    cluster
        .until::<HorizontalPodAutoscaler>("default", "lost", |hpa| {
            condition(hpa, "AbleToScale") == Some(("False".into(), "FailedGetScale".into()))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_api_of_metrics_tells_is_said_in_upstreams_words() {
    let cluster = Cluster::start().await;
    cluster.api("default").create(&PostParams::default(), &deployment("web", "app:1", 1)).await.unwrap();
    let average = json!({ "type": "AverageValue", "averageValue": "10" });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "name": "web" });
    let nothing = json!({ "apiVersion": "example.com/v1", "kind": "Nothing", "name": "web" });
    let object = |described: &serde_json::Value| {
        json!({ "type": "Object", "object": {
            "metric": { "name": "packets" }, "describedObject": described, "target": { "type": "Value", "value": "5" },
        } })
    };
    let table = [
        (
            "pods",
            json!({ "type": "Pods", "pods": { "metric": { "name": "http_requests_per_second" }, "target": average } }),
            "FailedGetPodsMetric",
            "unable to get metric http_requests_per_second: no metrics returned from custom metrics API",
        ),
        (
            "object",
            object(&service),
            "FailedGetObjectMetric",
            "unable to get metric packets: Service on default web/unable to fetch metrics from custom metrics API: the server could not find the metric packets for services",
        ),
        (
            "unmapped",
            object(&nothing),
            "FailedGetObjectMetric",
            "unable to get metric packets: Nothing on default web/unable to map kind Nothing: no matches for kind \"Nothing\" in version \"example.com/v1\"",
        ),
        (
            "external",
            json!({ "type": "External", "external": {
                "metric": { "name": "queue", "selector": { "matchLabels": { "of": "web" } } }, "target": average,
            } }),
            "FailedGetExternalMetric",
            "failed to get queue external metric: unable to get external metric default/queue/&LabelSelector{MatchLabels:map[string]string{of: web,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get queue.external.metrics.k8s.io)",
        ),
    ];
    let api = cluster.api::<HorizontalPodAutoscaler>("default");
    for (name, metric, reason, why) in table {
        let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": {
            "maxReplicas": 4, "metrics": [metric],
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        } }))
        .unwrap();
        api.create(&PostParams::default(), &hpa).await.unwrap();
        let said = cluster
            .until::<HorizontalPodAutoscaler>("default", name, |hpa| condition(hpa, "ScalingActive").is_some())
            .await;
        assert_eq!(condition(&said, "ScalingActive"), Some(("False".into(), reason.into())), "{name}");
        let conditions = said.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let active = conditions.iter().find(|condition| condition.type_ == "ScalingActive").unwrap();
        assert_eq!(
            active.message.as_deref(),
            Some(format!("the HPA was unable to compute the replica count: {why}").as_str())
        );
        cluster.until_event(reason).await;
    }
    cluster.until_event("FailedComputeMetricsReplicas").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sleeps_is_marked_and_wakes_for_whoever_waits_on_a_node() {
    let cluster = Cluster::start().await;
    let deployments = cluster.api::<Deployment>("default");
    deployments.create(&PostParams::default(), &deployment("web", "app:1", 0)).await.unwrap();
    let service = |name: &str, app: &str| -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": name }, "spec": { "selector": { "app": app }, "ports": [{ "port": 80 }] },
        }))
        .unwrap()
    };
    let services = cluster.api::<Service>("default");
    for (name, app) in [("web", "web"), ("other", "other")] {
        services.create(&PostParams::default(), &service(name, app)).await.unwrap();
    }
    let is_marked = |slice: &EndpointSlice| slice.metadata.labels.as_ref().unwrap().contains_key(SLEEPS);
    cluster.until_slice("web", |slice| !is_marked(slice)).await;
    let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({ "metadata": { "name": "web" }, "spec": {
        "minReplicas": 0, "maxReplicas": 4,
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "metrics": [{ "type": "Pods", "pods": {
            "metric": { "name": "http_requests_per_second" }, "target": { "type": "AverageValue", "averageValue": "10" },
        } }],
    } }))
    .unwrap();
    let api = cluster.api::<HorizontalPodAutoscaler>("default");
    api.create(&PostParams::default(), &hpa).await.unwrap();
    cluster.until_slice("web", is_marked).await;
    // Nobody waits: it sleeps on, and nothing is wrong with that.
    cluster
        .until::<HorizontalPodAutoscaler>("default", "web", |hpa| {
            condition(hpa, "ScalingActive") == Some(("True".into(), "ValidMetricFound".into()))
        })
        .await;
    assert_eq!(deployments.get("web").await.unwrap().spec.unwrap().replicas, Some(0));

    let nodes = cluster.cluster_api::<Node>();
    let waiting = |services: &str| json!({ "metadata": { "annotations": { WAITED_FOR: services } } });
    cluster.patch(&nodes, NODE, waiting("default/other,elsewhere/web,default/web")).await;
    cluster
        .until::<Deployment>("default", "web", |web| {
            web.status.as_ref().and_then(|status| status.ready_replicas) == Some(1)
        })
        .await;
    let events = cluster.until_event("SuccessfulRescale").await;
    let said = events.iter().find(|event| event.reason.as_deref() == Some("SuccessfulRescale")).unwrap();
    assert_eq!(said.message.as_deref(), Some("New size: 1; reason: a connection to Service web waits"));

    cluster.patch(&api, "web", json!({ "spec": { "minReplicas": 1 } })).await;
    cluster.until_slice("web", |slice| !is_marked(slice)).await;
    assert!(!is_marked(&*cluster.until_slice("other", |_| true).await), "no autoscaler is behind it");
    cluster.stop().await;
}
