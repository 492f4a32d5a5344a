//! Which runtime an image needs, by its media types and platform.

use wherry_runtime::ImageKind;

use crate::manifest::{ExecConfig, ImageConfig, Manifest, Platform};
use crate::media::{self, Layer};
use crate::{ImageError, Reference};

/// What is to be done with an image's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// A Wasm artifact: its one layer is the module.
    Artifact,
    /// An ordinary image whose entrypoint is a `.wasm` file in its layers, by this path.
    Compat(String),
    /// An image for containerd.
    Container,
}

impl Plan {
    pub(crate) fn kind(&self) -> ImageKind {
        match self {
            Self::Artifact | Self::Compat(_) => ImageKind::Wasm,
            Self::Container => ImageKind::Container,
        }
    }
}

/// Whether the manifest alone says that this is a Wasm artifact, so that its config need not be an image's.
pub(crate) fn is_artifact(manifest: &Manifest) -> bool {
    media::is_wasm_config(&manifest.config.media_type)
        || (!manifest.layers.is_empty()
            && manifest.layers.iter().any(|layer| media::layer(&layer.media_type) == Layer::Wasm))
}

/// Decides. `config` is the parsed config blob where it is an image's.
pub(crate) fn plan(
    reference: &Reference,
    manifest: &Manifest,
    config: Option<&ImageConfig>,
) -> Result<Plan, ImageError> {
    let unsupported = |media_type: &str, hint: &str| ImageError::Unsupported {
        what: reference.to_string(),
        media_type: media_type.into(),
        hint: hint.into(),
    };
    if manifest.config.media_type == media::SPIN_CONFIG {
        return Err(unsupported(
            media::SPIN_CONFIG,
            "Spin applications can't be run; push the component itself (`wkg oci push`, or `wherry image push app.wasm NAME`)",
        ));
    }
    if is_artifact(manifest) {
        if let Some(odd) = manifest.layers.iter().find(|layer| media::layer(&layer.media_type) != Layer::Wasm) {
            return Err(unsupported(&odd.media_type, "a Wasm artifact has one layer, of type application/wasm"));
        }
        return match manifest.layers.len() {
            1 => Ok(Plan::Artifact),
            n => Err(ImageError::malformed(
                reference.to_string(),
                format!("a Wasm artifact has one layer; this one has {n}"),
            )),
        };
    }
    let Some(config) = config else {
        return Err(unsupported(
            &manifest.config.media_type,
            "neither a Wasm artifact nor a container image has such a config",
        ));
    };
    if let Some(odd) = manifest.layers.iter().find(|layer| media::layer(&layer.media_type) == Layer::Unknown) {
        return Err(unsupported(&odd.media_type, "layers are tar, tar+gzip or tar+zstd"));
    }
    if config.platform.is_wasm() || has_compat_annotation(manifest) {
        if let Some(odd) = manifest.layers.iter().find(|layer| media::layer(&layer.media_type) == Layer::TarZstd) {
            return Err(unsupported(&odd.media_type, "a Wasm image's layers are tar or tar+gzip"));
        }
        return module_path(reference, config.config.as_ref()).map(Plan::Compat);
    }
    if !config.platform.is_native() {
        return Err(ImageError::Platform {
            what: reference.to_string(),
            wanted: format!("{} or wasm", Platform::native()),
            found: config.platform.to_string(),
        });
    }
    Ok(Plan::Container)
}

fn has_compat_annotation(manifest: &Manifest) -> bool {
    let annotation = |name: &str| manifest.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    annotation("run.oci.handler") == Some("wasm")
        || matches!(annotation("module.wasm.image/variant"), Some("compat" | "compat-smart"))
}

/// The module within a compat image's filesystem: its entrypoint, as in `/app.wasm`, `app.wasm` or `app.wasm#export`.
fn module_path(reference: &Reference, exec: Option<&ExecConfig>) -> Result<String, ImageError> {
    let bad = |problem: String| ImageError::malformed(reference.to_string(), problem);
    let exec = exec.cloned().unwrap_or_default();
    let word = |words: Option<Vec<String>>| words.and_then(|words| words.into_iter().next());
    let first = word(exec.entrypoint)
        .or_else(|| word(exec.cmd))
        .ok_or_else(|| bad("a Wasm image needs an entrypoint: the path of its .wasm file".into()))?;
    let path = first.split('#').next().unwrap_or_default();
    if !path.ends_with(".wasm") && !path.ends_with(".wat") {
        return Err(bad(format!("a Wasm image's entrypoint is the path of a .wasm file; this one's is {first:?}")));
    }
    let dir = exec.working_dir.unwrap_or_default();
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{dir}/{path}") };
    normal_path(&whole).ok_or_else(|| bad(format!("the entrypoint {first:?} leads out of the image")))
}

