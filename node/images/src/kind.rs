//! Which runtime an image needs, by its media types and platform.

use wherry_runtime::ImageKind;

use crate::manifest::{Descriptor, ExecConfig, ImageConfig, Manifest, Platform, WasmConfig};
use crate::media::{self, Layer};
use crate::spin::{self, Spin};
use crate::{ImageError, Reference};

/// What is to be done with an image's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// A Wasm artifact: its one layer is the module.
    Artifact,
    /// A Spin application: this component of it.
    Spin(Spin),
    /// An ordinary image whose entrypoint is a `.wasm` file in its layers, by this path.
    Compat(String),
    /// An image for containerd.
    Container,
}

impl Plan {
    pub(crate) fn kind(&self) -> ImageKind {
        match self {
            Self::Artifact | Self::Spin(_) | Self::Compat(_) => ImageKind::Wasm,
            Self::Container => ImageKind::Container,
        }
    }

    /// The layers that are needed of `manifest`.
    pub(crate) fn layers<'a>(&'a self, manifest: &'a Manifest) -> &'a [Descriptor] {
        match self {
            Self::Spin(spin) => std::slice::from_ref(&spin.layer),
            Self::Artifact | Self::Compat(_) | Self::Container => &manifest.layers,
        }
    }
}

/// Whether the manifest alone says that this is a Wasm artifact.
fn is_artifact(manifest: &Manifest) -> bool {
    media::is_wasm_config(&manifest.config.media_type)
        || (!manifest.layers.is_empty()
            && manifest.layers.iter().any(|layer| media::layer(&layer.media_type) == Layer::Wasm))
}

/// A config blob, as far as it decides anything.
#[derive(Clone, Debug)]
pub(crate) enum Config {
    /// An image's.
    Image(ImageConfig),
    /// A Spin application's, unread.
    Spin(Vec<u8>),
    /// A Wasm artifact's: the imports of its component, where it lists them.
    Wasm(Vec<String>),
    /// Of another type.
    Other,
}

impl Config {
    /// Whether a config of this type is to be read at all.
    pub(crate) fn is_read(media_type: &str) -> bool {
        media::is_image_config(media_type) || media::is_wasm_config(media_type) || media_type == media::SPIN_CONFIG
    }

    pub(crate) fn parse(what: &str, media_type: &str, bytes: Vec<u8>) -> Result<Self, ImageError> {
        if media_type == media::SPIN_CONFIG {
            return Ok(Self::Spin(bytes));
        }
        if media::is_wasm_config(media_type) {
            // It is no more than a summary, and of several makers: what it lacks, the component itself will tell.
            let config: WasmConfig = serde_json::from_slice(&bytes).unwrap_or_default();
            return Ok(Self::Wasm(config.component.imports));
        }
        ImageConfig::parse(what, &bytes).map(Self::Image)
    }
}

