//! Who a container runs as and what it may do: its own securityContext over its Pod's.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};
use wherry_runtime::{Image, ImageKind, Seccomp, Security};

use super::ConfigError;

/// What a container is allowed. `profiles`: where the node's own seccomp profiles lie.
pub(crate) fn security(pod: &Pod, container: &Container, profiles: &Path) -> Result<Security, ConfigError> {
    let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let id = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let user = id(own.and_then(|own| own.run_as_user).or_else(|| shared.and_then(|shared| shared.run_as_user)));
    let group = id(own.and_then(|own| own.run_as_group).or_else(|| shared.and_then(|shared| shared.run_as_group)));
    let groups = shared
        .into_iter()
        .flat_map(|shared| shared.fs_group.into_iter().chain(shared.supplemental_groups.iter().flatten().copied()));
    let names = |list: Option<&Vec<String>>| {
        list.into_iter().flatten().map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned()).collect()
    };
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    Ok(Security {
        user,
        group,
        supplemental_groups: groups.filter_map(|group| u32::try_from(group).ok()).collect(),
        strict_groups: shared.and_then(|shared| shared.supplemental_groups_policy.as_deref()) == Some("Strict"),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        unmasked_proc: own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked"),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        privileged: own.and_then(|own| own.privileged).unwrap_or(false),
        add_capabilities: names(capabilities.and_then(|capabilities| capabilities.add.as_ref())),
        drop_capabilities: names(capabilities.and_then(|capabilities| capabilities.drop.as_ref())),
        seccomp: seccomp(own, shared, profiles)?,
    })
}

/// `runAsNonRoot`: refuses who would be root, and who nobody knows not to be. Wasm has no users.
pub(crate) fn non_root(pod: &Pod, container: &Container, image: &Image) -> Result<(), ConfigError> {
    let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let asked = own.and_then(|own| own.run_as_non_root).or_else(|| shared.and_then(|shared| shared.run_as_non_root));
    if asked != Some(true) {
        return Ok(());
    }
    let user = own.and_then(|own| own.run_as_user).or_else(|| shared.and_then(|shared| shared.run_as_user));
    let of_image = image.user.as_deref().and_then(|user| user.split(':').next()).unwrap_or_default();
    let problem = match (user, of_image) {
        (Some(0), _) => "container's runAsUser breaks non-root policy".to_owned(),
        (Some(_), _) => return Ok(()),
        (None, _) if image.kind == ImageKind::Wasm => return Ok(()),
        (None, "" | "0") => "container has runAsNonRoot and image will run as root".to_owned(),
        (None, number) if number.parse::<i64>().is_ok() => return Ok(()),
        (None, name) => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        ),
    };
    let meta = &pod.metadata;
    let [name, namespace, uid] =
        [&meta.name, &meta.namespace, &meta.uid].map(|part| part.as_deref().unwrap_or_default());
    let text = format!("{problem} (pod: \"{name}_{namespace}({uid})\", container: {})", container.name);
    Err(ConfigError::Invalid(text))
}

