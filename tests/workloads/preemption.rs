//! A Pod of a high priority gets the place of one of a lower priority, within the disruption budgets.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::{Kubectl, is_root};

use crate::setting::{KINDS, LONG, cluster, words};

const CLASSES: &str = "apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: low}
value: 1
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: middle}
value: 10
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 100
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: polite}
value: 100
preemptionPolicy: Never
";

/// What a Pod of echo is made of, to stand in `spec:`. Asked to end, it takes so many seconds.
fn spec(image: &str, class: &str, resource: &str, amount: u32, node: &str, grace: u32) -> String {
    let selector = if node.is_empty() { String::new() } else { format!("kubernetes.io/hostname: {node}") };
    format!(
        "
  priorityClassName: {class}
  nodeSelector: {{{selector}}}
  terminationGracePeriodSeconds: {grace}
  containers:
    - name: echo
      image: {image}
      imagePullPolicy: IfNotPresent
      ports: [{{name: http, containerPort: 8080}}]
      readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
      lifecycle: {{preStop: {{sleep: {{seconds: {grace}}}}}}}
      resources: {{requests: {{{resource}: {amount}}}, limits: {{{resource}: {amount}}}}}
"
    )
}

/// A Pod that takes all that a node has of a resource. It does not end by itself.
fn pod(name: &str, image: &str, class: &str, resource: &str, node: &str) -> String {
    let spec = spec(image, class, resource, 1, node, 600);
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:{spec}")
}

/// A client says how much a node has of something.
fn offer(kubectl: &Kubectl, node: &str, resource: &str, amount: u32) -> anyhow::Result<()> {
    let patch = format!(r#"{{"status":{{"capacity":{{"{resource}":"{amount}"}}}}}}"#);
    let patched = kubectl.arguments(&["patch", "node", node, "--subresource=status", "-p", &patch], "")?;
    assert!(patched.success, "{patched:?}");
    let path = resource.replace('.', "\\.");
    kubectl.wait(&format!("--for=jsonpath={{.status.allocatable.{path}}}={amount} node/{node}"), LONG)
}

#[test]
fn a_pod_of_a_high_priority_takes_the_place_of_a_lower_one() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let cluster = cluster(2)?;
    let kubectl = cluster.kubectl();
    kubectl.apply(CLASSES)?;
    let nodes = words(&cluster, "nodes", "{.items[*].metadata.name}")?;
    for (kind, image) in KINDS {
        let resource = format!("example.com/{kind}");
        nodes.iter().try_for_each(|node| offer(&kubectl, node, &resource, 1))?;
        let named = |what: &str| format!("{what}-{kind}");
        let (guarded, plain, polite, high) = (named("guarded"), named("plain"), named("polite"), named("high"));
        kubectl.apply(&pod(&guarded, image, "low", &resource, &nodes[0]))?;
        kubectl.apply(&pod(&plain, image, "middle", &resource, &nodes[1]))?;
        kubectl.apply(&format!(
            "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {guarded}}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: {guarded}}}}}}}
"
        ))?;
        kubectl.wait(&format!("--for=condition=Ready pod/{guarded} pod/{plain}"), LONG)?;
        kubectl.wait(&format!("--for=jsonpath={{.status.currentHealthy}}=1 pdb/{guarded}"), LONG)?;

        let full = format!("0/2 nodes are available: 2 Insufficient {resource}.");
        let told = |name: &str| kubectl.ok(&format!("get pod {name} -o jsonpath={{.status.conditions[0].message}}"));
        kubectl.apply(&pod(&polite, image, "polite", &resource, ""))?;
        kubectl.wait(&format!("--for=condition=PodScheduled=false pod/{polite}"), LONG)?;
        assert_eq!(told(&polite)?, format!("{full} preemption: not eligible due to preemptionPolicy=Never."));

        kubectl.apply(&pod(&high, image, "high", &resource, ""))?;
        kubectl.wait(&format!("--for=jsonpath={{.status.nominatedNodeName}}={} pod/{high}", nodes[1]), LONG)?;
        kubectl.wait(&format!("--for=condition=DisruptionTarget pod/{plain}"), LONG)?;
        assert!(told(&high)?.starts_with(&full), "{}", told(&high)?);
        let victim = kubectl.json(&format!("get pod {plain}"))?;
        let conditions = victim["status"]["conditions"].as_array().unwrap();
        let target = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
        assert_eq!(target["reason"], "PreemptionByScheduler");
        assert_eq!(target["message"], "default-scheduler: preempting to accommodate a higher priority pod");
        kubectl.wait(&format!("--for=jsonpath={{.metadata.deletionGracePeriodSeconds}}=600 pod/{plain}"), LONG)?;

        kubectl.ok(&format!("delete pod {plain} --grace-period=0 --force"))?;
        kubectl.wait(&format!("--for=condition=Ready pod/{high}"), LONG)?;
        let placed = kubectl.json(&format!("get pod {high}"))?;
        assert_eq!(placed["spec"]["nodeName"], nodes[1].as_str());
        assert!(placed["status"].get("nominatedNodeName").is_none(), "{placed}");
        let events = format!("get events --field-selector=involvedObject.name={plain},reason=Preempted");
        let events = kubectl.ok(&format!("{events} -o jsonpath={{.items[*].message}}"))?;
        let uid = placed["metadata"]["uid"].as_str().unwrap();
        assert_eq!(events, format!("Preempted by pod {uid} on node {}", nodes[1]));
        let stayed = kubectl.json(&format!("get pod {guarded}"))?;
        assert!(stayed["metadata"].get("deletionTimestamp").is_none(), "{stayed}");
        let waiting = kubectl.json(&format!("get pod {polite}"))?;
        assert!(waiting["spec"].get("nodeName").is_none(), "the room was not made for it: {waiting}");
    }
    Ok(())
}

