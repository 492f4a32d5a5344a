//! The walk-through of the HorizontalPodAutoscaler: load makes Pods come, its end makes them go; and another, by memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use wherry_test::{get, is_root};

use crate::lesson::{Lesson, play};
use crate::setting::cluster;

#[test]
fn pods_come_and_go_with_what_they_use() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    play(&cluster, "autoscaling", |lesson| {
        lesson.apply(include_str!("tutorials/autoscaling.yaml"))?;
        lesson.rolled_out("deployment/busy")?;
        let percent = if lesson.ok("autoscale --help")?.contains("--cpu=") { "--cpu=50%" } else { "--cpu-percent=50" };
        let said = lesson.ok(&format!("autoscale deployment busy {percent} --min=1 --max=3"))?;
        assert_eq!(said, "horizontalpodautoscaler.autoscaling/busy autoscaled\n");
        lesson.patch("hpa/busy", r#"{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0}}}}"#)?;
        under_load(lesson)?;
        by_memory(lesson)?;
        lesson.wait("--for=jsonpath={.spec.replicas}=1 deployment/busy")?;
        ensure!(sizes(lesson, "busy")?.contains("New size: 1; reason: All metrics below target"), "after the load");
        Ok(())
    })
}

/// What the autoscaler of a Deployment said it did.
fn sizes(lesson: &Lesson<'_>, name: &str) -> anyhow::Result<String> {
    let of = format!("involvedObject.kind=HorizontalPodAutoscaler,involvedObject.name={name}");
    lesson.ok(&format!("get events --field-selector={of} -o jsonpath={{.items[*].message}}"))
}

fn under_load(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let address = lesson.cluster.url(&format!("busy -n {}", lesson.namespace))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Half a core, of which a twentieth was requested: it spins by the clock, and has less where others use the machine.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // While Pods come, not each request finds one.
                drop(get(&address, "/spin?ms=50"));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let grown = lesson.wait("--for=jsonpath={.spec.replicas}=3 deployment/busy").and_then(|()| {
            lesson.rolled_out("deployment/busy")?;
            lesson.until("get hpa busy -o jsonpath={.status.currentReplicas}", |count| count == "3")
        });
        over.store(true, Ordering::Relaxed);
        grown
    })?;
    let row = lesson.table("hpa busy")?.remove(0);
    let shown = ["NAME", "REFERENCE", "MINPODS", "MAXPODS", "REPLICAS"].map(|column| row[column].as_str());
    assert_eq!(shown, ["busy", "Deployment/busy", "1", "3", "3"]);
    let targets = &row["TARGETS"];
    ensure!(targets.starts_with("cpu: ") && targets.ends_with("%/50%") && !targets.contains("unknown"), "{targets}");
    let said = sizes(lesson, "busy")?;
    ensure!(said.contains("reason: cpu resource utilization (percentage of request) above target"), "{said}");
    let told = lesson.ok("describe hpa busy")?;
    ensure!(told.contains("ScalingActive") && told.contains("ValidMetricFound"), "{told}");
    Ok(())
}

fn by_memory(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.wait("--for=jsonpath={.spec.replicas}=3 deployment/large")?;
    lesson.rolled_out("deployment/large")?;
    lesson.wait("--for=condition=ScalingActive hpa/large")?;
    let used = lesson.ok("get hpa large -o jsonpath={.status.currentMetrics[0].resource.current.averageValue}")?;
    ensure!(!used.is_empty() && used != "0", "{used}");
    let patch = r#"[{"op":"replace","path":"/spec/metrics/0/resource/target/averageValue","value":"1T"}]"#;
    ensure!(lesson.kubectl().arguments(&["patch", "hpa", "large", "--type=json", "-p", patch], "")?.success);
    lesson.wait("--for=jsonpath={.spec.replicas}=1 deployment/large")?;
    let said = sizes(lesson, "large")?;
    ensure!(said.contains("New size: 3") && said.contains("New size: 1"), "{said}");
    Ok(())
}
