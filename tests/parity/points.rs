//! Every point of what a Pod's manifest may say and of the ways into a Pod, with what plays it: a scenario of this table, or a test
//! that does the same with both kinds.

use anyhow::{Context as _, ensure};

use crate::scenarios;

/// What plays a point.
enum By {
    /// A scenario of the table, in every arrangement.
    Scenario(&'static str),
    /// A function in a file of the repository.
    Test(&'static str, &'static str),
}
use By::{Scenario, Test};

const STREAMS: &str = "tests/kubectl/streaming.rs";
const HOOKS: &str = "node/agent/tests/hooks.rs";
const SHORTAGE: &str = "node/agent/tests/shortage.rs";
const MEMORY: &str = "a_node_short_of_memory_evicts_one_pod_and_takes_none_that_says_not_what_it_needs";
const REFUSED: &str = "what_the_node_cannot_have_is_refused_by_its_reason";

const POINTS: &[(&str, By)] = &[
    // Lifecycle.
    ("limits.ephemeral-storage", Test("tests/shortage/limits.rs", "who_outgrows_a_limit_is_evicted_and_nobody_else")),
    ("eviction by memory pressure", Test(SHORTAGE, MEMORY)),
    ("eviction by disk pressure", Test(SHORTAGE, "a_node_short_of_disk_gives_up_images_before_pods")),
    ("image garbage collection", Test("tests/shortage/images.rs", "unused_images_go_and_used_ones_stay")),
    ("refusal by a node that has no room", Test("node/agent/tests/admission.rs", REFUSED)),
    ("several containers in one network", Scenario("two-containers")),
    ("init containers", Scenario("init")),
    ("init containers that fail", Scenario("failed-init")),
    ("sidecars: begin first, are restarted", Scenario("sidecar")),
    ("sidecars: end last", Scenario("hooks")),
    ("ephemeral containers, kubectl debug", Scenario("debug")),
    ("postStart and preStop by httpGet", Scenario("hooks")),
    ("postStart and preStop by exec", Scenario("commands")),
    ("postStart by sleep", Test(HOOKS, "a_container_is_told_as_running_only_after_its_post_start_hook")),
    ("postStart that fails", Test(HOOKS, "a_failed_post_start_hook_kills_its_container")),
    ("preStop that fails", Scenario("commands")),
    ("preStop beyond the grace", Test(HOOKS, "a_hook_that_takes_all_of_the_grace_leaves_two_seconds")),
    ("probes by httpGet, failureThreshold", Scenario("readiness")),
    ("probes by httpGet over HTTPS, host, headers", Scenario("https")),
    ("probes by tcpSocket", Scenario("tcp-readiness")),
    ("probes by tcpSocket that fail", Scenario("tcp-liveness")),
    ("probes by exec, initialDelaySeconds", Scenario("command-liveness")),
    ("probes by grpc", Test(HOOKS, "grpc_probes_ask_for_health")),
    ("liveness restarts", Scenario("liveness")),
    ("a startup probe holds the others back", Scenario("liveness")),
    ("a startup probe that never passes", Scenario("startup")),
    ("terminationGracePeriodSeconds of a probe", Scenario("command-liveness")),
    ("readinessGates", Scenario("gate")),
    ("restartPolicy Always, back-off", Scenario("crash")),
    ("restartPolicy OnFailure", Scenario("exit")),
    ("restartPolicy Never", Scenario("failure")),
    ("restartPolicyRules", Scenario("rules")),
    ("activeDeadlineSeconds", Scenario("deadline")),
    ("terminationGracePeriodSeconds, requests that are under way", Scenario("graceful-stop")),
    ("the end of the grace", Scenario("forced-stop")),
    ("terminationMessagePath", Scenario("message")),
    ("terminationMessagePolicy", Scenario("failure")),
    (
        "termination messages of a whole Pod",
        Test(
            "node/agent/src/lifecycle/tests/basics.rs",
            "the_containers_of_a_pod_share_twelve_kilobytes_for_their_messages",
        ),
    ),
    ("static Pods", Test("tests/static_pods.rs", "manifests_run_on_their_node_and_only_their_files_end_them")),
    (
        "static Pods that the API does not take",
        Test("node/agent/tests/statics.rs", "what_the_api_does_not_take_runs_all_the_same"),
    ),
    ("rolling updates", Scenario("rollout")),
    ("Pod conditions", Scenario("readiness")),
    ("quality of service", Scenario("quality")),
    ("hostAliases", Scenario("names")),
    ("hostname, subdomain", Scenario("names")),
    ("setHostnameAsFQDN", Scenario("names")),
    ("setHostnameAsFQDN of a name that is too long", Scenario("long-name")),
    ("dnsPolicy ClusterFirst, dnsConfig", Scenario("names")),
    ("dnsPolicy None", Scenario("own-dns")),
    ("env from fields, resources, ConfigMaps, Secrets; $(VAR)", Scenario("configuration")),
    ("envFrom", Scenario("configuration")),
    ("env from files", Scenario("env-file")),
    ("configuration that is missing", Scenario("configuration")),
    ("limits.cpu", Scenario("cpu")),
    ("limits.memory, OOMKilled", Scenario("oom")),
    ("resize in place", Scenario("resize")),
    ("resize that has to wait", Test("node/agent/tests/resize_room.rs", "what_finds_no_room_waits_for_it_in_its_turn")),
    ("resizePolicy RestartContainer", Test("node/agent/tests/resize.rs", "a_resize_policy_may_ask_for_a_restart")),
    ("restricted security contexts", Scenario("restricted")),
    (
        "hostNetwork, hostPort",
        Test("tests/namespaces/network.rs", "the_nodes_network_and_its_ports_are_had_by_both_kinds"),
    ),
    ("hostPID, shareProcessNamespace", Test("tests/namespaces/processes.rs", "processes_are_shared_as_asked")),
    ("imagePullPolicy Always", Scenario("pull")),
    ("imagePullPolicy Never", Scenario("never-pull")),
    ("images that are not there", Scenario("no-image")),
    ("images that have no name", Scenario("bad-name")),
    // Volumes.
    ("emptyDir, on disk and in memory", Scenario("sub-path")),
    ("sizeLimit", Test("tests/shortage/limits.rs", "who_outgrows_a_limit_is_evicted_and_nobody_else")),
    ("configMap", Scenario("sub-path")),
    ("secret", Scenario("modes")),
    ("downwardAPI", Scenario("modes")),
    ("projected", Scenario("updated-config")),
    ("serviceAccountToken", Scenario("modes")),
    (
        "tokens that rotate",
        Test("node/agent/tests/lifecycle.rs", "a_pod_of_either_kind_has_its_token_which_is_renewed_in_time"),
    ),
    ("hostPath", Scenario("links")),
    ("persistentVolumeClaim", Scenario("claim")),
    ("image", Scenario("image-volume")),
    ("subPath, subPathExpr, readOnly", Scenario("sub-path")),
    ("subPathExpr that cannot be used", Scenario("bad-expression")),
    ("subPath that leads out", Scenario("escape")),
    ("nothing but the mounts is there", Scenario("links")),
    ("defaultMode, fsGroup", Scenario("modes")),
    ("changes are seen by who runs", Scenario("updated-config")),
    // Streams.
    ("logs", Scenario("logs")),
    ("logs of several kubectls", Test("tests/kubectl/logging.rs", "streams")),
    ("logs of the run before", Scenario("crash")),
    (
        "logs of files that are rotated",
        Test("node/agent/src/logs/reader.rs", "a_follower_sees_every_line_across_rotation_and_ends_with_the_container"),
    ),
    ("exec", Test(STREAMS, "exec")),
    ("attach", Test(STREAMS, "attach")),
    ("port-forward", Test(STREAMS, "forward")),
    ("cp", Test("tests/kubectl/copying.rs", "both_ways")),
];

#[test]
fn every_point_is_played_and_every_scenario_plays_one() -> anyhow::Result<()> {
    let names: Vec<&str> = scenarios::all().iter().map(|scenario| scenario.name).collect();
    for (point, by) in POINTS {
        match by {
            Scenario(name) => ensure!(names.contains(name), "{point}: there is no scenario {name}"),
            Test(file, function) => {
                let text = std::fs::read_to_string(wherry_test::root().join(file))
                    .with_context(|| format!("{point}: {file}"))?;
                ensure!(text.contains(&format!("fn {function}(")), "{point}: there is no {function} in {file}");
            }
        }
    }
    for name in &names {
        let played = POINTS.iter().any(|(_, by)| matches!(by, Scenario(of) if of == name));
        ensure!(played, "{name} plays no point");
        ensure!(names.iter().filter(|other| *other == name).count() == 1, "{name} is there twice");
    }
    Ok(())
}