/// A preemptor goes past the ReplicaSet that can stay, and takes from the two below no more than once.
#[test]
fn no_more_leave_than_must_and_what_replaces_them_waits() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    let kubectl = cluster.kubectl();
    let node = words(&cluster, "nodes", "{.items[*].metadata.name}")?.remove(0);
    for level in 1..=4 {
        kubectl.apply(&format!(
            "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {{name: p{level}}}\nvalue: {level}\n"
        ))?;
    }
    for (kind, image) in KINDS {
        let resource = format!("example.com/{kind}");
        offer(&kubectl, &node, &resource, 100)?;
        let pods = |level: u32| words(&cluster, &format!("pods -l app=p{level}-{kind}"), "{.items[*].metadata.name}");
        for (level, amount) in [(1, 20), (2, 30), (3, 45)] {
            let (name, class) = (format!("p{level}-{kind}"), format!("p{level}"));
            let spec = spec(image, &class, &resource, amount, "", 1).replace('\n', "\n    ");
            kubectl.apply(&format!(
                "apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:{spec}
"
            ))?;
            kubectl.wait(&format!("--for=jsonpath={{.status.readyReplicas}}=1 replicaset/{name}"), LONG)?;
        }
        let before: Vec<_> = (1..=3).map(pods).collect::<Result<_, _>>()?;
        let high = format!("p4-{kind}");
        let spec = spec(image, "p4", &resource, 50, "", 1);
        kubectl.apply(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {high}}}\nspec:{spec}"))?;
        kubectl.wait(&format!("--for=condition=Ready pod/{high}"), LONG)?;
        for level in [1, 2] {
            let name = format!("p{level}-{kind}");
            kubectl.wait(&format!("--for=delete pod/{}", before[level - 1][0]), LONG)?;
            kubectl.wait(&format!("--for=condition=PodScheduled=false pod -l app={name}"), LONG)?;
            let made = format!("events --field-selector=involvedObject.name={name},reason=SuccessfulCreate");
            assert_eq!(words(&cluster, &made, "{.items[*].reason}")?.len(), 2, "one, and one in its place");
        }
        assert_eq!(pods(3)?, before[2], "there was room for it");
    }
    Ok(())
}
