//! A tag that is moved, even to the other kind.

use wherry_test::{Cluster, Registry, echo_image, is_root, sample};

use crate::options;
use crate::pods::{push, ready, run};

#[test]
fn a_moved_tag_is_seen_by_always_alone() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(options())?;
    let (kubectl, registry) = (cluster.kubectl(), Registry::start()?);
    let image = registry.reference("app:1");
    let mut known = push(&cluster, &sample("hello"), &image)?;
    run(&kubectl, "first", &image, "IfNotPresent")?;
    assert_eq!(ready(&kubectl, "first")?, known);
    for (step, file) in [sample("echo"), echo_image()?, sample("hello")].into_iter().enumerate() {
        let moved = push(&cluster, &file, &image)?;
        assert_ne!(moved, known);
        run(&kubectl, &format!("present{step}"), &image, "IfNotPresent")?;
        assert_eq!(ready(&kubectl, &format!("present{step}"))?, known);
        run(&kubectl, &format!("always{step}"), &image, "Always")?;
        assert_eq!(ready(&kubectl, &format!("always{step}"))?, moved);
        known = moved;
    }
    Ok(())
}
