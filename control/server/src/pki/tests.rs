#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn names(extra: &[[u8; 4]]) -> Names {
    Names::of_api_server("cluster.local", extra.iter().map(|a| IpAddr::from(*a)))
}

#[test]
fn later_starts_reuse_everything() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path()).unwrap();
    let serving = first.serving(&names(&[])).unwrap();
    let admin = first.admin().unwrap();
    let second = Pki::open(dir.path()).unwrap();
    assert_eq!(first.ca_certificate(), second.ca_certificate());
    assert_eq!(serving.certificate, second.serving(&names(&[])).unwrap().certificate);
    assert_eq!(admin.key, second.admin().unwrap().key);
    let token = first.service_account_keys().unwrap().sign(&serde_json::json!({})).unwrap();
    assert!(second.service_account_keys().unwrap().verify(&token).is_ok());
}

#[test]
fn tokens_outlive_a_rotation_of_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let token = Pki::open(dir.path()).unwrap().service_account_keys().unwrap().sign(&serde_json::json!({})).unwrap();
    let pki = dir.path().join("pki");
    std::fs::rename(pki.join("sa.pub"), pki.join("sa-1.pub")).unwrap();
    std::fs::remove_file(pki.join("sa.key")).unwrap();
    let rotated = Pki::open(dir.path()).unwrap().service_account_keys().unwrap();
    assert!(rotated.verify(&token).is_ok());
    std::fs::remove_file(pki.join("sa-1.pub")).unwrap();
    assert!(Pki::open(dir.path()).unwrap().service_account_keys().unwrap().verify(&token).is_err());
}

#[test]
fn files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    Pki::open(dir.path()).unwrap().admin().unwrap();
    let pki = dir.path().join("pki");
    assert_eq!(std::fs::metadata(&pki).unwrap().permissions().mode() & 0o777, 0o700);
    let mut seen = 0;
    for file in std::fs::read_dir(&pki).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn a_missing_name_renews_and_a_subset_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let wide = pki.serving(&names(&[[10, 96, 0, 1], [172, 20, 0, 1]])).unwrap();
    assert_eq!(wide.certificate, pki.serving(&names(&[[10, 96, 0, 1]])).unwrap().certificate);
    let wider = pki.serving(&names(&[[10, 96, 0, 1], [172, 20, 0, 2]])).unwrap();
    assert_ne!(wide.certificate, wider.certificate);
}

#[test]
fn another_authority_or_a_torn_pair_renews() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let admin = pki.admin().unwrap();
    std::fs::copy(dir.path().join("pki/sa.key"), dir.path().join("pki/admin.key")).unwrap();
    let mended = pki.admin().unwrap();
    assert_ne!(admin.certificate, mended.certificate);
    std::fs::remove_file(dir.path().join("pki/ca.crt")).unwrap();
    let renewed = Pki::open(dir.path()).unwrap();
    assert_ne!(mended.certificate, renewed.admin().unwrap().certificate);
}

#[test]
fn a_client_certificate_names_user_and_group() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let node = pki.client("node-a", &User::node("a")).unwrap();
    let der = <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
        node.certificate.as_bytes(),
    )
    .unwrap();
    let mut user = tls::peer_user(&[der]).unwrap();
    let credential = user.extra.remove(crate::user::CREDENTIAL_ID).unwrap();
    assert!(credential[0].starts_with("X509SHA256="), "{credential:?}");
    assert_eq!(user, User::node("a"));
    let many = User::new("x", ["a", "b"]);
    assert!(matches!(pki.client("x", &many), Err(PkiError::TooManyGroups(_))));
}

#[test]
fn nobody_but_the_front_proxy_speaks_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let first = pki.front_proxy().unwrap();
    assert_eq!(first.client_ca, pki.ca_certificate());
    assert_ne!(first.authority, first.client_ca, "a user's certificate is none of the front proxy's");
    let second = Pki::open(dir.path()).unwrap().front_proxy().unwrap();
    assert_eq!((second.authority, second.client.certificate), (first.authority, first.client.certificate));
}

#[test]
fn a_kubeconfig_is_merged_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let path = dir.path().join("sub/config");
    let mut ours = Kubeconfig {
        name: "wherry".to_owned(),
        server: "https://127.0.0.1:6443".to_owned(),
        ca: pki.ca_certificate().to_owned(),
        credentials: pki.admin().unwrap(),
    };
    ours.write(&path).unwrap();
    std::fs::write(
        &path,
        "apiVersion: v1\nkind: Config\ncurrent-context: other\nclusters:\n- name: other\n  cluster: {server: https://o}\nusers: null\n",
    )
    .unwrap();
    ours.merge_into(&path).unwrap();
    ours.server = "https://127.0.0.1:7443".to_owned();
    ours.merge_into(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let value: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(value["current-context"], "wherry");
    assert_eq!(value["clusters"].as_sequence().unwrap().len(), 2);
    assert_eq!(value["clusters"][1]["cluster"]["server"], "https://127.0.0.1:7443");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::write(&path, "- not\n- a mapping\n").unwrap();
    assert!(ours.merge_into(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "- not\n- a mapping\n");
}
