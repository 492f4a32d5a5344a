//! Sysctls, users, and who may not be root.

use anyhow::ensure;
use serde_json::json;
use wherry_test::{PATIENCE, is_root};

use super::{BUSYBOX, CONTAINER, WASM, apply, cluster, ready, shell, told};

#[test]
fn safe_sysctls_are_the_pods_and_others_are_forbidden() -> anyhow::Result<()> {
    if !is_root("containers and namespaces") {
        return Ok(());
    }
    let cluster = cluster()?;
    let kubectl = cluster.kubectl();
    let set = |name: &str, value: &str| json!({ "sysctls": [{ "name": name, "value": value }] });
    let script = "cat /proc/sys/kernel/shm_rmid_forced; exec sleep 100000";
    let safe = set("kernel.shm_rmid_forced", "1");
    apply(&kubectl, "safe", json!({ "containers": [shell("c", script)], "securityContext": safe }))?;
    ready(&kubectl, "safe")?;
    told(&kubectl, "safe", "c", |line| line == "1")?;
    for (name, image) in [("wasm", WASM), ("container", CONTAINER)] {
        let containers = json!([{ "name": "c", "image": image }]);
        let safe = set("net.ipv4.ip_local_port_range", "40000 50000");
        apply(&kubectl, name, json!({ "containers": containers, "securityContext": safe }))?;
        ready(&kubectl, name)?;

        let unsafe_ = format!("{name}-unsafe");
        apply(&kubectl, &unsafe_, json!({ "containers": containers, "securityContext": set("kernel.msgmax", "1") }))?;
        kubectl.wait(&format!("--for=jsonpath={{.status.phase}}=Failed pod/{unsafe_}"), PATIENCE)?;
        let status = kubectl.json(&format!("get pod {unsafe_}"))?["status"].clone();
        let message = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        ensure!(status["reason"] == "SysctlForbidden", "{status}");
        ensure!(status["message"] == format!("Pod was rejected: {message}"), "{status}");
        let events = kubectl.ok(&format!("get events --field-selector involvedObject.name={unsafe_}"))?;
        ensure!(events.contains("SysctlForbidden") && events.contains(message), "{events}");
        kubectl.ok(&format!("delete pod {unsafe_}"))?;
    }

    let mut named = shell("c", "id -u; exec sleep 100000");
    named["securityContext"] = json!({ "runAsUser": 7, "runAsGroup": 8 });
    let groups = json!({ "supplementalGroups": [9], "supplementalGroupsPolicy": "Strict" });
    apply(&kubectl, "named", json!({ "containers": [named], "securityContext": groups }))?;
    let user = ready(&kubectl, "named")?["status"]["containerStatuses"][0]["user"].clone();
    ensure!(user == json!({ "linux": { "uid": 7, "gid": 8, "supplementalGroups": [8, 9] } }), "{user}");

    let root = json!([{ "name": "c", "image": BUSYBOX, "securityContext": { "runAsNonRoot": true } }]);
    apply(&kubectl, "root", json!({ "containers": root }))?;
    let waiting = ".status.containerStatuses[0].state.waiting";
    kubectl.wait(&format!("--for=jsonpath={{{waiting}.reason}}=CreateContainerConfigError pod/root"), PATIENCE)?;
    let message = kubectl.ok(&format!("get pod root -o jsonpath={{{waiting}.message}}"))?;
    let wanted = "container has runAsNonRoot and image will run as root (pod: \"root_default(";
    ensure!(message.starts_with(wanted) && message.ends_with(")\", container: c)"), "{message}");
    Ok(())
}
