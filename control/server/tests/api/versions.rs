//! Objects that are served in several versions and stored in one.

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn an_autoscaler_reads_in_both_versions() {
    let api = Api::new().await;
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let old = json!({
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 60,
        },
    });
    let made = api.post(&path("v1"), &old).await.expect(201);
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 60);
    let new = api.get(&format!("{}/h", path("v2"))).await.expect(200);
    assert_eq!(new["apiVersion"], "autoscaling/v2");
    let target = &new["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(target["averageUtilization"], 60);

    let mut watch = api.watch(&format!("{}?watch=1", path("v1")), &[]).await;
    assert_eq!(watch.next().await.unwrap()["object"]["apiVersion"], "autoscaling/v1");
    let patch = json!({"spec": {"maxReplicas": 9}});
    let patched = api.merge(&format!("{}/h", path("v2")), &patch).await.expect(200);
    assert_eq!(patched["spec"]["maxReplicas"], 9);
    let seen = watch.next().await.unwrap();
    assert_eq!(seen["object"]["spec"]["maxReplicas"], 9);
    assert_eq!(seen["object"]["spec"]["targetCPUUtilizationPercentage"], 60);
    let list = api.get(&path("v1")).await.expect(200);
    assert_eq!(list["items"][0]["apiVersion"], "autoscaling/v1");
    api.delete(&format!("{}/h", path("v1")), None).await.expect(200);
    assert_eq!(api.get(&format!("{}/h", path("v2"))).await.code, 404);
}

#[tokio::test]
async fn an_event_reads_in_both_groups() {
    let api = Api::new().await;
    let event = json!({
        "metadata": {"name": "e"}, "reason": "Started", "message": "it runs", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u"},
        "source": {"component": "kubelet"}, "count": 2,
    });
    let core = "/api/v1/namespaces/default/events";
    api.post(core, &event).await.expect(201);
    let modern = api.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!(modern["apiVersion"], "events.k8s.io/v1");
    assert_eq!((&modern["note"], &modern["regarding"]["name"]), (&json!("it runs"), &json!("p")));
    let of_pod = "fieldSelector=involvedObject.uid%3Du,involvedObject.name%3Dp";
    let found = api.get(&format!("{core}?{of_pod}")).await.expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_lease_is_made_by_put_too() {
    let api = Api::new().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    let made = api.put(path, &lease).await.expect(201);
    // Once it is there, a replacement has to say what it replaces.
    assert_eq!(api.put(path, &lease).await.expect(422)["reason"], "Invalid");
    let mut renewed = made.clone();
    renewed["spec"]["holderIdentity"] = json!("b");
    assert_eq!(api.put(path, &renewed).await.expect(200)["spec"]["holderIdentity"], "b");
    assert_eq!(api.put(path, &renewed).await.code, 409);
}
