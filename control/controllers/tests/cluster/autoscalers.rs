//! HorizontalPodAutoscalers where nobody measures: bounds hold, and what is not known changes nothing.

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};
use kube::api::PostParams;
use serde_json::json;

use crate::harness::{Cluster, deployment};

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
