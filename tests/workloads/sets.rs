//! StatefulSet basics: order, names, volumes, scaling, canaries and stages, updates on deletion, both ways of deleting, Parallel.
#![allow(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use wherry_test::is_root;

use crate::lesson::{Lesson, play};
use crate::setting::cluster;

const BASICS: &str = include_str!("tutorials/stateful-set.yaml");
const PARALLEL: &str = include_str!("tutorials/parallel.yaml");
const NAMES: &str = "{.items[*].metadata.name}";
const UIDS: &str = "{.items[*].metadata.uid}";
const COLORS: &str = "{.items[*].spec.containers[0].env[?(@.name==\"COLOR\")].value}";

#[test]
fn stateful_set_basics() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    play(&cluster, "sets", |lesson| {
        lesson.start_client()?;
        one_after_the_other(lesson)?;
        names_and_volumes_outlive_pods(lesson)?;
        scaling(lesson)?;
        canaries_and_going_back(lesson)?;
        updates_when_a_pod_is_deleted(lesson)?;
        orphans_are_taken_in(lesson)?;
        deleting_keeps_claims(lesson)
    })?;
    play(&cluster, "parallel", all_at_once)
}

fn pods(lesson: &Lesson<'_>, path: &str) -> anyhow::Result<Vec<String>> {
    lesson.words("pods -l app=site", path)
}

fn rolled_out(lesson: &Lesson<'_>, replicas: usize) -> anyhow::Result<()> {
    lesson.rolled_out("statefulset/web")?;
    let names: Vec<String> = (0..replicas).map(|ordinal| format!("web-{ordinal}")).collect();
    lesson.wait(&format!("--for=condition=Ready pod {}", names.join(" ")))?;
    assert_eq!(pods(lesson, NAMES)?, names);
    Ok(())
}

fn one_after_the_other(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let said = lesson.apply(BASICS)?;
    assert_eq!(said, "service/site created\nstatefulset.apps/web created\n");
    rolled_out(lesson, 2)?;
    let set = lesson.table("statefulset web")?.remove(0);
    assert_eq!((set["NAME"].as_str(), set["READY"].as_str()), ("web", "2/2"));
    let service = lesson.table("service site")?.remove(0);
    let shown = ["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"].map(|column| service[column].as_str());
    assert_eq!(shown, ["ClusterIP", "None", "<none>", "8080/TCP"]);
    let rows = lesson.table("pods -l app=site")?;
    for (row, name) in rows.iter().zip(["web-0", "web-1"]) {
        let shown = ["NAME", "READY", "STATUS", "RESTARTS"].map(|column| row[column].as_str());
        assert_eq!(shown, [name, "1/1", "Running", "0"]);
    }
    let ready = lesson.ok("get pod web-0 -o jsonpath={.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}")?;
    let created = lesson.ok("get pod web-1 -o jsonpath={.metadata.creationTimestamp}")?;
    ensure!(ready <= created, "the second was made at {created}, the first was ready at {ready}");
    Ok(())
}

fn names_and_volumes_outlive_pods(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let volumes =
        || lesson.words("pvc -l app=site", "{range.items[*]}{.status.phase}/{.spec.volumeName}{\"\\n\"}{end}");
    for name in ["web-0", "web-1"] {
        let at = format!("{name}.site:8080");
        assert_eq!(lesson.read(&at, "env?name=HOSTNAME")?, name);
        lesson.read(&at, &format!("write?path=/pages/index&text={name}"))?;
    }
    let (claims, uids) = (volumes()?, pods(lesson, UIDS)?);
    ensure!(claims.len() == 2 && claims.iter().all(|claim| claim.starts_with("Bound/")), "{claims:?}");
    assert_eq!(lesson.words("pvc", NAMES)?, ["pages-web-0", "pages-web-1"]);
    lesson.ok("delete pods -l app=site")?;
    rolled_out(lesson, 2)?;
    let after = pods(lesson, UIDS)?;
    ensure!(after.iter().all(|uid| !uids.contains(uid)), "{after:?} after {uids:?}");
    for name in ["web-0", "web-1"] {
        // By the full name as well, and by the Service's own port record.
        let full = format!("{name}.site.{}.svc.cluster.local:8080", lesson.namespace);
        assert_eq!(lesson.read(&full, "env?name=HOSTNAME")?, name);
        assert_eq!(lesson.read(&format!("{name}.site:8080"), "read?path=/pages/index")?, name);
    }
    assert_eq!(volumes()?, claims, "what they had before");
    Ok(())
}

