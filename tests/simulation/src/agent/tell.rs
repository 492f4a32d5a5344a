//! What an agent tells the API: its node, and its Pods as they are.

use http::Method;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt as _;
use serde_json::json;

use super::{AGAIN, Agent, Step, says};
use crate::rest::{code, send};

impl Agent {
    /// Writes what is so; again later if that fails.
    pub(super) async fn report(&mut self, uid: &str) {
        let Some(tracked) = self.tracked.get(uid) else { return };
        let ready = if tracked.ready { "True" } else { "False" };
        let now = second(Timestamp::now());
        let address = format!("10.128.0.{}", 1 + uid.bytes().map(u64::from).sum::<u64>() % 250);
        let code = i32::from(tracked.phase == "Failed");
        let state = match tracked.phase {
            "Pending" => json!({"waiting": {"reason": "ContainerCreating"}}),
            "Running" => json!({"running": {"startedAt": now}}),
            _ => json!({"terminated": {"exitCode": code, "reason": "Completed", "startedAt": now, "finishedAt": now}}),
        };
        let condition = |kind: &str| json!({"type": kind, "status": ready, "lastTransitionTime": now});
        let status = json!({"metadata": {"uid": uid}, "status": {
            "phase": tracked.phase,
            "podIP": address, "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": [condition("Ready"), condition("ContainersReady")],
            "containerStatuses": [{
                "name": "main", "image": "app", "imageID": "app", "ready": tracked.ready, "restartCount": 0, "state": state,
            }],
        }});
        let path = format!("{}/status", path(&tracked.pod));
        if let Err(error) = send(&self.config.client, Method::PATCH, &path, Some(&status)).await
            && code_of(&error) != 404
        {
            self.later(uid, Step::Report, AGAIN);
        }
    }

    /// Takes a Pod that has ended out of the API.
    pub(super) async fn remove(&mut self, uid: &str) {
        let Some(tracked) = self.tracked.get(uid) else { return };
        if says(&tracked.pod) != (tracked.phase, tracked.ready) {
            // How it ended must be known before it goes.
            self.report(uid).await;
            return self.later(uid, Step::Remove, AGAIN);
        }
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        let gone = send(&self.config.client, Method::DELETE, &path(&tracked.pod), Some(&options)).await;
        if let Err(error) = gone
            && code_of(&error) != 404
        {
            self.later(uid, Step::Remove, AGAIN);
        }
    }

    /// Renews the lease, and says that the node is there if the API says otherwise.
    pub(super) async fn beat(&self) -> kube::Result<()> {
        let (client, node) = (&self.config.client, &self.config.node);
        let known = match send(client, Method::GET, &format!("/api/v1/nodes/{node}"), None).await {
            Err(error) if code_of(&error) == 404 => {
                let new = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}}});
                send(client, Method::POST, "/api/v1/nodes", Some(&new)).await?
            }
            known => known?,
        };
        let now = second(Timestamp::now());
        if !crate::tree::has(&known, "Ready") {
            let room = json!({"cpu": "8", "memory": "16Gi", "pods": "110"});
            let ready = json!({"status": {
                "capacity": room, "allocatable": room,
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                    "lastHeartbeatTime": now, "lastTransitionTime": now}],
            }});
            send(client, Method::PATCH, &format!("/api/v1/nodes/{node}/status"), Some(&ready)).await?;
        }
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let renewed = json!({"spec": {"holderIdentity": node, "leaseDurationSeconds": 40,
            "renewTime": format!("{}.000000Z", now.trim_end_matches('Z'))}});
        match send(client, Method::PATCH, &format!("{leases}/{node}"), Some(&renewed)).await {
            Err(error) if code_of(&error) == 404 => {
                let mut new = renewed;
                new["metadata"] = json!({"name": node});
                send(client, Method::POST, leases, Some(&new)).await.map(drop)
            }
            renewed => renewed.map(drop),
        }
    }
}

fn code_of(error: &kube::Error) -> u16 {
    code(error).unwrap_or(0)
}

fn path(pod: &Pod) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// A time as the API has it.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
