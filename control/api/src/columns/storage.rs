//! Volumes, claims and CSI.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, name, name_or_default, number, shown, shown_or, truth, wide};
use crate::validation::{is_set, items, text};

pub(crate) const PV: &[Column] = &[
    NAME,
    shown("Capacity", "The volume's size."),
    shown("Access Modes", "How the volume can be mounted."),
    shown("Reclaim Policy", "What becomes of the volume when it is released."),
    shown("Status", "Whether it is available, bound or released."),
    shown("Claim", "Whose it is."),
    shown("StorageClass", "StorageClass of the pv"),
    shown("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    shown("Reason", "Why it is in this state."),
    AGE,
    wide("VolumeMode", "Whether it is a filesystem or a block device."),
];
pub(crate) const PVC: &[Column] = &[
    NAME,
    shown("Status", "Whether it is bound."),
    shown("Volume", "The volume it is bound to."),
    shown("Capacity", "The volume's size."),
    shown("Access Modes", "How the volume can be mounted."),
    shown("StorageClass", "StorageClass of the pvc"),
    shown("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    wide("VolumeMode", "Whether it is a filesystem or a block device."),
];
pub(crate) const STORAGE_CLASS: &[Column] = &[
    NAME,
    shown("Provisioner", "Who makes the volumes."),
    shown("ReclaimPolicy", "What becomes of released volumes."),
    shown("VolumeBindingMode", "When volumes are made and bound."),
    shown("AllowVolumeExpansion", "Whether volumes can grow."),
    AGE,
];
pub(crate) const VOLUME_ATTACHMENT: &[Column] = &[
    NAME,
    Column { format: "name", ..shown("Attacher", "Who attaches the volume.") },
    shown("PV", "The volume."),
    shown("Node", "The node."),
    truth("Attached", "Whether it is attached."),
    AGE,
];
pub(crate) const VOLUME_ATTRIBUTES_CLASS: &[Column] = &[NAME, shown("DriverName", "The driver."), AGE];
pub(crate) const CSI_NODE: &[Column] =
    &[NAME, number("Drivers", "The number of CSI drivers registered on the node."), AGE];
pub(crate) const CSI_DRIVER: &[Column] = &[
    NAME,
    truth("AttachRequired", "Whether volumes are attached before they are mounted."),
    truth("PodInfoOnMount", "Whether the driver is told about the pod."),
    truth("StorageCapacity", "Whether the driver publishes its capacity."),
    shown("TokenRequests", "The audiences of tokens for the driver."),
    truth("RequiresRepublish", "Whether volumes are published again and again."),
    shown("Modes", "The lifecycles the driver supports."),
    AGE,
];
pub(crate) const CSI_CAPACITY: &[Column] =
    &[NAME, shown("StorageClassName", "The storage class."), shown("Capacity", "What is left.")];

fn modes(list: &[Value]) -> Value {
    let all =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let shown: Vec<&str> =
        all.iter().filter(|(long, _)| list.iter().any(|m| m == long)).map(|(_, short)| *short).collect();
    shown.join(",").into()
}

fn phase(object: &Value) -> Value {
    if is_set(&object["metadata"], "deletionTimestamp") {
        "Terminating".into()
    } else {
        text(&object["status"], "phase").into()
    }
}

/// The storage class: the annotation of old, else the field.
fn class(object: &Value) -> Value {
    let annotation = crate::meta::annotation(object, "volume.beta.kubernetes.io/storage-class");
    annotation.unwrap_or_else(|| text(&object["spec"], "storageClassName")).into()
}

pub(crate) fn pv(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let claim = &spec["claimRef"];
    let claim_cell =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(claim, "namespace"), text(claim, "name")) };
    vec![
        name(object),
        shown_or(&spec["capacity"]["storage"], "0").into(),
        modes(items(spec, "accessModes")),
        text(spec, "persistentVolumeReclaimPolicy").into(),
        phase(object),
        claim_cell.into(),
        class(object),
        shown_or(&spec["volumeAttributesClassName"], "<unset>").into(),
        text(&object["status"], "reason").into(),
        age(object, now),
        shown_or(&spec["volumeMode"], "<unset>").into(),
    ]
}

pub(crate) fn pvc(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let volume = text(spec, "volumeName");
    let (capacity, access) = if volume.is_empty() {
        (String::new(), "".into())
    } else {
        (shown_or(&status["capacity"]["storage"], "0"), modes(items(status, "accessModes")))
    };
    vec![
        name(object),
        phase(object),
        volume.into(),
        capacity.into(),
        access,
        class(object),
        shown_or(&spec["volumeAttributesClassName"], "<unset>").into(),
        age(object, now),
        shown_or(&spec["volumeMode"], "<unset>").into(),
    ]
}

pub(crate) fn volume_attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        name(object),
        text(spec, "attacher").into(),
        text(&spec["source"], "persistentVolumeName").into(),
        text(spec, "nodeName").into(),
        (object["status"]["attached"] == true).into(),
        age(object, now),
    ]
}

pub(crate) fn volume_attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "driverName").into(), age(object, now)]
}

pub(crate) fn csi_node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items(&object["spec"], "drivers").len().into(), age(object, now)]
}

pub(crate) fn csi_driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let join = |list: Vec<&str>, empty: &'static str| {
        if list.is_empty() { empty.into() } else { Value::String(list.join(",")) }
    };
    vec![
        name(object),
        (spec["attachRequired"] != false).into(),
        (spec["podInfoOnMount"] == true).into(),
        (spec["storageCapacity"] == true).into(),
        join(items(spec, "tokenRequests").iter().map(|t| text(t, "audience")).collect(), "<unset>"),
        (spec["requiresRepublish"] == true).into(),
        join(items(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect(), "<none>"),
        age(object, now),
    ]
}

pub(crate) fn csi_capacity(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "storageClassName").into(), shown_or(&object["capacity"], "<unset>").into()]
}

pub(crate) fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let or = |key: &str, missing: &'static str| {
        if is_set(object, key) { text(object, key).into() } else { missing.into() }
    };
    vec![
        name_or_default(object, "storageclass.kubernetes.io/is-default-class"),
        text(object, "provisioner").into(),
        or("reclaimPolicy", "Delete"),
        or("volumeBindingMode", "Immediate"),
        (object["allowVolumeExpansion"] == true).into(),
        age(object, now),
    ]
}
