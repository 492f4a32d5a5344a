//! Services, Pods and what becomes of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::{
    api::core::v1::{ContainerPort, PodCondition, PodSpec, PodStatus, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use proptest::prelude::*;

use super::*;

pub(in crate::endpoints) fn service(target: IntOrString) -> Service {
    Service {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some("web".into()),
            uid: Some("service".into()),
            ..Default::default()
        },
        spec: Some(ServiceSpec {
            selector: Some([("app".to_owned(), "web".to_owned())].into()),
            cluster_ip: Some("10.96.0.7".into()),
            ports: Some(vec![ServicePort { port: 80, target_port: Some(target), ..Default::default() }]),
            ..Default::default()
        }),
        status: None,
    }
}

pub(in crate::endpoints) fn pod(number: u8, ready: bool, port: i32) -> Pod {
    Pod {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some(format!("pod-{number}")),
            uid: Some(format!("uid-{number}")),
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..Default::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                ports: Some(vec![ContainerPort {
                    name: Some("http".into()),
                    container_port: port,
                    ..Default::default()
                }]),
                ..Default::default()
            }],
            ..Default::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".into()),
            pod_ip: Some(format!("10.128.0.{number}")),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: if ready { "True" } else { "False" }.into(),
                ..Default::default()
            }]),
            ..Default::default()
        }),
    }
}

fn state(service: &Service, pod: Pod) -> Option<(bool, bool, bool)> {
    let members = members(service, &[Arc::new(pod)], Family::V4);
    members.first().map(|member| (member.ready, member.serving, member.terminating))
}

#[test]
fn readiness_and_deletion_decide_the_state() {
    let mut service = service(IntOrString::Int(8080));
    let deleting = |mut pod: Pod| {
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        pod
    };
    assert_eq!(state(&service, pod(1, true, 1)), Some((true, true, false)));
    assert_eq!(state(&service, pod(1, false, 1)), Some((false, false, false)));
    assert_eq!(state(&service, deleting(pod(1, true, 1))), Some((false, true, true)));
    let mut ended = pod(1, false, 1);
    ended.status.as_mut().unwrap().phase = Some("Failed".into());
    assert_eq!(state(&service, ended), None);
    let mut unselected = pod(1, true, 1);
    unselected.metadata.labels = None;
    assert_eq!(state(&service, unselected), None);
    let mut addressless = pod(1, true, 1);
    addressless.status.as_mut().unwrap().pod_ip = None;
    assert_eq!(state(&service, addressless), None);
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    assert_eq!(state(&service, pod(1, false, 1)), Some((true, false, false)));
}

#[test]
fn named_ports_are_looked_up_in_each_pod() {
    let service = service(IntOrString::String("http".into()));
    let pods = [Arc::new(pod(1, true, 8080)), Arc::new(pod(2, true, 9090))];
    let numbers: Vec<_> = members(&service, &pods, Family::V4).iter().map(|member| member.ports[0].number).collect();
    assert_eq!(numbers, [8080, 9090]);
    let mut nameless = pod(3, true, 1);
    nameless.spec.as_mut().unwrap().containers[0].ports = None;
    assert!(members(&service, &[Arc::new(nameless)], Family::V4)[0].ports.is_empty());
}

/// A Pod in one of the states that it may be in: one number for each thing that may change.
fn in_state(state: &[usize]) -> Pod {
    let mut pod = pod(1, state[0] == 0, 8080);
    pod.metadata.labels =
        [None, Some("web"), Some("api")][state[1]].map(|app| [("app".to_owned(), app.to_owned())].into());
    pod.metadata.deletion_timestamp = (state[2] == 0).then_some(Time(Timestamp::UNIX_EPOCH));
    pod.metadata.uid = Some(format!("u{}", state[3] / 2));
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = (state[4] == 0).then(|| "n".to_owned());
    (spec.hostname, spec.subdomain) =
        (Some("h".into()), [None, Some("web".into()), Some("x".into())][state[5]].clone());
    let status = pod.status.as_mut().unwrap();
    status.phase = Some(["Pending", "Running", "Failed"][state[6]].into());
    status.pod_ip = [None, Some("10.128.0.1"), Some("10.128.0.2")][state[7]].map(str::to_owned);
    let second = ["10.128.0.1", "fd00::1"].map(|ip| k8s_openapi::api::core::v1::PodIP { ip: ip.into() });
    status.pod_ips = [None, Some(second[..1].to_vec()), Some(second.to_vec())][state[8]].clone();
    status.message = Some(format!("m{}", state[9]));
    pod
}

proptest! {
    #[test]
    fn what_is_not_relevant_changes_no_member(
        old in prop::collection::vec(0usize..3, 10), changed in prop::collection::vec((0usize..10, 0usize..3), 0..3),
        publishes in any::<bool>(),
    ) {
        let mut new = old.clone();
        changed.into_iter().for_each(|(what, state)| new[what] = state);
        let (old, new) = (in_state(&old), in_state(&new));
        let mut service = service(IntOrString::String("http".into()));
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(publishes);
        let of = |pod: &Pod, family| members(&service, &[Arc::new(pod.clone())], family);
        for family in [Family::V4, Family::V6] {
            let (before, after) = (of(&old, family), of(&new, family));
            prop_assert!(before == after || is_relevant(&old, &new), "{:?} became {:?}", before, after);
            for member in after {
                prop_assert_eq!(Family::of(&member.address), family);
                prop_assert!(!member.ready || publishes || (member.serving && !member.terminating));
            }
        }
    }
}
