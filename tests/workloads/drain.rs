//! `kubectl drain` asks the disruption budgets.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::is_root;

use crate::setting::{KINDS, LONG, cluster, rolled_out, template, words};

#[test]
fn a_drain_keeps_the_budgets() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let cluster = cluster(2)?;
    let kubectl = cluster.kubectl();
    for (name, image) in KINDS {
        kubectl.apply(&format!(
            "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {name}}}
spec: {{minAvailable: 3, selector: {{matchLabels: {{app: {name}}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 3
{}",
            template(name, image)
        ))?;
        rolled_out(&cluster, &format!("deployment/{name}"))?;
        kubectl.wait(&format!("--for=jsonpath={{.status.currentHealthy}}=3 pdb/{name}"), LONG)?;
    }
    let full = words(&cluster, "pods", "{.items[*].spec.nodeName}")?.remove(0);
    let refused = kubectl.run(&format!("drain {full} --timeout=3s"))?;
    assert!(!refused.success && refused.stderr.contains("would violate the pod's disruption budget"), "{refused:?}");
    let healthy = words(&cluster, "pdb", "{.items[*].status.currentHealthy}")?;
    assert_eq!(healthy, ["3", "3"], "nothing was taken away");

    for (name, _) in KINDS {
        let patch = r#"{"spec":{"minAvailable":2}}"#;
        assert!(kubectl.arguments(&["patch", "pdb", name, "-p", patch], "")?.success);
        kubectl.wait(&format!("--for=jsonpath={{.status.disruptionsAllowed}}=1 pdb/{name}"), LONG)?;
    }
    kubectl.ok(&format!("drain {full} --timeout={}s", 2 * LONG.as_secs()))?;
    for (name, _) in KINDS {
        rolled_out(&cluster, &format!("deployment/{name}"))?;
    }
    let nodes = words(&cluster, "pods", "{.items[*].spec.nodeName}")?;
    assert!(nodes.len() == 6 && !nodes.contains(&full), "{nodes:?}");
    Ok(())
}