/// Decides.
pub(crate) fn plan(reference: &Reference, manifest: &Manifest, config: &Config) -> Result<Plan, ImageError> {
    let unsupported = |media_type: &str, hint: &str| ImageError::Unsupported {
        what: reference.to_string(),
        media_type: media_type.into(),
        hint: hint.into(),
    };
    if let Config::Spin(bytes) = config {
        return spin::read(&reference.to_string(), manifest, bytes).map(Plan::Spin);
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
    let Config::Image(config) = config else {
        return Err(unsupported(
            &manifest.config.media_type,
            "neither a Wasm artifact nor a container image has such a config",
        ));
    };
    if let Some(odd) = manifest.layers.iter().find(|layer| media::layer(&layer.media_type) == Layer::Unknown) {
        return Err(unsupported(&odd.media_type, "layers are tar, tar+gzip or tar+zstd"));
    }
    let exec = config.config.as_ref();
    if says_wasm(manifest, config) || names_module(exec) {
        if let Some(odd) = manifest.layers.iter().find(|layer| media::layer(&layer.media_type) == Layer::TarZstd) {
            return Err(unsupported(&odd.media_type, "a Wasm image's layers are tar or tar+gzip"));
        }
        let default = annotation(manifest, VARIANT).map(|_| PLUGIN);
        return module_path(reference, exec, default).map(Plan::Compat);
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

/// The annotation of Wasm in an ordinary image.
const VARIANT: &str = "module.wasm.image/variant";
/// Where the variant `compat` has its module if no entrypoint names one.
const PLUGIN: &str = "plugin.wasm";

fn annotation<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a str> {
    manifest.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str)
}

/// Whether an ordinary image is Wasm by its platform or its annotations. `compat-smart` leaves it to the entrypoint.
fn says_wasm(manifest: &Manifest, config: &ImageConfig) -> bool {
    config.platform.is_wasm()
        || annotation(manifest, "run.oci.handler") == Some("wasm")
        || annotation(manifest, VARIANT) == Some("compat")
}

/// Whether an image starts with a `.wasm` file: nothing but a Wasm runtime could run it, whatever its platform says.
fn names_module(exec: Option<&ExecConfig>) -> bool {
    exec.and_then(first_word).is_some_and(|word| file_of(word).ends_with(".wasm"))
}

fn first_word(exec: &ExecConfig) -> Option<&str> {
    exec.entrypoint.iter().chain(&exec.cmd).find_map(|words| words.first()).map(String::as_str)
}

/// `app.wasm` of `app.wasm#export`.
fn file_of(word: &str) -> &str {
    word.split('#').next().unwrap_or_default()
}

/// The module within a compat image's filesystem: its entrypoint, as in `/app.wasm`, `app.wasm` or `app.wasm#export`, else
/// `default`.
fn module_path(
    reference: &Reference,
    exec: Option<&ExecConfig>,
    default: Option<&'static str>,
) -> Result<String, ImageError> {
    let bad = |problem: String| ImageError::malformed(reference.to_string(), problem);
    let Some(first) = exec.and_then(first_word) else {
        return default
            .map(str::to_owned)
            .ok_or_else(|| bad("a Wasm image needs an entrypoint: the path of its .wasm file".into()));
    };
    let path = file_of(first);
    if !path.ends_with(".wasm") {
        return Err(bad(format!("a Wasm image's entrypoint is the path of a .wasm file; this one's is {first:?}")));
    }
    let dir = exec.and_then(|exec| exec.working_dir.as_deref()).unwrap_or_default();
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
        let config = config.map_or(Config::Other, |config| Config::Image(config.clone()));
        plan(&"r.example/x".parse().unwrap(), manifest, &config)
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
            ("application/vnd.module.wasm.config.v1+json", "application/vnd.module.wasm.content.layer.v1+wasm"),
            ("application/vnd.wasmcloud.actor.archive.config", "application/vnd.module.wasm.content.layer.v1+wasm"),
            ("application/vnd.oci.empty.v1+json", "application/wasm"),
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
        assert!(
            text(&manifest(media::WASM_CONFIG, &["application/vnd.wasm.content.layer.v1+data"]), None)
                .contains("application/vnd.wasm.content.layer.v1+data")
        );
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
        assert_eq!(
            of(&layers, Some(&config("wasi", "wasm32", &["/app.wasm", "--port", "80"]))).unwrap(),
            Plan::Compat("app.wasm".into()),
            "Docker's platform"
        );
        assert_eq!(
            of(&layers, Some(&config("linux", "arm64", &["/app.wasm"]))).unwrap(),
            Plan::Compat("app.wasm".into()),
            "nothing else could run it"
        );
    }

    #[test]
    fn each_variant_of_an_annotated_image_is_known() {
        let native = Platform::native().architecture;
        let annotated = |name: &str, value: &str| {
            let mut manifest = manifest(media::OCI_CONFIG, &[media::OCI_LAYER_GZIP]);
            manifest.annotations = Some([(name.to_owned(), value.to_owned())].into());
            manifest
        };
        let program = config("linux", &native, &["/app.wasm"]);
        let native_program = config("linux", &native, &["/bin/app"]);
        let silent = config("linux", &native, &[]);
        let module = |path: &str| Plan::Compat(path.into());
        for (name, value) in [(VARIANT, "compat"), (VARIANT, "compat-smart"), ("run.oci.handler", "wasm")] {
            assert_eq!(of(&annotated(name, value), Some(&program)).unwrap(), module("app.wasm"), "{value}");
        }
        let compat = annotated(VARIANT, "compat");
        assert_eq!(of(&compat, Some(&silent)).unwrap(), module("plugin.wasm"), "no entrypoint");
        assert!(of(&compat, Some(&native_program)).unwrap_err().to_string().contains("/bin/app"));
        let smart = annotated(VARIANT, "compat-smart");
        assert_eq!(of(&smart, Some(&native_program)).unwrap(), Plan::Container, "the entrypoint decides");
        let handler = annotated("run.oci.handler", "wasm");
        assert!(of(&handler, Some(&silent)).unwrap_err().to_string().contains("needs an entrypoint"));
    }

    #[test]
    fn a_spin_application_is_one_component() {
        let layers = manifest(media::SPIN_CONFIG, &["application/vnd.wasm.content.layer.v1+wasm"]);
        let of =
            |config: &str| plan(&"r.example/x".parse().unwrap(), &layers, &Config::Spin(config.as_bytes().to_vec()));
        assert!(of(r#"{"components": []}"#).unwrap_err().to_string().contains("Spin application has 0 components"));
    }
}
