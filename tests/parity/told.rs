//! What a kubelet tells, by the pieces that its stories have in common.
//!
//! | line | stands for |
//! |---|---|
//! | `<pod running> MORE` | the phases of a Pod that came so far (`pending`, `running`, `succeeded`, `failed`) and its conditions; MORE is how its readiness went on after `False/ContainersNotReady` |
//! | `<NAME runs>` | a container that runs since its first start |
//! | `<NAME ends> STATE` | one that ran once, and ended so |
//! | `<NAME waits> STATES` | one that was never started |
//! | `<NAME begins>`, `<NAME prepares>`, `<NAME joins>` | the Events of a first start, of a container, an init and an ephemeral one |
//!
//! The image of `echo` is IMAGE, that of any other container OTHER, unless another role follows. Of a Pod in which something
//! prepares, the lines are written out as they are of Pods with init containers.

use crate::arrangement::Arrangement;

/// An expectation, written out for an arrangement. `accompanied`: with what is told of a companion.
pub(crate) fn written_out(expected: &str, arrangement: Arrangement, accompanied: bool) -> String {
    let lines: Vec<String> =
        expected.trim().lines().flat_map(|line| piece(line).unwrap_or_else(|| vec![line.to_owned()])).collect();
    let lines = if is_prepared(expected, accompanied) { prepared(&lines, accompanied) } else { lines };
    let text = lines.join("\n");
    // What is of one kind cannot be told apart.
    if arrangement == Arrangement::Mixed { text } else { text.replace("OTHER_TOOL", "TOOL").replace("OTHER", "IMAGE") }
}

/// Whether the Pods have init containers.
pub(crate) fn is_prepared(expected: &str, accompanied: bool) -> bool {
    accompanied || expected.contains(" prepares>")
}

fn piece(line: &str) -> Option<Vec<String>> {
    let (head, rest) = line.strip_prefix('<')?.split_once('>')?;
    let rest = rest.trim_start();
    let (name, verb) = head.split_once(' ')?;
    Some(match (name, verb) {
        ("pod", phase) => pod(phase, rest)?,
        (name, "runs") => container(name, "ContainerCreating > Running", "false > true"),
        (name, "ends") => container(name, &format!("ContainerCreating > Running > {rest}"), "false > true > false"),
        (name, "waits") => container(name, &format!("ContainerCreating > {rest}"), "false"),
        (name, "begins") => begun("containers", name, rest),
        (name, "prepares") => begun("initContainers", name, rest),
        (name, "joins") => begun("ephemeralContainers", name, rest),
        _ => return None,
    })
}

fn pod(phase: &str, more: &str) -> Option<Vec<String>> {
    let (phases, sandbox, initialized) = match phase {
        "pending" => ("Pending", "False > True", "True"),
        "running" => ("Pending > Running", "False > True", "True"),
        "succeeded" => ("Pending > Running > Succeeded", "False > True > False", "True > True/PodCompleted"),
        "failed" => ("Pending > Running > Failed", "False > True > False", "True"),
        _ => return None,
    };
    let more = if more.is_empty() { String::new() } else { format!(" {more}") };
    Some(vec![
        format!("phase: {phases}"),
        "PodScheduled: True".to_owned(),
        format!("PodReadyToStartContainers: {sandbox}"),
        format!("Initialized: {initialized}"),
        format!("ContainersReady: False/ContainersNotReady{more}"),
        format!("Ready: False/ContainersNotReady{more}"),
    ])
}

fn container(name: &str, states: &str, flags: &str) -> Vec<String> {
    vec![
        format!("{name}: {states}"),
        format!("{name} restarts: 0"),
        format!("{name} started: {flags}"),
        format!("{name} ready: {flags}"),
    ]
}

fn begun(list: &str, name: &str, image: &str) -> Vec<String> {
    let image = match (image, name) {
        ("", "echo") => "IMAGE",
        ("", _) => "OTHER",
        (role, _) => role,
    };
    let about = format!("spec.{list}{{{name}}}");
    vec![
        format!(
            "Normal Pulled {about}: Container image \"{image}\" already present on machine and can be accessed by the pod"
        ),
        format!("Normal Created {about}: Container created"),
        format!("Normal Started {about}: Container started"),
    ]
}

/// The same of Pods with init containers. `accompanied`: with what is told of the companion, which begins before everything else and
/// ends last.
fn prepared(lines: &[String], accompanied: bool) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let (mut begins, mut ends) = (false, false);
    // Of the Pod whose lines these are.
    let (mut grounded, mut ended) = (true, false);
    for line in lines {
        if let Some(phases) = line.strip_prefix("phase: ") {
            ended = phases.ends_with("Succeeded") || phases.ends_with("Failed");
        } else if let Some(sandbox) = line.strip_prefix("PodReadyToStartContainers: ") {
            grounded = sandbox.contains("True");
        } else if let Some(rest) = line.strip_prefix("Initialized: True") {
            let rest = if grounded { format!(" > True{rest}") } else { String::new() };
            told.push(format!("Initialized: False/ContainersNotInitialized{rest}"));
            continue;
        }
        told.push(settled(&line.replace(": ContainerCreating", ": PodInitializing")));
        if accompanied && line.starts_with("Ready: ") {
            let (states, flags) = match (grounded, ended) {
                (false, _) => ("PodInitializing", "false"),
                (true, false) => ("PodInitializing > Running", "false > true"),
                (true, true) => ("PodInitializing > Running > Completed 0", "false > true > false"),
            };
            told.extend(container("companion", states, flags));
            begins |= grounded;
            ends |= grounded && ended;
        }
    }
    if begins {
        told.extend(begun("initContainers", "companion", ""));
    }
    if ends {
        told.push("Normal Killing spec.initContainers{companion}: Stopping container companion".to_owned());
    }
    told
}

/// Sidecars end after the containers: between them the Pod is not ready, and that may be told or not.
pub(crate) fn settled(line: &str) -> String {
    let is_readiness = line.starts_with("ContainersReady: ") || line.starts_with("Ready: ");
    if is_readiness { line.replace("False/ContainersNotReady > False/Pod", "False/Pod") } else { line.to_owned() }
}

#[test]
fn a_companion_changes_nothing_but_the_beginning() {
    let story = "<pod failed> > True > False/PodFailed\n<echo ends> Error 1\n<echo begins>";
    let told = written_out(story, Arrangement::Mixed, true);
    for line in [
        "Initialized: False/ContainersNotInitialized > True",
        "Ready: False/ContainersNotReady > True > False/PodFailed",
        "companion: PodInitializing > Running > Completed 0",
        "echo: PodInitializing > Running > Error 1",
        "Normal Started spec.initContainers{companion}: Container started",
        "Normal Killing spec.initContainers{companion}: Stopping container companion",
    ] {
        assert!(told.lines().any(|known| known == line), "{line}\n{told}");
    }
    let alone = written_out(story, Arrangement::Wasm, false);
    assert!(alone.contains("echo: ContainerCreating > Running > Error 1") && !alone.contains("companion"), "{alone}");
}
