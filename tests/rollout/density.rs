//! Many Pods on one node.

use std::collections::BTreeSet;
use std::time::Instant;

use wherry_test::{Cluster, PATIENCE, get, is_root, until};

use crate::setting::{WASM, cluster, deployment, rolled_out, service};

const PODS: u32 = 200;

#[test]
fn two_hundred_components_on_one_node() -> anyhow::Result<()> {
    if !is_root("a cluster like the others") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    let kubectl = cluster.kubectl();
    let started = Instant::now();
    kubectl.apply(&(deployment("many", WASM, PODS, &[]) + &service("many")))?;
    rolled_out(&cluster, "many")?;
    println!("{PODS} Pods Ready after {:.1} s", started.elapsed().as_secs_f64());
    let address = cluster.open_url("many")?;
    let mut answered = BTreeSet::new();
    // The expected number of requests until each of 200 has been met is 1,176.
    for _ in 0..20_000 {
        answered.insert(get(&address, "/")?.body);
        if answered.len() == PODS as usize {
            break;
        }
    }
    assert_eq!(answered.len(), PODS as usize, "some Pods never answer");
    println!("each has answered after {:.1} s; {} MiB resident", started.elapsed().as_secs_f64(), resident(&cluster)?);
    let deleted = Instant::now();
    // Returns when all is gone. (`kubectl wait` asks for one Pod after the other, five a second.)
    kubectl.ok("delete deployment many --cascade=foreground")?;
    println!("all gone after {:.1} s", deleted.elapsed().as_secs_f64());
    let pods = cluster.data_dir().join("nodes/wherry-0/pods");
    // Who deletes a Pod waits for its containers; its node clears up when it is told that the Pod is gone.
    until(PATIENCE, || match std::fs::read_dir(&pods)?.count() {
        0 => Ok(Ok(())),
        left => Ok(Err(format!("{left} directories of Pods are left"))),
    })
}

/// MiB of memory of the process.
fn resident(cluster: &Cluster) -> anyhow::Result<u64> {
    let id = cluster.process().map(wherry_test::Child::id).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}