/// A path without `.`, `..`, double or leading slashes; none where it leads out.
pub(crate) fn normal_path(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(config: &str, layers: &[&str]) -> Manifest {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layers: Vec<_> =
            layers.iter().map(|media_type| json!({"mediaType": media_type, "digest": digest, "size": 1})).collect();
        serde_json::from_value(
            json!({"schemaVersion": 2, "config": {"mediaType": config, "digest": digest, "size": 1}, "layers": layers}),
        )
        .unwrap()
    }

    fn config(os: &str, architecture: &str, entrypoint: &[&str]) -> ImageConfig {
        serde_json::from_value(
            json!({"os": os, "architecture": architecture, "config": {"Entrypoint": entrypoint, "WorkingDir": "/srv"}}),
        )
        .unwrap()
    }

    fn of(manifest: &Manifest, config: Option<&ImageConfig>) -> Result<Plan, ImageError> {
        plan(&"r.example/x".parse().unwrap(), manifest, config)
    }

    #[test]
    fn every_form_of_wasm_artifact_is_known() {
        for (config, layer) in [
            (media::WASM_CONFIG, "application/wasm"),
            (
                "application/vnd.bytecodealliance.component.config.v0+json",
                "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
            ),
            ("application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm"),
            (media::OCI_CONFIG, "application/vnd.module.wasm.content.layer.v1+wasm"),
        ] {
            assert_eq!(of(&manifest(config, &[layer]), None).unwrap(), Plan::Artifact, "{layer}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let text = |manifest: &Manifest, config: Option<&ImageConfig>| of(manifest, config).unwrap_err().to_string();
        assert!(text(&manifest(media::WASM_CONFIG, &["application/wasm", "application/wasm"]), None).contains("has 2"));
        assert!(text(&manifest(media::WASM_CONFIG, &[]), None).contains("has 0"));
        assert!(text(&manifest(media::WASM_CONFIG, &["application/x-odd"]), None).contains("application/x-odd"));
        assert!(text(&manifest("application/vnd.cncf.helm.config.v1+json", &["application/x"]), None).contains("helm"));
        assert!(text(&manifest(media::SPIN_CONFIG, &["application/wasm"]), None).contains("Spin"));
        let native = Platform::native().architecture;
        assert!(
            text(&manifest(media::OCI_CONFIG, &["application/x-odd"]), Some(&config("linux", &native, &[])))
                .contains("application/x-odd")
        );
        assert!(
            text(&manifest(media::OCI_CONFIG, &[media::OCI_LAYER]), Some(&config("linux", "s390x", &[])))
                .contains("linux/s390x")
        );
        assert!(
            text(&manifest(media::OCI_CONFIG, &[media::OCI_LAYER]), Some(&config("wasi", "wasm", &["/bin/sh"])))
                .contains("/bin/sh")
        );
        assert!(
            text(&manifest(media::OCI_CONFIG, &[media::OCI_LAYER]), Some(&config("wasi", "wasm", &["/../../x.wasm"])))
                .contains("leads out")
        );
    }

    #[test]
    fn images_go_by_their_platform_and_annotations() {
        let layers = manifest(media::OCI_CONFIG, &[media::OCI_LAYER_GZIP]);
        let native = Platform::native().architecture;
        assert_eq!(of(&layers, Some(&config("linux", &native, &["/bin/app"]))).unwrap(), Plan::Container);
        assert_eq!(
            of(&layers, Some(&config("wasi", "wasm", &["/bin/./app.wasm"]))).unwrap(),
            Plan::Compat("bin/app.wasm".into())
        );
        assert_eq!(
            of(&layers, Some(&config("wasip1", "wasm", &["app.wasm#run"]))).unwrap(),
            Plan::Compat("srv/app.wasm".into())
        );
        let mut annotated = layers.clone();
        annotated.annotations = Some([("module.wasm.image/variant".to_owned(), "compat-smart".to_owned())].into());
        assert_eq!(
            of(&annotated, Some(&config("linux", &native, &["/app.wasm"]))).unwrap(),
            Plan::Compat("app.wasm".into())
        );
    }
}
