//! Endpoints of Services and Pods.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::{
    super::members::tests::{pod, service},
    *,
};

#[test]
fn groups_by_ports_and_splits_by_readiness() {
    let service = service(IntOrString::String("http".into()));
    let pods = [
        Arc::new(pod(2, true, 8080)),
        Arc::new(pod(1, true, 8080)),
        Arc::new(pod(3, false, 8080)),
        Arc::new(pod(4, true, 9090)),
    ];
    let endpoints = wanted(&service, &pods, None);
    let subsets = endpoints.subsets.clone().unwrap();
    let ips = |addresses: &Option<Vec<EndpointAddress>>| -> Vec<String> {
        addresses.iter().flatten().map(|address| address.ip.clone()).collect()
    };
    assert_eq!(ips(&subsets[0].addresses), ["10.128.0.1", "10.128.0.2"]);
    assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.128.0.3"]);
    assert_eq!(ips(&subsets[1].addresses), ["10.128.0.4"]);
    assert_eq!(wanted(&service, &pods, Some(&endpoints)), endpoints, "then it rests");
}

/// Address, port (0 where there is none) and whether it is ready, of all that Endpoints tell.
fn flat(endpoints: &Endpoints) -> Vec<(String, i32, bool)> {
    let mut flat = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(unready) {
            let ports = subset.ports.iter().flatten().map(|port| port.port);
            let ports: Vec<i32> = if subset.ports.is_none() { vec![0] } else { ports.collect() };
            flat.extend(ports.into_iter().map(|port| (address.ip.clone(), port, ready)));
        }
    }
    flat
}

proptest! {
    #[test]
    fn who_is_told_of_is_the_union_of_the_members(
        pods in prop::collection::btree_map(1u8..30, (any::<bool>(), 0i32..3, any::<bool>(), any::<bool>()), 0..12),
        headless in any::<bool>(), publishes in any::<bool>(), turn in any::<prop::sample::Index>(),
    ) {
        let mut service = service(IntOrString::String("http".into()));
        let spec = service.spec.as_mut().unwrap();
        spec.publish_not_ready_addresses = Some(publishes);
        if headless {
            spec.cluster_ip = Some("None".into());
        }
        let mut told: Vec<_> = pods.iter().map(|(n, (ready, port, deleting, ended))| {
            let mut pod = pod(*n, *ready, 8000 + port);
            if *port == 0 {
                pod.spec.as_mut().unwrap().containers[0].ports = None;
            }
            if *deleting {
                pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default()));
            }
            if *ended {
                pod.status.as_mut().unwrap().phase = Some("Succeeded".into());
            }
            Arc::new(pod)
        }).collect();
        let endpoints = wanted(&service, &told, None);
        let flat = flat(&endpoints);
        // Said of each Pod by itself, without any grouping.
        let expected: BTreeSet<_> = pods.iter().filter_map(|(n, (ready, port, deleting, ended))| {
            let shown = !ended && (publishes || !deleting) && (headless || *port > 0);
            let port = if *port > 0 { 8000 + port } else { 0 };
            shown.then(|| (format!("10.128.0.{n}"), port, publishes || (*ready && !deleting)))
        }).collect();
        prop_assert_eq!(flat.len(), expected.len(), "each once");
        prop_assert_eq!(flat.into_iter().collect::<BTreeSet<_>>(), expected);
        prop_assert_eq!(&wanted(&service, &told, Some(&endpoints)), &endpoints, "then it rests");
        told.rotate_left(if pods.is_empty() { 0 } else { turn.index(pods.len()) });
        prop_assert_eq!(&wanted(&service, &told, None), &endpoints, "in whatever order the Pods are told");
    }
}

#[test]
fn of_too_many_those_that_are_ready_stay_whatever_their_order() {
    let service = service(IntOrString::Int(80));
    let mut pods: Vec<_> = (0..1200u16)
        .map(|n| {
            let mut pod = pod(0, n % 3 == 0 || n >= 600, 80);
            let [high, low] = n.to_be_bytes();
            pod.status.as_mut().unwrap().pod_ip = Some(format!("10.128.{high}.{low}"));
            Arc::new(pod)
        })
        .collect();
    let endpoints = wanted(&service, &pods, None);
    let told = flat(&endpoints);
    assert_eq!((told.len(), told.iter().filter(|(_, _, ready)| *ready).count()), (CAPACITY, 800));
    assert_eq!(endpoints.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY], "truncated");
    pods.reverse();
    assert_eq!(wanted(&service, &pods, None), endpoints);
}