fn seccomp(
    own: Option<&SecurityContext>,
    shared: Option<&PodSecurityContext>,
    profiles: &Path,
) -> Result<Seccomp, ConfigError> {
    let profile = own.and_then(|own| own.seccomp_profile.as_ref());
    let profile = profile.or_else(|| shared.and_then(|shared| shared.seccomp_profile.as_ref()));
    match profile {
        None => Ok(Seccomp::Unconfined),
        Some(SeccompProfile { type_, .. }) if type_ == "Unconfined" => Ok(Seccomp::Unconfined),
        Some(SeccompProfile { type_, .. }) if type_ == "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        Some(SeccompProfile { localhost_profile: Some(name), .. }) if !name.is_empty() => {
            // The API server says the same; static Pods do not come from it.
            let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside {
                return Err(ConfigError::Invalid(format!(
                    "the seccomp profile {name:?} must be a relative path and must not contain '..'"
                )));
            }
            Ok(Seccomp::Localhost(profiles.join(name)))
        }
        Some(_) => {
            Err(ConfigError::Invalid("localhostProfile must be set if seccompProfile type is Localhost.".to_owned()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};
    use wherry_runtime::Descriptor;

    use super::*;

    fn of(shared: Value, own: Value) -> Result<Security, String> {
        let pod: Pod = serde_json::from_value(json!({
            "spec": { "securityContext": shared, "containers": [{ "name": "c", "securityContext": own }] }
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        security(&pod, container, Path::new("/node/seccomp")).map_err(|error| error.to_string())
    }

    fn image(user: Option<&str>, kind: ImageKind) -> Image {
        let blob = Descriptor { media_type: String::new(), digest: String::new(), size: 0, path: "/none".into() };
        Image {
            reference: "docker.io/library/x:latest".into(),
            id: String::new(),
            kind,
            manifest: blob.clone(),
            config: blob,
            layers: vec![],
            entrypoint: vec![],
            cmd: vec![],
            env: vec![],
            working_dir: None,
            user: user.map(str::to_owned),
        }
    }

    #[test]
    fn who_may_be_root_is_refused_as_by_kubelet() {
        let told = |own: Value, user: Option<&str>, kind| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "p", "namespace": "n", "uid": "u" },
                "spec": { "securityContext": { "runAsNonRoot": true }, "containers": [{ "name": "c", "securityContext": own }] }
            }))
            .unwrap();
            let image = image(user, kind);
            non_root(&pod, &pod.spec.as_ref().unwrap().containers[0], &image).err().map(|error| error.to_string())
        };
        let ending = " (pod: \"p_n(u)\", container: c)";
        let container = ImageKind::Container;
        let root = Some(format!("container's runAsUser breaks non-root policy{ending}"));
        assert_eq!(told(json!({ "runAsUser": 0 }), Some("7"), container), root);
        assert_eq!(told(json!({ "runAsUser": 0 }), None, ImageKind::Wasm), root);
        assert_eq!(told(json!({ "runAsUser": 7 }), None, container), None);
        assert_eq!(told(json!({ "runAsNonRoot": false }), None, container), None);
        let root = Some(format!("container has runAsNonRoot and image will run as root{ending}"));
        assert_eq!(told(json!({}), None, container), root);
        assert_eq!(told(json!({}), Some("0:7"), container), root);
        assert_eq!(told(json!({}), Some("7:0"), container), None);
        assert_eq!(told(json!({}), None, ImageKind::Wasm), None);
        let named = format!(
            "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root{ending}"
        );
        assert_eq!(told(json!({}), Some("app:app"), container), Some(named));
    }

    #[test]
    fn fields_are_taken_as_kubelet_takes_them() {
        let given = of(
            json!({ "runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4, 5], "supplementalGroupsPolicy": "Strict" }),
            json!({ "runAsUser": 6, "allowPrivilegeEscalation": false, "procMount": "Unmasked", "readOnlyRootFilesystem": true }),
        )
        .unwrap();
        assert_eq!((given.user, given.group, given.supplemental_groups.as_slice()), (Some(6), Some(2), &[3, 4, 5][..]));
        assert!(given.strict_groups && given.no_new_privileges && given.unmasked_proc && given.read_only_root);
        let silent = of(json!({}), json!({})).unwrap();
        assert_eq!(silent, Security::default());
    }

    #[test]
    fn a_containers_seccomp_profile_is_its_own_or_its_pods() {
        let profile = |kind: &str| json!({ "seccompProfile": { "type": kind } });
        let found = |shared, own| of(shared, own).map(|security| security.seccomp);
        assert_eq!(found(json!({}), json!({})), Ok(Seccomp::Unconfined));
        assert_eq!(found(profile("RuntimeDefault"), json!({})), Ok(Seccomp::RuntimeDefault));
        assert_eq!(found(profile("RuntimeDefault"), profile("Unconfined")), Ok(Seccomp::Unconfined));
        let file = |name: &str| json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": name } });
        assert_eq!(found(json!({}), file("a/b.json")), Ok(Seccomp::Localhost("/node/seccomp/a/b.json".into())));
        assert!(found(json!({}), file("../b.json")).is_err() && found(json!({}), file("/b.json")).is_err());
        assert!(found(profile("Localhost"), json!({})).unwrap_err().contains("localhostProfile must be set"));
    }
}
