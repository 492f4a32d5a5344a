//! Identities end to end: a Pod of either kind finds its service account's token where in-cluster clients look, and the API
//! knows it by that; tokens and certificates are had by kubectl.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use wherry_test::{Cluster, Kubectl, Options, echo_image, get, image_of, is_root, sample};

const LONG: Duration = Duration::from_secs(85);
const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn pods_and_people_are_who_they_are() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    let kubectl = cluster.kubectl();
    kubectl.ok("create serviceaccount robot")?;
    for (kind, file) in [("wasm", sample("echo")), ("container", echo_image()?)] {
        cluster.load(&file, &format!("samples.wherry.dev/echo:{kind}"))?;
        a_pod_finds_its_token(&cluster, kind).with_context(|| kind)?;
    }
    an_in_cluster_client_is_answered(&cluster)?;
    kubectl_makes_tokens(&cluster)?;
    kubectl_approves_certificates(&cluster)
}

fn a_pod_finds_its_token(cluster: &Cluster, kind: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.apply(&format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {kind}, labels: {{app: {kind}}}}}
spec:
  serviceAccountName: robot
  containers:
    - name: echo
      image: samples.wherry.dev/echo:{kind}
      imagePullPolicy: IfNotPresent
      ports: [{{name: http, containerPort: 8080}}]
      readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {kind}}}
spec: {{type: NodePort, selector: {{app: {kind}}}, ports: [{{name: http, port: 80, targetPort: http}}]}}
"
    ))?;
    kubectl.wait(&format!("--for=condition=Ready pod/{kind}"), LONG)?;
    let address = cluster.open_url(kind)?;
    let ask = |path: &str| -> anyhow::Result<String> {
        let answer = get(&address, path)?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body);
        Ok(answer.body)
    };
    let read = |file: &str| ask(&format!("/read?path={PLACE}/{file}"));
    assert_eq!(read("namespace")?, "default");
    let config = kubectl.json("get configmap kube-root-ca.crt")?;
    assert_eq!(Some(read("ca.crt")?.as_str()), config["data"]["ca.crt"].as_str());
    let service = kubectl.ok("get service kubernetes -o jsonpath={.spec.clusterIP}")?;
    assert_eq!(ask("/env?name=KUBERNETES_SERVICE_HOST")?.trim(), service);

    let user = whoami(cluster, read("token")?.trim())?;
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:robot"));
    let pod = kubectl.json(&format!("get pod {kind}"))?;
    let extra = user.extra.unwrap_or_default();
    let said = |key: &str| extra.get(&format!("authentication.kubernetes.io/{key}")).map(|values| values[0].as_str());
    assert_eq!(said("pod-name"), Some(kind));
    assert_eq!(said("pod-uid"), pod["metadata"]["uid"].as_str());
    assert_eq!(said("node-name"), pod["spec"]["nodeName"].as_str());
    Ok(())
}

/// As in-cluster clients do: by the Service's name, with the root certificate and the token that are mounted.
fn an_in_cluster_client_is_answered(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let programs = [("/bin/busybox", "/usr/bin/busybox"), ("/bin/curl", "/usr/bin/curl")];
    cluster.load(&image_of("tools", "/bin/busybox", &programs)?, "tools:1")?;
    let script = format!(
        "/bin/curl -sS --fail --cacert {PLACE}/ca.crt -H \"Authorization: Bearer $(/bin/busybox cat {PLACE}/token)\" -H 'Content-Type: application/json' -d '{{}}' https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews"
    );
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "c", "image": "tools:1", "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/busybox", "sh", "-c", script],
            }],
        },
    });
    kubectl.apply(&pod.to_string())?;
    let ended = kubectl.wait("--for=jsonpath={.status.phase}=Succeeded pod/client", LONG);
    let log = kubectl.ok("logs client")?;
    ended.with_context(|| log.clone())?;
    let review: Value = serde_json::from_str(&log)?;
    assert_eq!(review["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    Ok(())
}

fn kubectl_makes_tokens(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let token = kubectl.ok("create token robot --duration=10m")?;
    let user = whoami(cluster, token.trim())?;
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:robot"));
    let short = kubectl.run("create token robot --duration=1m")?;
    assert!(short.stderr.contains("may not specify a duration less than 10 minutes"), "{}", short.stderr);
    Ok(())
}

fn kubectl_approves_certificates(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let scratch = cluster.scratch();
    let (key, request) = (scratch.join("jane.key"), scratch.join("jane.csr"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/O=dev/O=ops/CN=jane", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&request)
        .output()
        .context("start openssl")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let ask = |name: &str| -> anyhow::Result<()> {
        let csr = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {
                "request": base64::engine::general_purpose::STANDARD.encode(std::fs::read(&request)?),
                "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
            },
        });
        kubectl.apply(&csr.to_string()).map(drop)
    };
    ask("denied")?;
    kubectl.ok("certificate deny denied")?;
    assert!(kubectl.ok("get csr denied")?.contains("Denied"));
    ask("jane")?;
    kubectl.ok("certificate approve jane")?;
    kubectl.wait("--for=jsonpath={.status.certificate} csr/jane", LONG)?;
    let issued = kubectl.json("get csr jane")?;
    let certificate = issued["status"]["certificate"].as_str().context("no certificate")?;
    let certificate = base64::engine::general_purpose::STANDARD.decode(certificate)?;
    let user = review(cluster, |auth| {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        auth.client_certificate_data = Some(encode(&certificate));
        auth.client_key_data = Some(encode(&std::fs::read(&key).unwrap()).into());
    })?;
    assert_eq!(user.username.as_deref(), Some("jane"));
    assert_eq!(user.groups.unwrap_or_default(), ["dev", "ops", "system:authenticated"]);
    gone_after_all(&kubectl)
}

/// Requests can be deleted like anything else.
fn gone_after_all(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok("delete csr denied jane")?;
    ensure!(kubectl.ok("get csr -o name")?.is_empty());
    Ok(())
}

fn whoami(cluster: &Cluster, token: &str) -> anyhow::Result<UserInfo> {
    review(cluster, |auth| auth.token = Some(token.to_owned().into()))
}

/// Whom the API server takes a client with these credentials alone for.
fn review(cluster: &Cluster, credentials: impl Fn(&mut kube::config::AuthInfo)) -> anyhow::Result<UserInfo> {
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut file = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
        for named in &mut file.auth_infos {
            let mut auth = kube::config::AuthInfo::default();
            credentials(&mut auth);
            named.auth_info = Some(auth);
        }
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
        let reviews: Api<SelfSubjectReview> = Api::all(kube::Client::try_from(config)?);
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        review.status.and_then(|status| status.user_info).context("the review says nothing")
    })
}
