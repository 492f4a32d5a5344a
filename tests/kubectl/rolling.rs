//! `rollout`, `set`, `scale`, `wait`.

use anyhow::{Result, ensure};

use crate::scene::{ECHO, HELLO, Scene, deployment};

const STATUS: &str = "rollout status deployment/web --timeout=60s";
const DONE: &str = "deployment \"web\" successfully rolled out\n";

/// From Wasm to a container, back, again, with pauses.
pub(crate) fn out_and_back(s: &Scene) -> Result<()> {
    let images =
        "get pods -l app=web --field-selector=status.phase=Running -o jsonpath={.items[*].spec.containers[0].image}";
    s.kubectl.apply(&deployment("web", ECHO[0].1, 2))?;
    s.says(STATUS, &[DONE])?;
    s.prints(&format!("set image deployment/web c={}", ECHO[1].1), "deployment.apps/web image updated\n")?;
    s.says(STATUS, &[DONE])?;
    s.says("rollout history deployment/web", &["REVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n"])?;
    s.says("rollout history deployment/web --revision=1", &["with revision #1", ECHO[0].1])?;
    s.says("rollout history deployment/web --revision=2", &["with revision #2", ECHO[1].1])?;
    s.prints("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", ECHO[1].1)?;
    s.says("rollout undo deployment/web", &["deployment.apps/web rolled back"])?;
    s.says(STATUS, &[DONE])?;
    s.prints("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", ECHO[0].1)?;
    s.says("rollout history deployment/web", &["\n2         <none>\n3         <none>\n"])?;
    s.says("rollout undo deployment/web --to-revision=2", &["rolled back"])?;
    s.says(STATUS, &[DONE])?;
    s.says(images, &[ECHO[1].1])?;
    s.refuses("rollout undo deployment/web --to-revision=99", &["unable to find specified revision 99 in history"])?;

    s.prints("rollout pause deployment/web", "deployment.apps/web paused\n")?;
    s.refuses("rollout pause deployment/web", &["deployments.apps \"web\" is already paused"])?;
    s.prints("get deployment web -o jsonpath={.spec.paused}", "true")?;
    s.kubectl.ok(&format!("set image deployment/web c={HELLO}"))?;
    let generation = s.kubectl.ok("get deployment web -o jsonpath={.metadata.generation}")?;
    s.wait(&format!("--for=jsonpath={{.status.observedGeneration}}={generation} deployment/web"))?;
    s.refuses("rollout restart deployment/web", &["can't restart paused deployment"])?;
    s.refuses("rollout undo deployment/web", &["cannot rollback a paused deployment"])?;
    let sets = s.kubectl.ok("get rs -l app=web -o name")?;
    ensure!(sets.lines().count() == 2, "no new ReplicaSet while paused: {sets}");
    s.prints("rollout resume deployment/web", "deployment.apps/web resumed\n")?;
    s.says(STATUS, &[DONE])?;
    s.refuses("rollout resume deployment/web", &["deployments.apps \"web\" is not paused"])?;
    let before = s.kubectl.ok("get pods -l app=web -o jsonpath={.items[*].metadata.uid}")?;
    s.prints("rollout restart deployment/web", "deployment.apps/web restarted\n")?;
    s.says(STATUS, &[DONE])?;
    s.says(
        "get deployment web -o jsonpath={.spec.template.metadata.annotations}",
        &["kubectl.kubernetes.io/restartedAt"],
    )?;
    let after = s.kubectl.ok("get pods -l app=web -o jsonpath={.items[*].metadata.uid}")?;
    ensure!(before.split(' ').all(|uid| !after.contains(uid)), "{before} {after}");
    // A rollout that cannot end is told of.
    s.kubectl.ok("set image deployment/web c=samples.wherry.dev/none:1")?;
    s.refuses("rollout status deployment/web --timeout=1s", &["timed out waiting for the condition"])
}

/// Scale and the words of `set`.
pub(crate) fn set_and_scale(s: &Scene) -> Result<()> {
    s.kubectl.apply(&deployment("web", HELLO, 1))?;
    s.prints("scale deployment web --replicas=3", "deployment.apps/web scaled\n")?;
    s.wait("--for=jsonpath={.status.readyReplicas}=3 deployment/web")?;
    s.refuses("scale deployment web --replicas=1 --current-replicas=9", &["xpected replicas to be 9, was 3"])?;
    s.prints("scale deployment/web --replicas=1 --current-replicas=3", "deployment.apps/web scaled\n")?;
    s.wait("--for=jsonpath={.status.replicas}=1 deployment/web")?;
    s.refuses("scale deployment none --replicas=1", &["deployments.apps \"none\" not found"])?;
    s.refuses("scale deployment web --replicas=-1", &["replicas"])?;

    s.prints("set env deployment/web COLOR=blue SIZE=1", "deployment.apps/web env updated\n")?;
    s.says("set env deployment/web --list", &["COLOR=blue\nSIZE=1\n"])?;
    s.prints("set env deployment/web SIZE-", "deployment.apps/web env updated\n")?;
    s.prints(
        "get deployment web -o jsonpath={.spec.template.spec.containers[0].env}",
        r#"[{"name":"COLOR","value":"blue"}]"#,
    )?;
    s.kubectl.ok("create configmap settings --from-literal=shape=round")?;
    s.kubectl.ok("set env deployment/web --from=configmap/settings")?;
    s.prints(
        "set resources deployment/web --limits=cpu=100m,memory=32Mi --requests=cpu=50m",
        "deployment.apps/web resource requirements updated\n",
    )?;
    s.prints(
        "get deployment web -o jsonpath={.spec.template.spec.containers[0].resources}",
        r#"{"limits":{"cpu":"100m","memory":"32Mi"},"requests":{"cpu":"50m","memory":"8Mi"}}"#,
    )?;
    s.kubectl.ok("create serviceaccount robot")?;
    s.prints("set serviceaccount deployment web robot", "deployment.apps/web serviceaccount updated\n")?;
    s.says(STATUS, &[DONE])?;
    s.prints(
        "get pods -l app=web --field-selector=status.phase=Running -o jsonpath={.items[0].spec.serviceAccountName}",
        "robot",
    )
    .or_else(|_| s.says("get pods -o yaml", &["serviceAccountName: robot"]).map(drop))?;
    s.kubectl.ok("expose deployment web --port=80")?;
    s.prints("set selector service web app=other", "service/web selector updated\n")?;
    s.prints("get service web -o jsonpath={.spec.selector}", r#"{"app":"other"}"#)?;

    s.says("wait --for=delete pod/none --timeout=5s", &[])
        .or_else(|_| s.refuses("wait --for=delete pod/none --timeout=5s", &["not found"]).map(|()| String::new()))?;
    s.refuses(
        "wait --for=condition=Nothing deployment/web --timeout=1s",
        &["timed out waiting for the condition on deployments/web"],
    )
}
