//! A HorizontalPodAutoscaler on what the nodes measure of both kinds.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::is_root;

use crate::setting::{KINDS, LONG, cluster, rolled_out, template};

#[test]
fn pods_come_and_go_with_what_they_use() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    let kubectl = cluster.kubectl();
    for (name, image) in KINDS {
        // Each uses more than a hundred bytes of memory, and less than a terabyte.
        kubectl.apply(&format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 1
{}---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: 1
  maxReplicas: 3
  behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}
  metrics: [{{type: Resource, resource: {{name: memory, target: {{type: AverageValue, averageValue: 100}}}}}}]
",
            template(name, image)
        ))?;
    }
    for (name, _) in KINDS {
        kubectl.wait(&format!("--for=jsonpath={{.spec.replicas}}=3 deployment/{name}"), LONG)?;
        rolled_out(&cluster, &format!("deployment/{name}"))?;
        kubectl.wait(&format!("--for=condition=ScalingActive hpa/{name}"), LONG)?;
        let metrics = "get hpa NAME -o jsonpath={.status.currentMetrics[0].resource.current.averageValue}";
        let used = kubectl.ok(&metrics.replace("NAME", name))?;
        assert!(!used.is_empty() && used != "0", "{used}");
        let patch = r#"[{"op":"replace","path":"/spec/metrics/0/resource/target/averageValue","value":"1T"}]"#;
        assert!(kubectl.arguments(&["patch", "hpa", name, "--type=json", "-p", patch], "")?.success);
        kubectl.wait(&format!("--for=jsonpath={{.spec.replicas}}=1 deployment/{name}"), LONG)?;
        let events = kubectl
            .ok(&format!("get events --field-selector=involvedObject.name={name} -o jsonpath={{.items[*].message}}"))?;
        assert!(events.contains("New size: 3") && events.contains("New size: 1"), "{events}");
    }
    Ok(())
}
