//! `samples/quickstart.sh` as a user would run it: both kinds of container answer through their Services.

use std::process::Command;

use anyhow::Context;
use wherry_test::{is_root, root};

#[test]
fn both_kinds_answer_through_their_services() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let binary = env!("CARGO_BIN_EXE_wherry");
    // target/<profile>/wherry
    let target = std::path::Path::new(binary).ancestors().nth(2).context("no target directory")?;
    let output = Command::new("timeout")
        .arg("300")
        .arg(root().join("samples/quickstart.sh"))
        .arg("--once")
        .env("WHERRY", binary)
        .env("CARGO_TARGET_DIR", target)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    for kind in ["wasm", "container"] {
        let answered = said.lines().any(|line| line.contains(&format!("-> echo-{kind}-")) && line.ends_with(kind));
        assert!(answered, "no answer of the {kind}:\n{said}\n{complained}");
    }
    Ok(())
}
