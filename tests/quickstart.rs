//! The samples as a user would run them: both kinds of container answer through their Services.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::{Cluster, Options, PATIENCE, echo_image, get, is_root, sample};

#[test]
fn both_kinds_answer_through_their_services() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    cluster.load(&sample("echo"), "samples.wherry.dev/echo:wasm")?;
    cluster.load(&echo_image()?, "samples.wherry.dev/echo:container")?;
    for kind in ["wasm", "container"] {
        let manifest = std::fs::read_to_string(wherry_test::root().join(format!("samples/echo/{kind}.yaml")))?;
        cluster.kubectl().apply(&manifest)?;
    }
    for kind in ["wasm", "container"] {
        cluster.kubectl().wait(&format!("--for=condition=Available deployment/echo-{kind}"), PATIENCE)?;
        let answer = get(&cluster.url(&format!("echo-{kind}"))?, "/")?;
        assert_eq!(answer.status, 200);
        assert!(answer.body.ends_with(&format!(" {kind}\n")), "{answer:?}");
    }
    Ok(())
}
