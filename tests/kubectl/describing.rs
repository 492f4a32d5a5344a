//! `describe`, which reads objects, their events and what belongs to them.

use anyhow::Result;

use crate::scene::{ECHO, Scene, deployment};

/// Of each kind that this cluster runs, and of both kinds of container.
pub(crate) fn everything(s: &Scene) -> Result<()> {
    for ((kind, image), runtime) in ECHO.into_iter().zip(["wasmtime://", "containerd://"]) {
        s.kubectl.apply(&deployment(kind, image, 1))?;
        s.kubectl.ok(&format!("expose deployment {kind} --port 80 --target-port http --type NodePort"))?;
        s.wait(&format!("--for=condition=Available deployment/{kind}"))?;
        s.says(
            &format!("describe pods -l app={kind}"),
            &[
                &format!("Namespace:        {}\n", s.namespace),
                "Service Account:  default",
                "Status:           Running",
                &format!("Controlled By:  ReplicaSet/{kind}-"),
                &format!("Container ID:   {runtime}"),
                &format!("Image:          {image}\n"),
                "Image ID:       samples.wherry.dev/echo@sha256:",
                "State:          Running\n",
                "Ready:          True\n    Restart Count:  0\n",
                "http-get http://:http/ delay=0s timeout=1s period=1s",
                "PodScheduled                True",
                "QoS Class:                   Burstable",
                "Successfully assigned",
                "Container started",
            ],
        )?;
        s.says(
            &format!("describe deployment {kind}"),
            &[
                "Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
                "RollingUpdateStrategy:  25% max unavailable, 25% max surge",
                "Available      True    MinimumReplicasAvailable",
                "Progressing    True    NewReplicaSetAvailable",
                &format!("NewReplicaSet:   {kind}-"),
                "(1/1 replicas created)",
                "ScalingReplicaSet",
            ],
        )?;
        s.says(
            &format!("describe service {kind}"),
            &[
                "Type:                     NodePort",
                "IP Family Policy:         SingleStack",
                ":8080\n",
                "Session Affinity:         None",
            ],
        )?;
    }
    s.says(
        "describe rs -l app=wasm",
        &["Controlled By:  Deployment/wasm", "1 Running / 0 Waiting / 0 Succeeded / 0 Failed"],
    )?;
    s.says(
        "describe nodes",
        &[
            "Name:               wherry-0",
            "kubernetes.io/hostname=wherry-0",
            "KubeletReady",
            "Taints:             <none>",
            "PodCIDR:                      10.128.0.0/18",
            "Allocated resources:",
            &s.namespace,
        ],
    )?;
    s.says(
        &format!("describe namespace {}", s.namespace),
        &["Status:       Active", "No resource quota.", "No LimitRange resource."],
    )?;
    s.kubectl.ok("create configmap settings --from-literal color=blue")?;
    s.says("describe configmap settings", &["Data\n====\ncolor:\n----\nblue"])?;
    s.kubectl.ok("create secret generic pass --from-literal word=hidden")?;
    let secret = s.says("describe secret pass", &["Type:  Opaque", "word:  6 bytes"])?;
    anyhow::ensure!(!secret.contains("hidden"), "{secret}");
    s.says("describe serviceaccount default", &["Name:                default"])?;
    s.says("describe endpointslices", &["AddressType:", "IPv4", "TargetRef:  Pod/"])?;
    s.says("describe priorityclass system-node-critical", &["2000001000"])?;
    s.refuses("describe pod none", &["pods \"none\" not found"])
}
