//! Pods whose images come from a registry, in both kinds alike.

use wherry_test::{Cluster, PATIENCE, Registry, echo_image, is_root, sample};

use crate::layout::layout;
use crate::options;
use crate::pods::{event, push, ready, run, waits};

#[test]
fn both_kinds_come_by_tag_and_by_digest_under_every_policy() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(options())?;
    let (kubectl, registry) = (cluster.kubectl(), Registry::start()?);
    for (kind, file) in [("wasm", sample("echo")), ("container", echo_image()?)] {
        let image = registry.reference(&format!("team/echo:{kind}"));
        let digest = push(&cluster, &file, &image)?;

        let never = format!("{kind}-never");
        run(&kubectl, &never, &image, "Never")?;
        let message = waits(&kubectl, &never, "ErrImageNeverPull")?;
        assert_eq!(message, format!("Container image {image:?} is not present with pull policy of Never"));

        run(&kubectl, &format!("{kind}-always"), &image, "Always")?;
        assert_eq!(ready(&kubectl, &format!("{kind}-always"))?, digest);
        event(&kubectl, &format!("{kind}-always"), &["Pulling", &image])?;
        event(&kubectl, &format!("{kind}-always"), &["Successfully pulled image", &image])?;
        run(&kubectl, &format!("{kind}-present"), &image, "IfNotPresent")?;
        assert_eq!(ready(&kubectl, &format!("{kind}-present"))?, digest);
        event(&kubectl, &format!("{kind}-present"), &["already present on machine"])?;
        let by_digest = registry.reference(&format!("team/echo@{digest}"));
        run(&kubectl, &format!("{kind}-digest"), &by_digest, "IfNotPresent")?;
        assert_eq!(ready(&kubectl, &format!("{kind}-digest"))?, digest);
        // It is there now.
        assert_eq!(ready(&kubectl, &never)?, digest);

        let listed = format!(
            "--for=jsonpath={{.status.images[?(@.names[1]=={image:?})].names[0]}}={} node --all",
            registry.reference(&format!("team/echo@{digest}"))
        );
        kubectl.wait(&listed, PATIENCE)?;
        if kind == "wasm" {
            // It is compiled by now, and its node says so by a name of its own, after the three that were used above.
            let last = format!("jsonpath={{.status.images[?(@.names[1]=={image:?})].names[3]}}");
            kubectl.wait(&format!("--for={last} node --all"), PATIENCE)?;
            let name = kubectl.ok(&format!("get nodes -o {}", last.replace(".status", ".items[0].status")))?;
            assert!(name.starts_with("wherry.dev/prepared@sha256:"), "{name}");
        }
        let list = String::from_utf8(cluster.wherry(&["image", "ls"]).output()?.stdout)?;
        let row: Vec<_> =
            list.lines().find(|line| line.starts_with(&image)).unwrap_or_default().split_whitespace().take(3).collect();
        assert_eq!(row, [&image, &digest["sha256:".len()..][..12], kind], "{list}");
    }
    Ok(())
}

#[test]
fn a_failed_pull_says_why_and_recovers() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(options())?;
    let (kubectl, mut registry) = (cluster.kubectl(), Registry::start()?);
    let missing = registry.reference("none:1");
    run(&kubectl, "missing", &missing, "IfNotPresent")?;
    let message = waits(&kubectl, "missing", "ImagePullBackOff")?;
    assert!(
        message.starts_with(&format!("Back-off pulling image {missing:?}: ErrImagePull: {missing}: not found")),
        "{message}"
    );
    for words in [
        ["Failed to pull image", "not found"],
        ["Error: ErrImagePull", ""],
        ["Error: ImagePullBackOff", ""],
        ["Back-off pulling image", ""],
    ] {
        event(&kubectl, "missing", &words)?;
    }

    let odd = registry.reference("chart:1");
    push(
        &cluster,
        &layout(cluster.scratch(), "application/vnd.cncf.helm.config.v1+json", "application/x-chart")?,
        &odd,
    )?;
    run(&kubectl, "odd", &odd, "Always")?;
    let message = waits(&kubectl, "odd", "ImagePullBackOff")?;
    assert!(message.contains("unsupported media type \"application/vnd.cncf.helm.config.v1+json\""), "{message}");

    run(&kubectl, "misnamed", "Not/An:Image@", "Always")?;
    let message = waits(&kubectl, "misnamed", "InvalidImageName")?;
    assert!(message.contains("Not/An:Image@"), "{message}");

    registry.stop();
    let late = registry.reference("late:1");
    run(&kubectl, "late", &late, "Always")?;
    let message = waits(&kubectl, "late", "ImagePullBackOff")?;
    assert!(message.contains(&format!("{} can't be reached", registry.host())), "{message}");

    registry.resume()?;
    push(&cluster, &sample("hello"), &missing)?;
    push(&cluster, &echo_image()?, &late)?;
    ready(&kubectl, "missing")?;
    ready(&kubectl, "late")?;
    Ok(())
}

#[test]
fn a_registry_that_hangs_holds_up_nobody_else() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(options())?;
    let kubectl = cluster.kubectl();
    // The kernel accepts for it; nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?;
    let names: Vec<String> = (0..12).map(|number| format!("hangs{number}")).collect();
    for name in &names {
        run(&kubectl, name, &format!("{address}/{name}:1"), "Always")?;
    }
    for (kind, file) in [("wasm", sample("hello")), ("container", echo_image()?)] {
        cluster.load(&file, &format!("app.test/{kind}:1"))?;
        run(&kubectl, kind, &format!("app.test/{kind}:1"), "Never")?;
        ready(&kubectl, kind)?;
    }
    // A Pod that is being pulled can be deleted.
    kubectl.ok(&format!("delete pod {}", names.join(" ")))?;
    assert_eq!(kubectl.ok("get pods -o name")?.lines().count(), 2);
    Ok(())
}

#[test]
fn an_image_that_is_loaded_later_lets_its_pod_start() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(options())?;
    let kubectl = cluster.kubectl();
    for (kind, file) in [("wasm", sample("hello")), ("container", echo_image()?)] {
        let image = format!("app.test/{kind}:1");
        run(&kubectl, kind, &image, "Never")?;
        waits(&kubectl, kind, "ErrImageNeverPull")?;
        cluster.load(&file, &image)?;
        ready(&kubectl, kind)?;
    }
    Ok(())
}
