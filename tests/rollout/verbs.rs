//! `kubectl rollout` and its kin, between the two kinds of container.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::{Child, Cluster, Kubectl, get, is_root};

use crate::load::{Client, Load, Use};
use crate::setting::{CONTAINER, LONG, WASM, cluster, deployment, rolled_out, service, words};

/// Where nobody listens: the pull fails at once.
const MISSING: &str = "127.0.0.1:1/missing:1";

#[test]
fn rollouts_by_kubectl() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    cluster.kubectl().apply(&(deployment("web", CONTAINER, 2, &[]) + &service("web")))?;
    rolled_out(&cluster, "web")?;
    undo_leads_back_to_the_other_kind(&cluster)?;
    a_paused_deployment_stands_still(&cluster)?;
    recreate_never_mixes(&cluster)?;
    a_bad_image_exceeds_the_deadline_and_is_undone(&cluster)?;
    scaling_is_not_noticed(&cluster)
}

fn image(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.kubectl().ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}")
}

/// The images of the Pods that are there.
fn images(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut images = words(cluster, "pods -l app=web", "{.items[*].spec.containers[0].image}")?;
    images.dedup();
    Ok(images)
}

/// Waits until the controller has seen the newest spec.
fn observed(kubectl: &Kubectl) -> anyhow::Result<()> {
    let generation = kubectl.ok("get deployment web -o jsonpath={.metadata.generation}")?;
    kubectl.wait(&format!("--for=jsonpath={{.status.observedGeneration}}={generation} deployment/web"), LONG)
}

fn undo_leads_back_to_the_other_kind(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok(&format!("set image deployment/web echo={WASM}"))?;
    rolled_out(cluster, "web")?;
    assert_eq!(image(cluster)?, WASM);
    let history = kubectl.ok("rollout history deployment/web")?;
    let revisions: Vec<_> =
        history.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()).collect();
    assert_eq!(revisions, [1, 2], "{history}");
    let detail = kubectl.ok("rollout history deployment/web --revision=1")?;
    assert!(detail.contains(CONTAINER), "{detail}");

    kubectl.ok("rollout undo deployment/web")?;
    rolled_out(cluster, "web")?;
    assert_eq!(image(cluster)?, CONTAINER);
    kubectl.ok("rollout undo deployment/web --to-revision=2")?;
    rolled_out(cluster, "web")?;
    assert_eq!(image(cluster)?, WASM);
    // What is gone back to gets a new number; the ReplicaSet is the old one.
    assert_eq!(
        words(
            cluster,
            "replicasets -l app=web",
            "{.items[*].metadata.annotations.deployment\\.kubernetes\\.io/revision}"
        )?,
        ["3", "4"]
    );
    let missing = kubectl.run("rollout undo deployment/web --to-revision=9")?;
    assert!(!missing.success && missing.stderr.contains("unable to find specified revision 9"), "{missing:?}");

    let before = words(cluster, "pods -l app=web", "{.items[*].metadata.name}")?;
    kubectl.ok("rollout restart deployment/web")?;
    rolled_out(cluster, "web")?;
    kubectl.wait(&format!("--for=delete pod/{}", before.join(" pod/")), LONG)
}

fn a_paused_deployment_stands_still(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok("rollout pause deployment/web")?;
    let sets = words(cluster, "replicasets -l app=web", "{.items[*].metadata.name}")?;
    kubectl.ok(&format!("set image deployment/web echo={CONTAINER}"))?;
    kubectl.ok("scale deployment/web --replicas=3")?;
    observed(&kubectl)?;
    kubectl.wait("--for=jsonpath={.status.readyReplicas}=3 deployment/web", LONG)?;
    assert_eq!(images(cluster)?, [WASM]);
    assert_eq!(words(cluster, "replicasets -l app=web", "{.items[*].metadata.name}")?, sets);
    let reasons = words(cluster, "deployment web", "{.status.conditions[*].reason}")?;
    assert!(reasons.iter().any(|reason| reason == "DeploymentPaused"), "{reasons:?}");
    let undo = kubectl.run("rollout undo deployment/web")?;
    assert!(!undo.success && undo.stderr.contains("cannot rollback a paused deployment"), "{undo:?}");
    kubectl.ok("rollout resume deployment/web")?;
    rolled_out(cluster, "web")?;
    kubectl.ok("scale deployment/web --replicas=2")?;
    rolled_out(cluster, "web")?;
    assert_eq!(image(cluster)?, CONTAINER);
    Ok(())
}

