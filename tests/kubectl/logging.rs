//! `logs`.

use anyhow::{Result, ensure};
use wherry_test::{PATIENCE, get};

use crate::scene::{ECHO, Scene, TICKER, deployment};

/// Following, the options, and by which names Pods are found.
pub(crate) fn streams(s: &Scene) -> Result<()> {
    s.kubectl.ok(&format!("run ticker --image={TICKER}"))?;
    s.wait("--for=condition=Ready pod/ticker")?;
    let mut follow = s.start("logs -f ticker")?;
    follow.wait_for_line(PATIENCE, |line| line == "tick 1")?;
    follow.wait_for_line(PATIENCE, |line| line == "tick 3")?;
    let all = s.kubectl.ok("logs ticker")?;
    ensure!(all.starts_with("tick 1\ntick 2\ntick 3\n"), "{all}");
    let tail = s.kubectl.ok("logs ticker --tail=2")?;
    ensure!(tail.lines().count() == 2 && !tail.contains("tick 1\n"), "{tail}");
    s.prints("logs ticker --limit-bytes=9", "tick 1\nti")?;
    s.prints("logs ticker -c ticker --since=1h --tail=0", "")?;
    s.prints("logs ticker --since-time=2099-01-01T00:00:00Z", "")?;
    ensure!(s.kubectl.ok("logs ticker --since=1h")?.starts_with("tick 1\n"));
    let stamped = s.kubectl.ok("logs ticker --timestamps")?;
    let (stamp, rest) = stamped.lines().next().unwrap().split_once(' ').unwrap();
    ensure!(
        stamp.len() == "2026-01-01T00:00:00.000000000Z".len() && stamp.ends_with('Z') && rest == "tick 1",
        "{stamped}"
    );
    s.says("logs ticker --all-containers --prefix", &["[pod/ticker/ticker] tick 1\n"])?;
    s.refuses("logs ticker -c other", &["container other is not valid for pod ticker"])?;
    s.refuses("logs ticker --previous", &["previous terminated container \"ticker\" in pod \"ticker\" not found"])?;
    s.refuses("logs none", &["pods \"none\" not found"])?;

    for (kind, image) in ECHO {
        s.kubectl.apply(&deployment(kind, image, 1))?;
        s.kubectl.ok(&format!("expose deployment {kind} --port=80 --target-port=http"))?;
        s.wait(&format!("--for=condition=Available deployment/{kind}"))?;
        for what in [
            format!("deployment/{kind}"),
            format!("-l app={kind}"),
            format!("service/{kind} -c c"),
            format!("deploy/{kind} --all-pods"),
        ] {
            s.says(&format!("logs {what} --tail=1"), &["GET /\n"])?;
        }
    }
    // The stream ends with its Pod.
    let mut follow = s.start("logs -f ticker --tail=1")?;
    follow.wait_for_line(PATIENCE, |line| line.starts_with("tick "))?;
    s.kubectl.ok("delete pod ticker")?;
    ensure!(follow.wait()?.success(), "{}", follow.output());
    Ok(())
}

/// The container before the one that runs, of both kinds.
pub(crate) fn previous(s: &Scene) -> Result<()> {
    for (kind, image) in ECHO {
        s.kubectl.ok(&format!("run {kind} --image={image} --image-pull-policy=IfNotPresent --port=8080"))?;
        s.kubectl.ok(&format!("expose pod {kind} --type=NodePort --port=8080"))?;
        s.wait(&format!("--for=condition=Ready pod/{kind}"))?;
        s.wait(&format!("--for=jsonpath={{.subsets[0].addresses[0].targetRef.name}}={kind} endpoints/{kind}"))?;
        // It ends without an answer.
        drop(get(&s.address(kind)?, "/crash"));
        s.wait(&format!("--for=jsonpath={{.status.containerStatuses[0].restartCount}}=1 pod/{kind}"))?;
        s.wait(&format!("--for=condition=Ready pod/{kind}"))?;
        s.says(&format!("logs {kind} --previous"), &["GET /crash\n", "crashing\n"])?;
        let present = s.kubectl.ok(&format!("logs {kind}"))?;
        ensure!(!present.contains("crash"), "{present}");
        s.says(
            &format!("describe pod {kind}"),
            &["Last State:     Terminated\n      Reason:       Error\n      Exit Code:    1\n", "Restart Count:  1"],
        )?;
    }
    Ok(())
}
