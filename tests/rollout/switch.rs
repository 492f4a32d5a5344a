//! The two kinds of container take each other's place, and no client notices.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::is_root;

use crate::load::{Client, Load, Use};
use crate::netns;
use crate::setting::{CONTAINER, WASM, cluster, cluster_address, deployment, rolled_out, service};

const REQUESTS: u64 = 10_000;
/// From one kind to the other; two are there and back.
const SWITCHES: u32 = 4;

#[test]
fn a_deployment_changes_kinds_and_no_request_fails() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(2)?;
    cluster.kubectl().apply(&(deployment("echo", CONTAINER, 3, &[]) + &service("echo")))?;
    rolled_out(&cluster, "echo")?;

    let outside = Client { address: cluster.url("echo")?, netns: None, connections: Use::Fresh };
    let service = cluster_address(&cluster, "echo")?;
    let from =
        |node| Client { address: service.clone(), netns: Some(netns::node(&cluster, node)), connections: Use::Fresh };
    let kept = |client: &Client| Client { connections: Use::Kept, ..client.clone() };
    let (near, far) = (from("wherry-0"), from("wherry-1"));
    let clients = vec![
        outside.clone(),
        outside.clone(),
        outside.clone(),
        near.clone(),
        far.clone(),
        far,
        kept(&outside),
        kept(&near),
    ];
    let load = Load::start(clients);
    let mut images = [WASM, CONTAINER].into_iter().cycle();
    let mut switches = 0;
    while switches < SWITCHES || load.fresh() < REQUESTS {
        let image = images.next().unwrap();
        cluster.kubectl().ok(&format!("set image deployment/echo echo={image}"))?;
        rolled_out(&cluster, "echo")?;
        switches += 1;
        println!("{:.1} s: {image}, {} requests", load.seconds(), load.fresh());
    }
    let count = load.stop();
    println!("{switches} switches under {} new connections and {} requests on kept ones", count.fresh, count.kept);
    println!(
        "{} answers of components, {} of containers, {} failures",
        count.wasm,
        count.container,
        count.failures.len()
    );
    assert!(count.failures.is_empty(), "{} failed:\n{}", count.failures.len(), count.failures.join("\n"));
    assert!(count.fresh >= REQUESTS && count.wasm > 0 && count.container > 0, "{count:?}");
    Ok(())
}
