//! `delete` in its forms.

use anyhow::{Result, ensure};

use crate::scene::{ECHO, HELLO, Scene, TICKER, deployment};

/// What becomes of the dependents.
pub(crate) fn cascades(s: &Scene) -> Result<()> {
    for name in ["background", "foreground", "orphan"] {
        s.kubectl.apply(&deployment(name, HELLO, 1))?;
    }
    s.wait("--for=condition=Available deployment --all")?;
    for name in ["background", "foreground"] {
        s.says(
            &format!("delete deployment {name} --cascade={name} --timeout=60s"),
            &[&format!("deployment.apps \"{name}\" deleted")],
        )?;
        s.wait(&format!("--for=delete rs,pods -l app={name}"))?;
    }
    s.says("delete deployment orphan --cascade=orphan", &["deployment.apps \"orphan\" deleted"])?;
    s.prints("get rs -l app=orphan -o jsonpath={.items[*].status.readyReplicas}", "1")?;
    s.prints(
        "get rs -l app=orphan -o jsonpath={.items[*].metadata.ownerReferences}{.items[*].metadata.finalizers}",
        "",
    )?;
    // A Deployment of the same selector takes the orphan up again.
    let pod = s.kubectl.ok("get pods -l app=orphan -o name")?;
    s.kubectl.apply(&deployment("orphan", HELLO, 1))?;
    s.wait("--for=condition=Available deployment/orphan")?;
    ensure!(s.kubectl.ok("get pods -l app=orphan -o name")? == pod);
    s.says("delete rs -l app=orphan --wait=false", &["deleted"])?;
    s.kubectl.ok("delete deployment orphan")?;
    s.wait("--for=delete rs,pods -l app=orphan")?;

    for name in ["a", "b", "c"] {
        s.kubectl.ok(&format!("create configmap {name}"))?;
    }
    s.says("delete configmap a --dry-run=server", &["configmap \"a\" deleted", "(server dry run)"])?;
    s.says("delete configmap a b", &["configmap \"a\" deleted", "configmap \"b\" deleted"])?;
    s.refuses(
        "delete configmap a c",
        &["configmap \"c\" deleted", "Error from server (NotFound): configmaps \"a\" not found"],
    )?;
    s.says("delete configmap a --ignore-not-found", &[])?;
    s.kubectl.ok("create service clusterip one --tcp=80")?;
    s.says("delete services --all", &["service \"one\" deleted"])?;
    s.says("get services", &["No resources found"])?;
    // A finalizer keeps it until it is taken off.
    s.kubectl.ok("create configmap kept")?;
    s.kubectl.ok(r#"patch configmap kept -p {"metadata":{"finalizers":["example.com/keep"]}}"#)?;
    s.says("delete configmap kept --wait=false", &["configmap \"kept\" deleted"])?;
    s.says("get configmap kept -o jsonpath={.metadata.deletionTimestamp}", &["T"])?;
    s.kubectl.ok(r#"patch configmap kept --type=merge -p {"metadata":{"finalizers":null}}"#)?;
    s.refuses("get configmap kept", &["configmaps \"kept\" not found"])
}

/// Grace: waited for, shortened, not given.
pub(crate) fn grace(s: &Scene) -> Result<()> {
    for (kind, image) in ECHO.into_iter().chain([("ticker", TICKER)]) {
        for name in ["waited", "now", "forced"] {
            s.kubectl.ok(&format!("run {kind}-{name} --image={image} --image-pull-policy=IfNotPresent"))?;
        }
        s.wait("--for=condition=Ready pods --all")?;
        s.says(&format!("delete pod {kind}-waited"), &["deleted"])?;
        s.says(&format!("delete pod {kind}-now --now"), &["deleted"])?;
        s.says(
            &format!("delete pod {kind}-forced --force --grace-period=0"),
            &["Warning: Immediate deletion does not wait for confirmation", "force deleted"],
        )?;
        s.says("get pods", &["No resources found"])?;
    }
    Ok(())
}
