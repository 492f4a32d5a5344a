//! A database as the tutorial runs Cassandra: members that find a seed by its name, spread over nodes, with volumes; it grows,
//! and goes with or without its data.
#![allow(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use wherry_test::is_root;

use crate::lesson::{Lesson, play};
use crate::setting::{LONG, cluster};

const RING: &str = include_str!("tutorials/ring.yaml");

#[test]
fn a_ring_grows_and_keeps_its_data() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let cluster = cluster(2)?;
    play(&cluster, "ring", |lesson| {
        lesson.start_client()?;
        lesson.apply(RING)?;
        lesson.rolled_out("statefulset/ring")?;
        let places = lesson.words("pods -l app=ring", "{.items[*].spec.nodeName}")?;
        ensure!(places[0] != places[1], "both on {}", places[0]);
        members_know_themselves(lesson, 2)?;
        lesson.patch("statefulset/ring", r#"{"spec":{"replicas":3}}"#)?;
        lesson.wait("--for=jsonpath={.status.readyReplicas}=3 statefulset/ring")?;
        members_know_themselves(lesson, 3)?;

        let claims = lesson.table("pvc -l app=ring")?;
        for (ordinal, claim) in claims.iter().enumerate() {
            let shown =
                ["NAME", "STATUS", "CAPACITY", "ACCESS MODES", "STORAGECLASS"].map(|column| claim[column].as_str());
            assert_eq!(shown, [&format!("data-ring-{ordinal}"), "Bound", "1Mi", "RWO", "local-path"]);
        }
        assert_eq!(claims.len(), 3);
        lesson.ok("delete statefulset -l app=ring")?;
        lesson.wait("--for=delete pods -l app=ring")?;
        lesson.apply(RING)?;
        lesson.rolled_out("statefulset/ring")?;
        for member in ["ring-0", "ring-1"] {
            assert_eq!(lesson.read(&format!("{member}.ring:8080"), "read?path=/data/state")?, "drained", "{member}");
        }
        // Now with its data.
        lesson.ok("delete statefulset -l app=ring")?;
        lesson.ok(&format!("delete pvc -l app=ring --timeout={}s", LONG.as_secs()))?;
        lesson.wait("--for=delete pods -l app=ring")?;
        lesson.apply(RING)?;
        lesson.rolled_out("statefulset/ring")?;
        let answer = lesson.ask("ring-0.ring:8080", "read?path=/data/state")?;
        ensure!(answer.status == 404, "{answer:?}");
        Ok(())
    })
}

fn members_know_themselves(lesson: &Lesson<'_>, count: usize) -> anyhow::Result<()> {
    let ips = lesson.words("pods -l app=ring", "{.items[*].status.podIP}")?;
    assert_eq!(ips.len(), count);
    for (ordinal, ip) in ips.iter().enumerate() {
        let at = format!("ring-{ordinal}.ring:8080");
        assert_eq!(&lesson.read(&at, "env?name=POD_IP")?, ip);
        // Through it, the seed by the name that it was told.
        let seed = lesson.read(&at, "env?name=SEED")?;
        assert_eq!(lesson.read(&format!("{seed}:8080"), "env?name=POD_IP")?, ips[0]);
    }
    Ok(())
}
