//! `get` in its forms.

use anyhow::{Result, ensure};
use serde_json::Value;
use wherry_test::PATIENCE;

use crate::scene::{ECHO, HELLO, Scene, deployment, row};

/// Tables, documents, templates and selections, over Pods of both kinds.
pub(crate) fn forms(s: &Scene) -> Result<()> {
    for (kind, image) in ECHO {
        s.kubectl.apply(&deployment(kind, image, 1))?;
        s.kubectl.ok(&format!("expose deployment {kind} --port 80 --target-port http"))?;
        s.wait(&format!("--for=condition=Available deployment/{kind}"))?;
    }
    let all = s.says(
        "get all",
        &["pod/wasm-", "pod/container-", "service/wasm", "deployment.apps/container", "replicaset.apps/wasm-"],
    )?;
    ensure!(all.contains("NAME  ") && !all.contains("configmap"), "{all}");
    let table = s.kubectl.ok("get deployments")?;
    ensure!(
        table.lines().next().unwrap().split_whitespace().eq(["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]),
        "{table}"
    );
    ensure!(row(&table, "wasm")?[1..4] == ["1/1", "1", "1"], "{table}");
    let wide = s.kubectl.ok("get deployments -o wide")?;
    ensure!(row(&wide, "container")?[5..] == ["c", ECHO[1].1, "app=container"], "{wide}");
    let pods = s.kubectl.ok("get pods -o wide")?;
    ensure!(
        pods.lines().next().unwrap().contains("IP  ") && pods.contains("NOMINATED NODE   READINESS GATES"),
        "{pods}"
    );
    for line in pods.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(
            words[1..4] == ["1/1", "Running", "0"] && words[5].starts_with("10.") && words[7..] == ["<none>", "<none>"],
            "{line}"
        );
    }
    let services = s.kubectl.ok("get svc")?;
    ensure!(
        row(&services, "wasm")?[1] == "ClusterIP" && row(&services, "wasm")?[3..5] == ["<none>", "80/TCP"],
        "{services}"
    );

    let object: Value = s.kubectl.json("get deployment wasm")?;
    ensure!(
        object["kind"] == "Deployment" && object["apiVersion"] == "apps/v1" && object["status"]["readyReplicas"] == 1,
        "{object}"
    );
    let list: Value = s.kubectl.json("get pods")?;
    ensure!(
        list["kind"] == "List"
            && list["items"].as_array().map(Vec::len) == Some(2)
            && list["items"][0]["kind"] == "Pod",
        "{list}"
    );
    s.says(
        "get deployment wasm -o yaml",
        &["apiVersion: apps/v1\nkind: Deployment\n", "\n  name: wasm\n", "maxSurge: 25%"],
    )?;
    s.prints("get deployment -o name", "deployment.apps/container\ndeployment.apps/wasm\n")?;
    s.prints(
        "get deploy wasm container -o jsonpath={range.items[*]}{.metadata.name}={.spec.replicas};{end}",
        "wasm=1;container=1;",
    )?;
    s.prints("get deploy -o jsonpath={.items[*].metadata.name} --sort-by=.metadata.name", "container wasm")?;
    ensure!(s.arguments(&["get", "deploy", "-o", "go-template={{len .items}}"])? == "2");
    s.prints("get deploy wasm -o custom-columns=N:.metadata.name,R:.spec.replicas --no-headers", "wasm   1\n")?;
    s.says("get pods --show-labels -L app", &["APP", "LABELS", "app=wasm,pod-template-hash="])?;

    ensure!(s.kubectl.ok("get pods -l app=wasm -o name")?.lines().count() == 1);
    ensure!(
        s.arguments(&["get", "pods", "-l", "app in (wasm, container),app!=wasm,!none", "-o", "name"])?
            .starts_with("pod/container-")
    );
    s.says("get pods -l app=nothing", &["No resources found in"])?;
    ensure!(
        s.kubectl.ok("get pods --field-selector status.phase=Running,spec.nodeName!=x -o name")?.lines().count() == 2
    );
    s.says("get pods --field-selector=metadata.name=x", &["No resources found in"])?;
    s.says("get pods -A", &["NAMESPACE", &s.namespace])?;
    s.says("get services --all-namespaces", &["default", "kubernetes", "10.96.0.1", "443/TCP"])?;
    ensure!(s.kubectl.ok("get deployments --chunk-size=1 -o name")?.lines().count() == 2);
    ensure!(s.kubectl.ok("get rs,svc,endpoints,endpointslices -o name")?.lines().count() == 8);
    let slices = s.kubectl.ok("get endpointslices")?;
    ensure!(
        slices.lines().skip(1).all(|line| line.contains("IPv4") && line.contains("8080") && line.contains("10.")),
        "{slices}"
    );
    s.says("get deployments.v1.apps/wasm --show-kind", &["deployment.apps/wasm"])?;
    s.says(
        &format!("get --raw /apis/apps/v1/namespaces/{}/deployments/wasm", s.namespace),
        &["\"kind\":\"Deployment\""],
    )?;
    s.says("get pod none --ignore-not-found", &[])?;
    s.says(
        "events --types=Normal --for deployment/wasm",
        &["ScalingReplicaSet", "Deployment/wasm", "Scaled up replica set wasm-"],
    )?;
    s.says(
        "get events --field-selector involvedObject.kind=Pod,reason=Scheduled",
        &["Scheduled", "Successfully assigned"],
    )?;
    Ok(())
}

/// `get -w`: what is there, then what happens to it.
pub(crate) fn watches(s: &Scene) -> Result<()> {
    s.kubectl.apply(&deployment("web", HELLO, 1))?;
    let mut pods = s.start("get pods -w --no-headers")?;
    pods.wait_for_line(PATIENCE, |line| line.contains("1/1") && line.contains("Running"))?;
    let mut names = s.start("get deployment web -w -o jsonpath={.metadata.name}={.spec.replicas}{\"\\n\"}")?;
    names.wait_for_line(PATIENCE, |line| line.contains("web=1"))?;
    let mut events = s.start("get configmaps -w --output-watch-events")?;
    events.wait_for_line(PATIENCE, |line| line.contains("ADDED") && line.contains("kube-root-ca.crt"))?;
    s.kubectl.ok("scale deployment web --replicas 0")?;
    names.wait_for_line(PATIENCE, |line| line.contains("web=0"))?;
    pods.wait_for_line(PATIENCE, |line| line.contains("Terminating"))?;
    s.kubectl.ok("create configmap one --from-literal a=b")?;
    s.kubectl.ok("label configmap one a=b")?;
    s.kubectl.ok("delete configmap one")?;
    events.wait_for_line(PATIENCE, |line| line.contains("DELETED") && line.contains(" one "))?;
    Ok(())
}