fn scaling(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    assert_eq!(lesson.ok("scale statefulset web --replicas=4")?, "statefulset.apps/web scaled\n");
    rolled_out(lesson, 4)?;
    let created = pods(lesson, "{.items[*].metadata.creationTimestamp}")?;
    ensure!(created.is_sorted(), "one after the other: {created:?}");
    lesson.patch("statefulset/web", r#"{"spec":{"replicas":3}}"#)?;
    lesson.wait("--for=delete pod/web-3")?;
    rolled_out(lesson, 3)?;
    let claims: Vec<_> = (0..4).map(|ordinal| format!("pages-web-{ordinal}")).collect();
    assert_eq!(lesson.words("pvc", NAMES)?, claims, "claims outlive scaling down");
    Ok(())
}

fn canaries_and_going_back(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let partition = |n: u32| format!(r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"partition":{n}}}}}}}}}"#);
    // Staged: beyond the last Pod, nothing is updated.
    lesson.patch("statefulset/web", &partition(3))?;
    lesson.ok("set env statefulset/web COLOR=blue")?;
    lesson.ok("delete pod web-2")?;
    rolled_out(lesson, 3)?;
    assert_eq!(pods(lesson, COLORS)?, [""; 0], "below the partition Pods come back as they were");
    lesson.patch("statefulset/web", &partition(2))?;
    let said = lesson.rolled_out("statefulset/web")?;
    ensure!(said.starts_with("partitioned roll out complete: 1 new pods have been updated"), "{said}");
    assert_eq!(pods(lesson, COLORS)?, ["blue"], "the canary");
    let hash = "{.items[*].metadata.labels.controller-revision-hash}";
    let hashes = pods(lesson, hash)?;
    ensure!(hashes[0] == hashes[1] && hashes[1] != hashes[2], "{hashes:?}");
    lesson.patch("statefulset/web", &partition(0))?;
    let said = lesson.rolled_out("statefulset/web")?;
    ensure!(said.starts_with("partitioned roll out complete: 3 new pods have been updated"), "{said}");
    assert_eq!(pods(lesson, COLORS)?, ["blue"; 3]);
    let created = pods(lesson, "{.items[*].metadata.creationTimestamp}")?;
    ensure!(created.iter().rev().is_sorted(), "from the last to the first: {created:?}");
    lesson.ok("rollout undo statefulset/web")?;
    rolled_out(lesson, 3)?;
    assert_eq!(pods(lesson, COLORS)?, [""; 0]);
    Ok(())
}

fn updates_when_a_pod_is_deleted(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.patch("statefulset/web", r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#)?;
    lesson.ok("set env statefulset/web COLOR=red")?;
    let generation = lesson.ok("get statefulset web -o jsonpath={.metadata.generation}")?;
    lesson.wait(&format!("--for=jsonpath={{.status.observedGeneration}}={generation} statefulset/web"))?;
    assert_eq!(pods(lesson, COLORS)?, [""; 0], "nothing happens by itself");
    lesson.ok("delete pod web-1")?;
    lesson.wait("--for=jsonpath={.status.updatedReplicas}=1 statefulset/web")?;
    lesson.wait("--for=jsonpath={.status.readyReplicas}=3 statefulset/web")?;
    assert_eq!(lesson.ok("get pod web-1 -o jsonpath={.spec.containers[0].env[0].value}")?, "red");
    assert_eq!(pods(lesson, COLORS)?, ["red"]);
    Ok(())
}

/// The set goes, its Pods stay; made again, it takes them in, replaces what is missing and ends what is too much.
fn orphans_are_taken_in(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let said = lesson.ok("delete statefulset web --cascade=orphan")?;
    ensure!(said.starts_with("statefulset.apps \"web\" deleted"), "{said}");
    assert_eq!(pods(lesson, NAMES)?, ["web-0", "web-1", "web-2"]);
    // Nobody replaces it.
    lesson.ok("delete pod web-0")?;
    let kept = lesson.ok("get pod web-1 -o jsonpath={.metadata.uid}")?;
    lesson.apply(BASICS)?;
    lesson.wait("--for=delete pod/web-2")?;
    // It had COLOR=red, the set has not. A set whose first revision this is calls its update complete while an adopted Pod is of
    // another.
    lesson.until("get pod web-1 --ignore-not-found -o jsonpath={.metadata.uid}", |uid| !["", &kept].contains(&uid))?;
    rolled_out(lesson, 2)?;
    assert_eq!(pods(lesson, "{.items[*].metadata.ownerReferences[0].name}")?, ["web", "web"]);
    Ok(())
}

fn deleting_keeps_claims(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.ok("delete statefulset web --cascade=foreground")?;
    assert_eq!(lesson.ok("get pods,controllerrevisions -l app=site -o name")?, "");
    assert_eq!(lesson.words("pvc", NAMES)?.len(), 4);
    lesson.apply(BASICS)?;
    rolled_out(lesson, 2)?;
    for name in ["web-0", "web-1"] {
        assert_eq!(lesson.read(&format!("{name}.site:8080"), "read?path=/pages/index")?, name);
    }
    lesson.ok("delete statefulset web")?;
    lesson.wait("--for=delete pods -l app=site")?;
    lesson.ok(&format!("delete pvc --all --timeout={}s", crate::setting::LONG.as_secs())).map(drop)
}

/// None waits for another to be ready, and the claims go as the policy says.
fn all_at_once(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.apply(PARALLEL)?;
    lesson.wait("--for=jsonpath={.status.replicas}=2 statefulset/crowd")?;
    lesson.ok("scale statefulset crowd --replicas=4")?;
    for ordinal in 0..4 {
        lesson.wait(&format!("--for=create pod/crowd-{ordinal}"))?;
    }
    lesson.wait("--for=jsonpath={.status.phase}=Running pods -l app=crowd")?;
    assert_eq!(lesson.table("statefulset crowd")?[0]["READY"], "0/4");
    let claim = |ordinal: u32| lesson.ok(&format!("get pvc pages-crowd-{ordinal} -o jsonpath={{.spec.volumeName}}"));
    let before = claim(3)?;
    lesson.ok("scale statefulset crowd --replicas=1")?;
    lesson.wait("--for=delete pod/crowd-1 pod/crowd-2 pod/crowd-3")?;
    lesson.ok("scale statefulset crowd --replicas=4")?;
    lesson.wait("--for=create pod/crowd-3")?;
    lesson.wait("--for=jsonpath={.status.phase}=Running pods -l app=crowd")?;
    assert_eq!(claim(3)?, before, "what it had before");
    lesson.ok("delete statefulset crowd")?;
    lesson.wait("--for=delete pvc -l app=crowd")
}
