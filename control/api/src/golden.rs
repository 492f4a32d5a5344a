//! Upstream's own data: an object of each kind with every field set, as JSON and as protobuf.
//!
//! `testdata/golden.jsonl.gz` is made by `facts/golden`; how, it says itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

use base64::Engine as _;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decode::{ContentType, FieldValidation, decode_as};
use crate::encode::{protobuf, wire};
use crate::facts::Schema;
use crate::resource::Registry;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Golden {
    api_version: String,
    kind: String,
    json: Box<RawValue>,
    protobuf: String,
}

fn golden() -> impl Iterator<Item = Golden> {
    let packed = &include_bytes!("../testdata/golden.jsonl.gz")[..];
    BufReader::new(GzDecoder::new(packed)).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

#[test]
fn upstreams_objects_read_alike_in_both_forms_and_are_written_back() {
    for golden in golden() {
        let Golden { api_version, kind, json, protobuf } = golden;
        let protobuf = base64::engine::general_purpose::STANDARD.decode(protobuf).unwrap();
        let schema = Schema::builtin(&api_version, &kind).unwrap();
        let read = |bytes: &[u8], content| decode_as(bytes, content, &schema, FieldValidation::Strict).unwrap().object;
        let object = read(json.get().as_bytes(), ContentType::Json);
        assert_eq!(read(&protobuf, ContentType::Protobuf), object, "{api_version} {kind}");
        let written = protobuf::document(&object).unwrap().unwrap();
        assert_eq!(read(&written, ContentType::Protobuf), object, "{api_version} {kind}");
        assert!(written == protobuf, "{api_version} {kind}:\n{}\n{}", written.escape_ascii(), protobuf.escape_ascii());
        let stored = protobuf::from_json(object.to_string().as_bytes(), &schema).unwrap();
        assert!(wire::envelope(&api_version, &kind, &stored) == protobuf, "{api_version} {kind} from JSON");
    }
}

#[test]
fn there_is_an_object_of_every_kind() {
    let seen: BTreeSet<_> = golden().map(|golden| (golden.api_version, golden.kind)).collect();
    let registry = Registry::builtin();
    // Metrics are not among upstream's own types; their objects are tested below.
    let own = registry.resources().filter(|r| !r.group.ends_with("metrics.k8s.io"));
    let kinds = own.map(|r| (r.api_version(), r.kind.to_string()));
    let missing: Vec<_> = kinds.filter(|kind| !seen.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_used_is_written_in_both_forms() {
    let object = serde_json::json!({
        "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics", "metadata": {"name": "p", "namespace": "n"},
        "timestamp": "2026-01-02T03:04:05Z", "window": "1m15.25s",
        "containers": [{"name": "c", "usage": {"cpu": "1500n", "memory": "3Ki"}}],
    });
    let schema = Schema::builtin("metrics.k8s.io/v1beta1", "PodMetrics").unwrap();
    let written = protobuf::document(&object).unwrap().unwrap();
    let read = decode_as(&written, ContentType::Protobuf, &schema, FieldValidation::Strict).unwrap().object;
    assert_eq!(read["containers"], object["containers"]);
    assert_eq!((&read["timestamp"], &read["window"]), (&object["timestamp"], &object["window"]));
    let list = serde_json::json!({
        "apiVersion": "custom.metrics.k8s.io/v1beta2", "kind": "MetricValueList", "metadata": {}, "items": [{
            "describedObject": {"kind": "Pod", "namespace": "n", "name": "p", "apiVersion": "v1"},
            "metric": {"name": "http_requests_per_second"}, "timestamp": "2026-01-02T03:04:05Z", "windowSeconds": 15, "value": "1500m",
        }],
    });
    let schema = Schema::builtin("custom.metrics.k8s.io/v1beta2", "MetricValueList").unwrap();
    let written = protobuf::document(&list).unwrap().unwrap();
    let read = decode_as(&written, ContentType::Protobuf, &schema, FieldValidation::Strict).unwrap().object;
    assert_eq!(read["items"], list["items"]);
}
