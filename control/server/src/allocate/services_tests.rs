#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn services() -> Arc<Services> {
    Arc::new(Services::new("10.96.0.0/16".parse().unwrap(), 30000..=32767, vec![Ipv4Addr::new(10, 96, 0, 1)]))
}

fn service(spec: Value) -> Value {
    json!({"kind": "Service", "metadata": {"name": "s"}, "spec": spec})
}

fn created(services: &Arc<Services>, spec: Value) -> Value {
    let mut new = service(spec);
    services.prepare(&mut new, None).map_err(|s| s.message).unwrap().commit();
    new
}

fn refusal(services: &Arc<Services>, spec: Value) -> String {
    services.prepare(&mut service(spec), None).err().unwrap().message
}

#[test]
fn addresses_come_and_go() {
    let all = services();
    let a = created(&all, json!({"ports": [{"port": 80}]}));
    let address: Ipv4Addr = a["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    assert!(all.cidr.contains(&address));
    assert_eq!(a["spec"]["clusterIPs"], json!([address.to_string()]));
    assert_eq!(a["spec"]["ipFamilies"], json!(["IPv4"]));
    assert!(refusal(&all, json!({"clusterIP": address.to_string()})).contains("provided IP is already allocated"));
    drop(all.release_all(&a));
    assert!(
        refusal(&all, json!({"clusterIP": address.to_string()})).contains("already allocated"),
        "an aborted delete"
    );
    all.release_all(&a).commit();
    created(&all, json!({"clusterIP": address.to_string()}));
    assert!(refusal(&all, json!({"clusterIP": "10.97.0.1"})).contains("not in the valid range"));
    assert!(refusal(&all, json!({"clusterIP": "10.96.255.255"})).contains("not in the valid range"));
    assert_eq!(created(&all, json!({"clusterIP": "None"}))["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(
        created(&all, json!({"type": "ExternalName", "clusterIP": ""}))["spec"],
        json!({"type": "ExternalName"})
    );
}

#[test]
fn a_failed_write_gives_back_what_it_took() {
    let all = services();
    let mut new =
        service(json!({"type": "NodePort", "clusterIP": "10.96.3.3", "ports": [{"port": 80, "nodePort": 30001}]}));
    drop(all.prepare(&mut new, None).ok().unwrap());
    all.prepare(&mut new, None).ok().unwrap().commit();
    // One part fails: the other is given back too.
    assert!(
        refusal(
            &all,
            json!({"type": "NodePort", "clusterIP": "10.96.3.4", "ports": [{"port": 80, "nodePort": 30001}]})
        )
        .contains("spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated")
    );
    created(&all, json!({"clusterIP": "10.96.3.4"}));
}

#[test]
fn a_replacement_keeps_its_numbers() {
    let all = services();
    let old = created(
        &all,
        json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "nodePort": 31000}, {"port": 53, "nodePort": 31000}]}),
    );
    let mut new = service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 54}]}));
    all.prepare(&mut new, Some(&old)).ok().unwrap().commit();
    assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(new["spec"]["ports"][0]["nodePort"], old["spec"]["ports"][0]["nodePort"]);
    // 31000 is free again.
    created(&all, json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 31000}]}));
    // Becoming internal gives all of them back.
    let mut internal = new.clone();
    internal["spec"]["type"] = json!("ClusterIP");
    all.prepare(&mut internal, Some(&new)).ok().unwrap().commit();
    assert_eq!(internal["spec"]["ports"][0].get("nodePort"), None);
    created(&all, json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": new["spec"]["ports"][0]["nodePort"]}]}));
    // Becoming external gives the address back.
    let mut external = internal.clone();
    external["spec"]["type"] = json!("ExternalName");
    all.prepare(&mut external, Some(&internal)).ok().unwrap().commit();
    created(&all, json!({"clusterIP": internal["spec"]["clusterIP"]}));
}

#[test]
fn recovery_takes_what_exists() {
    let first = services();
    let old = created(&first, json!({"type": "NodePort", "ports": [{"port": 80}]}));
    let second = services();
    second.recover(&old);
    assert!(refusal(&second, json!({"clusterIP": old["spec"]["clusterIP"]})).contains("already allocated"));
    assert!(
        refusal(
            &second,
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": old["spec"]["ports"][0]["nodePort"]}]})
        )
        .contains("already allocated")
    );
    assert!(
        refusal(&second, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]})).contains("30000-32767")
    );
}

#[test]
fn threads_never_share_a_port() {
    let all = services();
    let handles: Vec<_> = (0..8)
        .map(|_| {
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                (0..300)
                    .map(|_| held(&created(&all, json!({"type": "NodePort", "ports": [{"port": 80}]}))))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for held in handles.into_iter().flat_map(|h| h.join().unwrap()) {
        assert!(seen.insert(held.ports[0]));
    }
    assert_eq!(seen.len(), 2400);
}

#[test]
fn a_full_range_says_so() {
    let all = Arc::new(Services::new("10.96.0.0/16".parse().unwrap(), 30000..=30003, vec![]));
    for _ in 0..4 {
        created(&all, json!({"type": "NodePort", "ports": [{"port": 80}]}));
    }
    assert!(refusal(&all, json!({"type": "NodePort", "ports": [{"port": 80}]})).contains("range is full"));
}
