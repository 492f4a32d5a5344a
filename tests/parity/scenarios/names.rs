//! The names that a Pod has, and those that it can look up.

use anyhow::ensure;

use super::{READY, Scenario, pod};
use crate::stage::{Stage, condition, ready};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "names", manifest: || pod(NAMES, ""), play: names, expected: READY },
        Scenario { name: "own-dns", manifest: || pod(OWN, ""), play: own_dns, expected: READY },
        Scenario {
            name: "long-name",
            manifest: || pod(&format!("setHostnameAsFQDN: true\nsubdomain: {}", "s".repeat(60)), ""),
            play: |stage| {
                stage.until_event("FailedCreatePodSandBox", "is too long")?;
                stage.until("taken up", condition("PodReadyToStartContainers", "False"))
            },
            expected: "
phase: Pending
PodScheduled: True
PodReadyToStartContainers: False
Initialized: True
ContainersReady: False/ContainersNotReady
Ready: False/ContainersNotReady
echo: ContainerCreating
echo restarts: 0
echo started: false
echo ready: false
Warning FailedCreatePodSandBox: Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN echo.ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss.NAMESPACE.svc.cluster.local is too long (64 characters is the max, * characters requested)",
        },
    ]
}

const NAMES: &str = "
hostname: me
subdomain: sub
setHostnameAsFQDN: true
hostAliases: [{ip: 127.0.0.1, hostnames: [alias.example, other.example]}]
dnsConfig: {searches: [more.example], options: [{name: ndots, value: '3'}]}";

fn names(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    let namespace = stage.kubectl("get pod echo -o jsonpath={.metadata.namespace}")?;
    let ip = stage.kubectl("get pod echo -o jsonpath={.status.podIP}")?;
    let full = format!("me.sub.{namespace}.svc.cluster.local");
    ensure!(stage.ok("/env?name=HOSTNAME")? == full);
    ensure!(stage.ok("/read?path=/etc/hostname")? == format!("{full}\n"));
    let hosts = stage.ok("/read?path=/etc/hosts")?;
    for line in [format!("{ip}\t{full}\tme"), "127.0.0.1\talias.example\tother.example".to_owned()] {
        ensure!(hosts.lines().any(|known| known == line), "{line} is not in\n{hosts}");
    }
    let resolution = stage.ok("/read?path=/etc/resolv.conf")?;
    for part in [&*format!("search {namespace}.svc.cluster.local "), " more.example\n", "options ndots:3\n"] {
        ensure!(resolution.contains(part), "{part} is not in\n{resolution}");
    }
    // By its own names, by an alias, by a Service's, short and in full.
    let service = format!("echo.{namespace}.svc.cluster.local:80");
    for authority in ["me:8080", &format!("{full}:8080"), "other.example:8080", "echo:80", &service] {
        let answer = stage.ok(&format!("/fetch?authority={authority}&path=healthz"))?;
        ensure!(answer == "ok\n", "{authority}: {answer}");
    }
    Ok(())
}

const OWN: &str = "
dnsPolicy: None
dnsConfig: {nameservers: [10.96.255.254], searches: [one.example], options: [{name: timeout, value: '1'}, {name: attempts, value: '1'}]}";

/// Nobody answers there: the cluster's names are not known.
fn own_dns(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    let resolution = stage.ok("/read?path=/etc/resolv.conf")?;
    ensure!(
        resolution == "search one.example\nnameserver 10.96.255.254\noptions timeout:1 attempts:1\n",
        "{resolution}"
    );
    let answer = stage.get("/fetch?authority=echo:80&path=healthz")?;
    ensure!(answer.status == 502, "{answer:?}");
    Ok(())
}
