//! Unmodified kubectl, where it is installed.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::harness::Running;

async fn kubectl(program: &str, config: &Path, arguments: &str, input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments.split_whitespace())
        .env("KUBECONFIG", config)
        .env("HOME", config.parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap()
}

/// What kubectl printed, both streams; it must have succeeded.
#[track_caller]
fn printed(arguments: &str, output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "kubectl {arguments}: {text}");
    text
}

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: docker.io/library/nginx:1
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
"#;

/// The kubectl on the machine, and those that `WHERRY_KUBECTLS` names (separated by colons).
#[tokio::test(flavor = "multi_thread")]
async fn the_daily_commands() {
    let more = std::env::var("WHERRY_KUBECTLS").unwrap_or_default();
    for program in std::iter::once("kubectl").chain(more.split(':').filter(|p| !p.is_empty())) {
        if Command::new(program).args(["version", "--client"]).output().await.is_err() {
            eprintln!("{program} is not installed: nothing to test");
            continue;
        }
        daily_commands(program).await;
    }
}

async fn daily_commands(program: &str) {
    let running = Running::start().await;
    let config = running.admin_file();
    // command, what it reads, parts of what it prints
    let table: &[(&str, &str, &[&str])] = &[
        ("version", "", &["Server Version: v1.36"]),
        ("api-resources", "", &["deployments", "deploy", "apps/v1", "pods", "po"]),
        ("api-versions", "", &["apps/v1", "batch/v1"]),
        ("get namespaces", "", &["NAME", "STATUS", "default", "Active", "kube-system"]),
        ("apply -f -", MANIFEST, &["deployment.apps/web created", "service/web created"]),
        ("apply -f -", MANIFEST, &["deployment.apps/web unchanged", "service/web unchanged"]),
        ("apply --dry-run=server -f -", MANIFEST, &["(server dry run)"]),
        ("diff -f -", MANIFEST, &[]),
        ("get deployments", "", &["READY", "UP-TO-DATE", "web", "0/2"]),
        ("get deploy,svc -o wide", "", &["CLUSTER-IP", "SELECTOR", "app=web", "nginx"]),
        ("get deploy web -o jsonpath={.spec.replicas}", "", &["2"]),
        ("get deploy web -o name", "", &["deployment.apps/web"]),
        ("get deploy web -o yaml", "", &["kind: Deployment", "progressDeadlineSeconds: 600"]),
        ("get all -A", "", &["service/kubernetes", "10.96.0.1"]),
        ("scale deploy web --replicas=3", "", &["scaled"]),
        ("set image deploy/web web=docker.io/library/nginx:2", "", &["image updated"]),
        ("label deploy web tier=front", "", &["labeled"]),
        ("get deploy -l tier=front -o name", "", &["deployment.apps/web"]),
        ("annotate deploy web note=x", "", &["annotated"]),
        ("patch deploy web -p {\"spec\":{\"replicas\":1}}", "", &["patched"]),
        ("rollout pause deploy/web", "", &["paused"]),
        ("describe deploy web", "", &["Pod Template:", "nginx:2", "tier=front"]),
        ("describe svc web", "", &["Selector:", "app=web"]),
        ("create configmap settings --from-literal=a=b", "", &["created"]),
        ("get cm settings -o jsonpath={.data.a}", "", &["b"]),
        ("create namespace team", "", &["created"]),
        ("create secret generic key --from-literal=k=v -n team", "", &["created"]),
        ("get secrets -n team", "", &["Opaque", "key"]),
        ("run one --image=docker.io/library/busybox:1 --restart=Never", "", &["pod/one created"]),
        ("get pods --field-selector=status.phase=Pending", "", &["one", "Pending"]),
        ("expose pod one --port=80 --name=one", "", &["exposed"]),
        ("auth can-i create pods", "", &["yes"]),
        ("auth can-i create pods --as=jane", "", &["no"]),
        ("auth whoami --as=jane --as-group=dev", "", &["jane", "dev"]),
        ("auth whoami", "", &["kubernetes-admin", "system:masters"]),
        ("explain deployment.spec.strategy", "", &["rollingUpdate", "Deployment"]),
        (
            "replace -f -",
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"settings\"},\"data\":{\"a\":\"c\"}}",
            &["replaced"],
        ),
        ("wait --for=delete cm/none --timeout=5s", "", &[]),
        ("delete pod one", "", &["deleted"]),
        ("delete -f -", MANIFEST, &["deployment.apps \"web\" deleted"]),
        ("get deploy", "", &["No resources found"]),
    ];
    for (arguments, input, parts) in table {
        let output = kubectl(program, &config, arguments, input).await;
        // `can-i` answers no by its exit code too.
        let text = if parts == &["no"] {
            String::from_utf8_lossy(&output.stdout).into_owned()
        } else {
            printed(arguments, &output)
        };
        for part in *parts {
            assert!(text.contains(part), "kubectl {arguments}: no {part:?} in\n{text}");
        }
    }
    let bad = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nbogus: 1\n";
    let refused = kubectl(program, &config, "apply -f -", bad).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown field \"bogus\""), "{refused:?}");
    let missing = kubectl(program, &config, "get pod nobody", "").await;
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("Error from server (NotFound): pods \"nobody\" not found")
    );
    running.stop().await;
}
