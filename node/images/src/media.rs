//! Media types, and what they mean here.

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(crate) const WASM_LAYER: &str = "application/wasm";
pub(crate) const SPIN_CONFIG: &str = "application/vnd.fermyon.spin.application.v1+config";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a registry is asked for, in order of preference.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// A module or component as it is.
    Wasm,
    /// A root filesystem's changes, uncompressed.
    Tar,
    /// The same, gzipped.
    TarGzip,
    /// The same, by zstd: containerd unpacks it, we do not.
    TarZstd,
    /// Anything else.
    Unknown,
}

pub(crate) fn layer(media_type: &str) -> Layer {
    match media_type {
        "application/wasm"
        | "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
        | "application/vnd.wasm.content.layer.v1+wasm"
        | "application/vnd.module.wasm.content.layer.v1+wasm" => Layer::Wasm,
        OCI_LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Layer::Tar,
        OCI_LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Layer::TarGzip,
        "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            Layer::TarZstd
        }
        _ => Layer::Unknown,
    }
}

/// Whether a config of this type makes the manifest a Wasm artifact, whatever its layers say.
pub(crate) fn is_wasm_config(media_type: &str) -> bool {
    matches!(
        media_type,
        WASM_CONFIG | "application/vnd.wasm.config.v1+json" | "application/vnd.module.wasm.config.v1+json"
    )
}

/// Whether a config of this type is an ordinary image's.
pub(crate) fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}
