//! Storage: the class that is there, a claim from its making to its end.

use anyhow::{Result, ensure};

use crate::scene::{HELLO, Scene};

pub(crate) fn from_class_to_end(scene: &Scene) -> Result<()> {
    scene.says(
        "get storageclass local-path",
        &["local-path (default)", "wherry.dev/local-path", "Delete", "WaitForFirstConsumer", "true"],
    )?;
    scene.kubectl.ok_with(
        "apply -f -",
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
",
    )?;
    scene.kubectl.ok("wait --for=jsonpath={.status.phase}=Pending pvc/data --timeout=60s")?;
    scene.says("get pvc data", &["Pending", "local-path"])?;
    scene.kubectl.ok_with(
        "apply -f -",
        &format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: user}}
spec:
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
  containers: [{{name: c, image: '{HELLO}', volumeMounts: [{{name: data, mountPath: /data}}]}}]
"
        ),
    )?;
    scene.kubectl.ok("wait --for=condition=Ready pod/user --timeout=60s")?;
    scene.says("get pvc data", &["Bound", "1Gi", "RWO", "local-path"])?;
    let volume = scene.kubectl.ok("get pvc data -o jsonpath={.spec.volumeName}")?;
    scene.says(
        "describe pvc data",
        &[
            "Status:        Bound",
            "kubernetes.io/pvc-protection",
            "pv.kubernetes.io/bind-completed: yes",
            "Used By:       user",
            "WaitForFirstConsumer",
            "ProvisioningSucceeded",
        ],
    )?;
    scene
        .says(&format!("get pv {volume}"), &["1Gi", "RWO", "Delete", "Bound", &format!("{}/data", scene.namespace)])?;
    scene.says(
        &format!("describe pv {volume}"),
        &["LocalVolume", "kubernetes.io/hostname in", "wherry.dev/local-path"],
    )?;
    scene.says(
        "patch pvc data -p {\"spec\":{\"resources\":{\"requests\":{\"storage\":\"2Gi\"}}}}",
        &["persistentvolumeclaim/data patched"],
    )?;
    scene.kubectl.ok("wait --for=jsonpath={.status.capacity.storage}=2Gi pvc/data --timeout=60s")?;
    scene.refuses(
        "patch pvc data -p {\"spec\":{\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}",
        &["field can not be less than status.capacity"],
    )?;
    scene.kubectl.ok("delete pvc data --wait=false")?;
    scene.says("get pvc data", &["Terminating"])?;
    scene.kubectl.ok("delete pod user --grace-period=1")?;
    scene.kubectl.ok(&format!("wait --for=delete pvc/data pv/{volume} --timeout=60s"))?;
    let left = scene.kubectl.ok("get pvc -o name")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}
