//! A HorizontalPodAutoscaler on an external metric: an extension API server is registered as an adapter's chart does it, seen by
//! kubectl, asked for its metric, and missed when it has gone.
#![allow(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use serde_json::Value;
use wherry_test::{Cluster, Extension, image_of, is_root};

use crate::setting::{KINDS, LONG, cluster, deployment, rolled_out};

const NAME: &str = "v1beta1.external.metrics.k8s.io";
const METRIC: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_length";

fn manifests(name: &str, image: &str) -> String {
    format!(
        "{deployment}apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: 1
  maxReplicas: 2
  metrics: [{{type: External, external: {{metric: {{name: queue_length}}, target: {{type: AverageValue, averageValue: 10}}}}}}]
",
        deployment = deployment(name, image),
    )
}

fn authority(cluster: &Cluster) -> anyhow::Result<String> {
    let map = cluster.kubectl().json("get cm -n kube-system extension-apiserver-authentication")?;
    Ok(map["data"]["requestheader-client-ca-file"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_external_metric_scales_both_kinds() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    let kubectl = cluster.kubectl();
    ensure!(kubectl.ok("get apiservices v1.apps --no-headers")?.contains(" Local "), "what is served here is shown");
    // Only who shows the certificate of the API server is answered.
    let extension = Extension::start("adapter.default.svc", &authority(&cluster)?)?;
    extension.set(100);
    for manifest in extension.manifests("default", "adapter") {
        kubectl.apply(&manifest.to_string())?;
    }
    kubectl.wait(&format!("--for=condition=Available apiservice/{NAME}"), LONG)?;
    let row = kubectl.ok(&format!("get apiservices {NAME}"))?;
    let words: Vec<&str> = row.split_whitespace().collect();
    ensure!(words[..7] == ["NAME", "SERVICE", "AVAILABLE", "AGE", NAME, "default/adapter", "True"], "{row}");
    let resources = kubectl.ok("api-resources --api-group=external.metrics.k8s.io --no-headers")?;
    ensure!(resources.contains("externalmetrics") && resources.contains("ExternalMetricValueList"), "{resources}");
    let told: Value = serde_json::from_str(&kubectl.ok(&format!("get --raw {METRIC}"))?)?;
    ensure!(told["items"][0]["value"] == "100", "{told}");
    ensure!(extension.heard().iter().any(|head| head.contains("x-remote-user: kubernetes-admin\r\n")), "who asked");

    for (name, image) in KINDS {
        kubectl.apply(&manifests(name, image))?;
    }
    for (name, _) in KINDS {
        kubectl.wait(&format!("--for=jsonpath={{.spec.replicas}}=2 deployment/{name}"), LONG)?;
        rolled_out(&cluster, &format!("deployment/{name}"))?;
    }
    let account = "x-remote-user: system:serviceaccount:kube-system:horizontal-pod-autoscaler\r\n";
    ensure!(extension.heard().iter().any(|head| head.contains(account)), "the autoscaler asks by its own account");

    drop(extension);
    kubectl.wait(&format!("--for=condition=Available=False apiservice/{NAME}"), LONG)?;
    ensure!(kubectl.ok(&format!("get apiservice {NAME}"))?.contains("False (FailedDiscoveryCheck)"), "it has gone");
    let refused = kubectl.run(&format!("get --raw {METRIC}"))?;
    ensure!(!refused.success && refused.stderr.contains("ServiceUnavailable"), "{}", refused.stderr);
    kubectl.ok(&format!("delete apiservice {NAME}"))?;
    in_a_pod(&cluster)
}

/// openssl in a container: another TLS than ours says whether our certificate is good, through the Pod's network.
fn in_a_pod(cluster: &Cluster) -> anyhow::Result<()> {
    let (kubectl, dir) = (cluster.kubectl(), cluster.scratch());
    let image = "samples.wherry.dev/openssl:1";
    cluster.load(&image_of("openssl", "/usr/bin/openssl", &[("/usr/bin/openssl", "/usr/bin/openssl")])?, image)?;
    let (key, certificate) = (dir.join("tls.key"), dir.join("tls.crt"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=page",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let tls = format!("create secret tls page --key={} --cert={}", key.display(), certificate.display());
    kubectl.ok(&tls)?;
    std::fs::write(dir.join("ca.crt"), authority(cluster)?)?;
    kubectl.ok(&format!("create configmap page --from-file={}", dir.join("ca.crt").display()))?;
    kubectl.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: page, labels: {{app: page}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: page
      image: {image}
      imagePullPolicy: IfNotPresent
      args: [s_server, -accept, '8443', -www, -cert, /tls/tls.crt, -key, /tls/tls.key, -CAfile, /ca/ca.crt, -Verify, '2', -verify_return_error]
      ports: [{{name: https, containerPort: 8443}}]
      volumeMounts: [{{name: tls, mountPath: /tls}}, {{name: ca, mountPath: /ca}}]
  volumes: [{{name: tls, secret: {{secretName: page}}}}, {{name: ca, configMap: {{name: page}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: page}}
spec: {{selector: {{app: page}}, ports: [{{name: https, port: 443, targetPort: https}}]}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.page.example.com}}
spec:
  group: page.example.com
  version: v1
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
  service: {{namespace: default, name: page}}
"
    ))?;
    kubectl.wait("--for=condition=Available apiservice/v1.page.example.com", LONG)?;
    let page = kubectl.ok("get --raw /apis/page.example.com/v1/pages")?;
    ensure!(page.contains("CN = front-proxy-client") || page.contains("CN=front-proxy-client"), "{page}");
    let pod = kubectl.ok("delete pod page --now --wait=true")?;
    ensure!(pod.contains("deleted"), "{pod}");
    kubectl.wait("--for=jsonpath={.status.conditions[0].reason}=MissingEndpoints apiservice/v1.page.example.com", LONG)
}
