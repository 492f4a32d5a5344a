//! Registries that want a password, speak TLS, or stand for others.

use wherry_test::{Cluster, Registry, RegistryOptions, is_root, sample};

use crate::options;
use crate::pods::{push, ready, run, run_with, waits};

fn credentials() -> Option<(String, String)> {
    Some(("jane".to_owned(), "s3cret".to_owned()))
}

#[test]
fn pull_secrets_open_a_registry() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let registry = Registry::start_with(&RegistryOptions { user: credentials(), tls: false })?;
    let mut options = options();
    let docker = tempfile::tempdir()?;
    options.environment = vec![("DOCKER_CONFIG".to_owned(), docker.path().display().to_string())];
    let cluster = Cluster::start(options)?;
    let (kubectl, host, image) = (cluster.kubectl(), registry.host(), registry.reference("private:1"));

    let refused = cluster.wherry(&["image", "push"]).arg(sample("hello")).arg(&image).output()?;
    let message = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        message.starts_with("error: log in first, for example with `docker login`: ")
            && message.contains(&format!("{host} refused access")),
        "{message}"
    );
    // As `docker login` leaves it: jane:s3cret.
    std::fs::write(
        docker.path().join("config.json"),
        format!("{{\"auths\": {{{host:?}: {{\"auth\": \"amFuZTpzM2NyZXQ=\"}}}}}}"),
    )?;
    push(&cluster, &sample("hello"), &image)?;

    // The agent has no business with the CLI user's passwords.
    run(&kubectl, "stranger", &image, "Always")?;
    let message = waits(&kubectl, "stranger", "ImagePullBackOff")?;
    assert!(message.contains(&format!("{host} refused access")) && message.contains("imagePullSecrets"), "{message}");
    for (name, password) in [("wrong", "guess"), ("right", "s3cret")] {
        kubectl.ok(&format!("create secret docker-registry {name} --docker-server={host} --docker-username=jane --docker-password={password}"))?;
        run_with(&kubectl, name, &image, "Always", &[name])?;
    }
    ready(&kubectl, "right")?;
    assert!(waits(&kubectl, "wrong", "ImagePullBackOff")?.contains("refused access"));
    Ok(())
}

#[test]
fn registries_yaml_names_mirrors_passwords_and_authorities() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let private = Registry::start_with(&RegistryOptions { user: credentials(), tls: true })?;
    let unknown = Registry::start_with(&RegistryOptions { user: None, tls: true })?;
    let (host, stranger) = (private.host(), unknown.host());
    let mut options = options();
    let registries = format!(
        "mirrors:\n  upstream.test:\n    endpoint: [\"https://{host}\"]\n  {stranger:?}:\n    endpoint: [\"https://{stranger}\"]\n\
         configs:\n  {host:?}:\n    auth: {{username: jane, password: s3cret}}\n    tls: {{ca_file: {:?}}}\n",
        private.ca_file()
    );
    options.files = vec![("registries.yaml".to_owned(), registries)];
    let cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    let pushed = push(&cluster, &sample("hello"), &private.reference("team/hello:1"))?;
    run(&kubectl, "direct", &private.reference("team/hello:1"), "Always")?;
    run(&kubectl, "mirrored", "upstream.test/team/hello:1", "Always")?;
    run(&kubectl, "untrusted", &unknown.reference("hello:1"), "Always")?;
    assert_eq!(ready(&kubectl, "direct")?, pushed);
    assert_eq!(ready(&kubectl, "mirrored")?, pushed);
    let message = waits(&kubectl, "untrusted", "ImagePullBackOff")?;
    assert!(message.contains(&stranger) && message.contains("certificate"), "{message}");
    Ok(())
}

#[test]
fn a_registries_yaml_that_cannot_be_used_stops_the_start() -> anyhow::Result<()> {
    let mut options = options();
    options.files = vec![("registries.yaml".to_owned(), "mirrors: {a.test: {endpoint: [nonsense]}}\n".to_owned())];
    let Err(error) = Cluster::start(options) else { anyhow::bail!("it started") };
    let text = format!("{error:#}");
    assert!(text.contains("registries.yaml: the endpoint \"nonsense\" is not a URL like https://host:port"), "{text}");
    Ok(())
}