fn recreate_never_mixes(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let strategy = r#"{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}"#;
    let patched = kubectl.arguments(&["patch", "deployment", "web", "--type=merge", "-p", strategy], "")?;
    assert!(patched.success, "{patched:?}");
    // Pods of the rollout before are no part of this one.
    let surplus = words(cluster, "pods -l app=web", "{.items[?(@.metadata.deletionTimestamp)].metadata.name}")?;
    if !surplus.is_empty() {
        kubectl.wait(&format!("--for=delete pod/{}", surplus.join(" pod/")), LONG)?;
    }
    let form = "-o=jsonpath={.type} {.object.metadata.name} {.object.spec.containers[0].image} {.object.status.phase}{\"\\n\"}";
    let arguments = ["get", "pods", "-l", "app=web", "--watch", "--output-watch-events", form];
    let mut watch = Child::start("kubectl get -w", &mut kubectl.command(arguments))?;
    for _ in 0..2 {
        watch.wait_for_line(LONG, |line| line.starts_with("ADDED"))?;
    }
    kubectl.ok(&format!("set image deployment/web echo={WASM}"))?;
    rolled_out(cluster, "web")?;
    for _ in 0..2 {
        watch.wait_for_line(LONG, |line| line.starts_with("ADDED") && line.contains(WASM))?;
    }
    let output = watch.output();
    let position = |event: &str, image: &str| {
        output
            .lines()
            .enumerate()
            .filter(|(_, line)| line.starts_with(event) && line.contains(image))
            .map(|(n, _)| n)
            .collect::<Vec<_>>()
    };
    // A Pod that has ended may be gone a little later; it runs no more.
    let ended: Vec<_> = output
        .lines()
        .enumerate()
        .filter(|(_, line)| {
            line.contains(CONTAINER)
                && (line.starts_with("DELETED") || line.ends_with("Succeeded") || line.ends_with("Failed"))
        })
        .collect();
    let names: std::collections::BTreeSet<_> =
        ended.iter().filter_map(|(_, line)| line.split_whitespace().nth(1)).collect();
    assert_eq!(names.len(), 2, "{output}");
    let last = names.iter().map(|name| ended.iter().find(|(_, line)| line.contains(*name)).unwrap().0).max().unwrap();
    assert!(position("ADDED", WASM).iter().all(|added| *added > last), "{output}");
    Ok(())
}

fn a_bad_image_exceeds_the_deadline_and_is_undone(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let spec = r#"{"spec":{"progressDeadlineSeconds":5,"strategy":{"type":"RollingUpdate"}}}"#;
    let patched = kubectl.arguments(&["patch", "deployment", "web", "-p", spec], "")?;
    assert!(patched.success, "{patched:?}");
    rolled_out(cluster, "web")?;
    let address = cluster.url("web")?;
    kubectl.ok(&format!("set image deployment/web echo={MISSING}"))?;
    let status = kubectl.run(&format!("rollout status --timeout={}s deployment/web", LONG.as_secs()))?;
    assert!(!status.success && status.stderr.contains("exceeded its progress deadline"), "{status:?}");
    let condition =
        kubectl.ok("get deployment web -o jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}")?;
    assert_eq!(condition, "ProgressDeadlineExceeded");
    assert_eq!(images(cluster)?, [MISSING, WASM]);
    assert_eq!(get(&address, "/")?.status, 200);
    kubectl.ok("rollout undo deployment/web")?;
    rolled_out(cluster, "web")?;
    assert_eq!(image(cluster)?, WASM);
    kubectl.wait(
        "--for=jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}=NewReplicaSetAvailable deployment/web",
        LONG,
    )
}

fn scaling_is_not_noticed(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let fresh = Client { address: cluster.url("web")?, netns: None, connections: Use::Fresh };
    let kept = Client { connections: Use::Kept, ..fresh.clone() };
    let load = Load::start(vec![fresh.clone(), fresh, kept]);
    for (image, replicas) in [(WASM, [6, 1, 4]), (CONTAINER, [1, 3, 2])] {
        kubectl.ok(&format!("set image deployment/web echo={image}"))?;
        rolled_out(cluster, "web")?;
        for count in replicas {
            kubectl.ok(&format!("scale deployment/web --replicas={count}"))?;
            rolled_out(cluster, "web")?;
        }
    }
    let count = load.stop();
    println!("scaled six times under {} new connections and {} requests on kept ones", count.fresh, count.kept);
    assert!(count.failures.is_empty(), "{} failed:\n{}", count.failures.len(), count.failures.join("\n"));
    assert!(count.fresh > 0 && count.kept > 0);
    Ok(())
}
