//! Instructions of the hot paths, one at a time: `cargo bench -p wherry-bench --features micro`.
#![allow(clippy::unwrap_used, missing_docs, reason = "benchmarks")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use wherry_api::apply::{FieldSet, Versions, Writer, apply, update};
use wherry_api::decode::{ContentType, FieldValidation, decode_as};
use wherry_api::encode::{protobuf, wire};
use wherry_api::facts::Schema;
use wherry_scheduler::{Cluster, PodInfo, decide};

const NODES: usize = 500;
const APPS: usize = 40;

fn node(number: usize) -> Value {
    json!({
        "metadata": {"name": format!("node-{number}"), "labels": {
            "kubernetes.io/hostname": format!("node-{number}"), "topology.kubernetes.io/zone": format!("zone-{}", number % 10),
        }},
        "status": {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}},
    })
}

/// A Pod of an application; a constrained one keeps off its own kind and spreads over the zones.
fn pod(number: usize, app: usize, constrained: bool) -> Value {
    let own = json!({"matchLabels": {"app": format!("app-{app}")}});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{number}"), "namespace": "default", "uid": format!("uid-{number}"), "labels": {"app": format!("app-{app}")},
            "annotations": {"example.com/revision": "1"},
        },
        "spec": {"containers": [{
            "name": "main", "image": "registry.example.com/team/app:1.2.3",
            "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "PORT", "value": "8080"}],
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        }]},
    });
    if constrained {
        pod["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": own}]}});
        pod["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own}]);
    }
    pod
}

fn info(number: usize, app: usize, constrained: bool) -> PodInfo {
    PodInfo::new(Arc::new(serde_json::from_value(pod(number, app, constrained)).unwrap()))
}

fn scheduling(criterion: &mut Criterion) {
    for constrained in [false, true] {
        let mut cluster = Cluster::default();
        (0..NODES).for_each(|number| cluster.set_node(Arc::new(serde_json::from_value(node(number)).unwrap())));
        for number in 0..NODES * 20 {
            // Each application has a Pod on every second node.
            let (app, place) = (number % APPS, number / APPS * 2 + number % APPS % 2);
            cluster.place(Arc::new(info(number, app, constrained)), &format!("node-{}", place % NODES));
        }
        let (next, mut turn) = (info(NODES * 20, 0, constrained), 0);
        let what = if constrained { "with anti-affinity and spread" } else { "plain" };
        criterion.bench_function(&format!("decide, 10,000 Pods on {NODES} nodes, {what}"), |bencher| {
            bencher.iter(|| {
                turn += 1;
                decide(&cluster, &next, turn)
            });
        });
    }
}

fn bodies(criterion: &mut Criterion) {
    let schema = Schema::builtin("v1", "Pod").unwrap();
    let json = serde_json::to_vec(&pod(1, 1, true)).unwrap();
    let message = protobuf::from_json(&json, &schema).unwrap();
    let body = wire::envelope("v1", "Pod", &message);
    for (what, bytes, content) in [("JSON", &json, ContentType::Json), ("protobuf", &body, ContentType::Protobuf)] {
        criterion.bench_function(&format!("decode a Pod, {what}"), |bencher| {
            bencher.iter(|| decode_as(black_box(bytes), content, &schema, FieldValidation::Strict).unwrap());
        });
    }
    criterion.bench_function("encode a Pod, protobuf", |bencher| {
        bencher.iter(|| protobuf::from_json(black_box(&json), &schema).unwrap());
    });
}

struct One(Schema);

impl Versions for One {
    fn schema(&self) -> &Schema {
        &self.0
    }

    fn at(&self, _: &str, _: &Value) -> Option<(Schema, Value)> {
        None
    }
}

fn managed_fields(criterion: &mut Criterion) {
    let (versions, reset) = (One(Schema::builtin("v1", "Pod").unwrap()), FieldSet::default());
    let writer = |manager| Writer { manager, subresource: "", now: "2026-01-01T00:00:00Z", reset: &reset };
    let new = pod(1, 1, true);
    criterion.bench_function("managed fields of a new Pod", |bencher| {
        bencher.iter_with_setup(
            || new.clone(),
            |mut new| {
                update(&versions, &Value::Null, &mut new, writer("bench"));
                new
            },
        );
    });
    let live = apply(&versions, &Value::Null, &new, writer("bench"), false).unwrap();
    criterion.bench_function("apply a Pod again", |bencher| {
        bencher.iter(|| apply(&versions, black_box(&live), &new, writer("bench"), false).unwrap());
    });
}

criterion_group!(hot_paths, scheduling, bodies, managed_fields);
criterion_main!(hot_paths);
