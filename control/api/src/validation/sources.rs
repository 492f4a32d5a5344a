//! What volumes are filled from, in Pods and as PersistentVolumes: a row for each source with what its fields must be
//! (upstream: `validateVolumeSource` and `ValidatePersistentVolumeSpec`).

use serde_json::Value;

use super::container::{descending_path, no_backsteps};
use super::{At, Errors, is_set, items, names, text};

/// What a field of a source must be.
pub(super) enum Check {
    /// There, and not empty.
    Need(&'static str),
    /// As a rule of names says, if it is there.
    Named(&'static str, names::Rule),
    /// One of these, if it is there.
    OneOf(&'static str, &'static [&'static str]),
    /// From 0 to 255; the text is what is said otherwise.
    Byte(&'static str, &'static str),
    /// An absolute path.
    Absolute(&'static str),
    /// A relative path that does not climb.
    Descending(&'static str),
    /// A path that does not climb.
    Level(&'static str),
    /// If it is there, an object that has all of these.
    Reference(&'static str, &'static [&'static str]),
    /// If it is there, a Secret's name and namespace, both well-formed.
    Secret(&'static str),
    /// Anything else.
    Other(fn(&Value, &At, &mut Errors)),
}

use Check::{Absolute, Byte, Descending, Level, Named, Need, OneOf, Other, Reference, Secret};

/// A source's field, the name it has in the paths of errors, and its checks.
pub(super) type Row = (&'static str, &'static str, &'static [Check]);

const LUN: &str = "must be between 0 and 255, inclusive";
const PARTITION: &str = "must be between 1 and 255, inclusive";
const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
const NAME: &[&str] = &["name"];
const NAME_AND_NAMESPACE: &[&str] = &["name", "namespace"];
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub(super) const HOST_PATH: Row = ("hostPath", "hostPath", &[Other(host_path)]);
const GCE: Row = ("gcePersistentDisk", "persistentDisk", &[Need("pdName"), Byte("partition", PARTITION)]);
const AWS: Row = ("awsElasticBlockStore", "awsElasticBlockStore", &[Need("volumeID"), Byte("partition", PARTITION)]);
const NFS: Row = ("nfs", "nfs", &[Need("server"), Need("path"), Absolute("path")]);
const FLOCKER: Row = ("flocker", "flocker", &[Other(flocker)]);
const RBD: Row = ("rbd", "rbd", &[Need("monitors"), Need("image")]);
const CEPHFS: Row = ("cephfs", "cephfs", &[Need("monitors")]);
const QUOBYTE: Row = ("quobyte", "quobyte", &[Other(quobyte), Need("volume")]);
const FC: Row = ("fc", "fc", &[Other(fibre_channel)]);
const FLEX: Row = ("flexVolume", "flexVolume", &[Need("driver"), Other(flex_options)]);
const VSPHERE: Row = ("vsphereVolume", "vsphereVolume", &[Need("volumePath")]);
const PHOTON: Row = ("photonPersistentDisk", "photonPersistentDisk", &[Need("pdID")]);
const PORTWORX: Row = ("portworxVolume", "portworxVolume", &[Need("volumeID")]);
const AZURE_DISK: Row = (
    "azureDisk",
    "azureDisk",
    &[
        Need("diskName"),
        Need("diskURI"),
        OneOf("cachingMode", &["None", "ReadOnly", "ReadWrite"]),
        OneOf("kind", &["Dedicated", "Managed", "Shared"]),
        Other(disk_uri),
    ],
);
const STORAGE_OS_VOLUME: Check = Named("volumeName", names::label);
const STORAGE_OS_NAMESPACE: Check = Named("volumeNamespace", names::label);
const SCALE_IO: Row = ("scaleIO", "scaleIO", &[Need("gateway"), Need("system"), Need("volumeName")]);

/// The sources of a Pod's volume that Pods and PersistentVolumes do not share with the volume's own module, in the order in
/// which upstream looks for them.
pub(super) const IN_POD: &[Row] = &[
    HOST_PATH,
    ("gitRepo", "gitRepo", &[Need("repository"), Descending("directory")]),
    GCE,
    AWS,
    NFS,
    ("iscsi", "iscsi", &[Other(|s, at, e| iscsi(s, "must be valid format starting with iqn, eui, or naa", at, e))]),
    ("glusterfs", "glusterfs", &[Need("endpoints"), Need("path")]),
    FLOCKER,
    ("persistentVolumeClaim", "persistentVolumeClaim", &[Need("claimName")]),
    RBD,
    ("cinder", "cinder", &[Need("volumeID"), Reference("secretRef", NAME)]),
    CEPHFS,
    QUOBYTE,
    FC,
    FLEX,
    ("azureFile", "azureFile", &[Need("secretName"), Need("shareName")]),
    VSPHERE,
    PHOTON,
    PORTWORX,
    AZURE_DISK,
    (
        "storageos",
        "storageos",
        &[Need("volumeName"), STORAGE_OS_VOLUME, STORAGE_OS_NAMESPACE, Reference("secretRef", NAME)],
    ),
    SCALE_IO,
    ("csi", "csi", &[Other(csi_driver), Reference("nodePublishSecretRef", NAME)]),
];

/// The sources of PersistentVolumes, in upstream's order.
pub(super) const PERSISTENT: &[Row] = &[
    HOST_PATH,
    GCE,
    AWS,
    ("glusterfs", "glusterfs", &[Need("endpoints"), Need("path"), Named("endpointsNamespace", names::label)]),
    FLOCKER,
    NFS,
    RBD,
    QUOBYTE,
    CEPHFS,
    ("iscsi", "iscsi", &[Other(|s, at, e| iscsi(s, "must be valid format", at, e)), Reference("secretRef", NAME)]),
    ("cinder", "cinder", &[Need("volumeID"), Reference("secretRef", NAME_AND_NAMESPACE)]),
    FC,
    FLEX,
    ("azureFile", "azureFile", &[Need("secretName"), Need("shareName"), Other(secret_namespace)]),
    VSPHERE,
    PHOTON,
    PORTWORX,
    AZURE_DISK,
    SCALE_IO,
    ("local", "local", &[Need("path"), Level("path")]),
    (
        "storageos",
        "storageos",
        &[Need("volumeName"), STORAGE_OS_VOLUME, STORAGE_OS_NAMESPACE, Reference("secretRef", NAME_AND_NAMESPACE)],
    ),
    (
        "csi",
        "csi",
        &[
            Other(csi_driver),
            Need("volumeHandle"),
            Secret("controllerPublishSecretRef"),
            Secret("controllerExpandSecretRef"),
            Secret("nodePublishSecretRef"),
            Secret("nodeExpandSecretRef"),
        ],
    ),
];

/// Checks the one source that `holder` has of `rows`, and that it is one.
pub(super) fn one_of(holder: &Value, rows: &[Row], at: &At, errors: &mut Errors) {
    let mut given = rows.iter().filter(|(key, ..)| is_set(holder, key));
    let Some((key, shown, checks)) = given.next() else {
        return errors.required(at, "must specify a volume type");
    };
    for (more, ..) in given {
        errors.forbidden(&at.field(more), "may not specify more than 1 volume type");
    }
    source(&holder[*key], checks, &at.field(shown), errors);
}

/// Checks a source.
pub(super) fn source(source: &Value, checks: &[Check], at: &At, errors: &mut Errors) {
    for check in checks {
        match *check {
            Need(key) => need(source, key, at, errors),
            Named(key, rule) if !text(source, key).is_empty() => errors.rule(&at.field(key), text(source, key), rule),
            OneOf(key, supported) if is_set(source, key) => errors.one_of(&at.field(key), text(source, key), supported),
            Byte(key, why) => {
                if let Some(n) = source[key].as_i64().filter(|n| !(0..=255).contains(n)) {
                    errors.invalid(&at.field(key), n, why);
                }
            }
            Absolute(key) if !text(source, key).starts_with('/') => {
                errors.invalid(&at.field(key), text(source, key), "must be an absolute path");
            }
            Descending(key) => descending_path(text(source, key), &at.field(key), errors),
            Level(key) => no_backsteps(text(source, key), &at.field(key), errors),
            Reference(key, fields) if is_set(source, key) => {
                for field in fields.iter().filter(|field| text(&source[key], field).is_empty()) {
                    errors.required(&at.field(key).field(field), "");
                }
            }
            Secret(key) if is_set(source, key) => {
                let at = at.field(key);
                super::container::required_name(&source[key], "name", names::subdomain, &at, errors);
                super::container::required_name(&source[key], "namespace", names::label, &at, errors);
            }
            Other(check) => check(source, at, errors),
            _ => {}
        }
    }
}

fn need(source: &Value, key: &str, at: &At, errors: &mut Errors) {
    if text(source, key).is_empty() && items(source, key).is_empty() {
        errors.required(&at.field(key), "");
    }
}

fn host_path(source: &Value, at: &At, errors: &mut Errors) {
    match text(source, "path") {
        "" => return errors.required(&at.field("path"), ""),
        path => no_backsteps(path, &at.field("path"), errors),
    }
    errors.one_of(&at.field("type"), text(source, "type"), HOST_PATH_TYPES);
}

fn iscsi(source: &Value, unknown: &str, at: &At, errors: &mut Errors) {
    need(source, "targetPortal", at, errors);
    need(source, "iqn", at, errors);
    for (key, shown) in [("iqn", "iqn"), ("initiatorName", "initiatorname")] {
        let name = text(source, key);
        if !name.is_empty() && !["iqn", "eui", "naa"].iter().any(|kind| name.starts_with(kind)) {
            errors.invalid(&at.field(shown), name, unknown);
        } else if !name.is_empty() && !is_initiator(name) {
            errors.invalid(&at.field(shown), name, "must be valid format");
        }
    }
    if let Some(lun) = source["lun"].as_i64().filter(|lun| !(0..=255).contains(lun)) {
        errors.invalid(&at.field("lun"), lun, LUN);
    }
    let authenticates = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|key| source[*key] == true);
    if authenticates && !is_set(source, "secretRef") {
        errors.required(&at.field("secretRef"), "");
    }
}

/// `iqn.2001-04.com.example:disk`, `eui.` and 16 hexadecimal digits, `naa.` and 16 or 32 of them.
fn is_initiator(name: &str) -> bool {
    let Some((kind, rest)) = name.split_once('.') else { return false };
    let digits =
        |text: &str, counts: &[usize]| counts.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    match kind {
        "eui" => digits(rest, &[16]),
        "naa" => digits(rest, &[16, 32]),
        _ => {
            let bytes = rest.as_bytes();
            let date = bytes.len() > 7
                && bytes.iter().take(7).enumerate().all(|(i, b)| if i == 4 { *b == b'-' } else { b.is_ascii_digit() });
            kind == "iqn" && date && bytes.get(7) == Some(&b'.') && bytes.len() > 8
        }
    }
}

fn flocker(source: &Value, at: &At, errors: &mut Errors) {
    let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.required(at, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            errors.invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&at.field("datasetName"), name, "must not contain '/'");
    }
}

fn quobyte(source: &Value, at: &At, errors: &mut Errors) {
    let registry = text(source, "registry");
    if registry.is_empty() {
        errors.required(&at.field("registry"), PAIRS);
    } else if text(source, "tenant").len() >= 65 {
        errors.required(&at.field("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for _ in registry.split(',').filter(|pair| pair.matches(':').count() != 1 && !pair.contains("]:")) {
            errors.invalid(&at.field("registry"), registry, PAIRS);
        }
    }
}

fn fibre_channel(source: &Value, at: &At, errors: &mut Errors) {
    let (names, ids) = (items(source, "targetWWNs"), items(source, "wwids"));
    let names_at = at.field("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        errors.required(&names_at, "must specify either targetWWNs or wwids, but not both");
    }
    if names.is_empty() {
        return;
    }
    if !ids.is_empty() {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(&names_at, source["targetWWNs"].clone(), why);
    }
    match source["lun"].as_i64() {
        None => errors.required(&at.field("lun"), "lun is required if targetWWNs is specified"),
        Some(lun) if !(0..=255).contains(&lun) => errors.invalid(&at.field("lun"), lun, LUN),
        Some(_) => {}
    }
}

fn flex_options(source: &Value, at: &At, errors: &mut Errors) {
    for (key, _) in super::entries(&source["options"]) {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&at.field("options").key(key), key.as_str(), why);
        }
    }
}

fn disk_uri(source: &Value, at: &At, errors: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let uri = text(source, "diskURI");
    let (prefix, form) = match text(source, "kind") {
        "" => return,
        "Managed" => ("/subscriptions/", MANAGED),
        _ => ("https://", BLOB),
    };
    if !uri.starts_with(prefix) {
        errors.not_supported(&at.field("diskURI"), uri, &[form]);
    }
}

fn secret_namespace(source: &Value, at: &At, errors: &mut Errors) {
    if is_set(source, "secretNamespace") {
        need(source, "secretNamespace", at, errors);
    }
}

/// The name of a CSI driver.
fn csi_driver(source: &Value, at: &At, errors: &mut Errors) {
    let (driver, at) = (text(source, "driver"), at.field("driver"));
    if driver.is_empty() {
        return errors.required(&at, "");
    }
    if driver.len() > 63 {
        errors.too_long(&at, 63);
    }
    for why in names::subdomain(&driver.to_lowercase()) {
        errors.invalid(&at, driver, why);
    }
}
