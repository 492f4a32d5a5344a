//! A Spin application: the one component of it that can be served here.
//!
//! `spin registry push` writes the locked application as the image's config and each component as a layer. An application of one
//! component that is bound to every path is a `wasi:http` component with variables, and runs as such. What Spin's own host
//! would have to do (routes, static files, composition, other triggers) is refused by name, not left out.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::ImageError;
use crate::manifest::{Descriptor, Manifest};
use crate::media::{self, Layer};

/// The part of an application that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spin {
    /// The component.
    pub(crate) layer: Descriptor,
    /// Its variables, `NAME=value`.
    pub(crate) env: Vec<String>,
}

/// `spin.lock`, as far as it is read.
#[derive(Deserialize)]
struct Locked {
    #[serde(default)]
    triggers: Vec<Trigger>,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Trigger {
    #[serde(default)]
    trigger_type: String,
    #[serde(default)]
    trigger_config: Value,
}

#[derive(Deserialize)]
struct Component {
    id: String,
    source: Source,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<Value>,
    #[serde(default)]
    config: BTreeMap<String, Value>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    digest: Option<String>,
}

/// What every refusal ends with.
const INSTEAD: &str = "push the component itself (`wkg oci push`, or `wherry image push app.wasm NAME`)";

/// Reads the application of `manifest` from its config.
pub(crate) fn read(what: &str, manifest: &Manifest, config: &[u8]) -> Result<Spin, ImageError> {
    let bad = |problem: &str| ImageError::malformed(what, format!("the Spin application {problem}; {INSTEAD}"));
    let locked: Locked =
        serde_json::from_slice(config).map_err(|error| bad(&format!("can't be read from its config: {error}")))?;
    let [component] = locked.components.as_slice() else {
        return Err(bad(&format!(
            "has {} components, and a container runs one: [{}]",
            locked.components.len(),
            locked.components.iter().map(|component| component.id.as_str()).collect::<Vec<_>>().join(", ")
        )));
    };
    let [trigger] = locked.triggers.as_slice() else {
        return Err(bad(&format!("has {} triggers; one of type http is served", locked.triggers.len())));
    };
    if trigger.trigger_type != "http" {
        return Err(bad(&format!("has a trigger of type {:?}; type http is served", trigger.trigger_type)));
    }
    let route = &trigger.trigger_config["route"];
    if route != "/..." {
        return Err(bad(&format!("answers on the route {route} only, and a container answers on all (\"/...\")")));
    }
    for (there, name) in [
        (!component.files.is_empty(), "files"),
        (!component.config.is_empty(), "variables"),
        (!component.dependencies.is_empty(), "dependencies"),
    ] {
        if there {
            return Err(bad(&format!("has {name} of component {:?}, which Spin's own host provides", component.id)));
        }
    }
    let wasm = |layer: &&Descriptor| media::layer(&layer.media_type) == Layer::Wasm;
    let digest = component.source.digest.as_deref().unwrap_or_default();
    let layer = manifest
        .layers
        .iter()
        .filter(wasm)
        .find(|layer| layer.digest == digest)
        .ok_or_else(|| bad(&format!("names the component {digest:?}, which is not among the image's layers")))?;
    let env = component.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(Spin { layer: layer.clone(), env })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(fill: &str) -> String {
        format!("sha256:{}", fill.repeat(64))
    }

    fn manifest() -> Manifest {
        let blob = |media_type: &str, fill: &str| json!({"mediaType": media_type, "digest": digest(fill), "size": 1});
        serde_json::from_value(json!({"schemaVersion": 2, "config": blob(media::SPIN_CONFIG, "a"), "layers": [
            blob("application/vnd.wasm.content.layer.v1+data", "b"),
            blob("application/vnd.wasm.content.layer.v1+wasm", "c"),
        ]}))
        .unwrap()
    }

    fn application() -> Value {
        json!({
            "spin_lock_version": 1,
            "metadata": {"name": "hello", "version": "0.1.0"},
            "triggers": [{"id": "trigger--hello", "trigger_type": "http",
                "trigger_config": {"component": "hello", "executor": null, "route": "/..."}}],
            "components": [{"id": "hello", "metadata": {"allowed_outbound_hosts": []},
                "source": {"content_type": "application/wasm", "digest": digest("c")}, "env": {"GREETING": "hi"}}],
        })
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut application = application();
        change(&mut application);
        read("r.example/x", &manifest(), application.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_application_of_one_component_is_that_component() {
        let spin = read("r.example/x", &manifest(), application().to_string().as_bytes()).unwrap();
        assert_eq!((spin.layer.digest, spin.env), (digest("c"), vec!["GREETING=hi".to_owned()]));
    }

    #[test]
    fn what_spin_itself_would_have_to_do_is_refused_by_name() {
        type Change = fn(&mut Value);
        let refused: [(Change, &str); 8] = [
            (|a| a["components"] = json!([]), "has 0 components"),
            (|a| a["triggers"][0]["trigger_type"] = "redis".into(), "type \"redis\""),
            (|a| a["triggers"] = json!([]), "has 0 triggers"),
            (|a| a["triggers"][0]["trigger_config"]["route"] = "/hello".into(), "route \"/hello\""),
            (|a| a["components"][0]["files"] = json!([{"path": "/x"}]), "has files"),
            (|a| a["components"][0]["dependencies"] = json!({"x:y/z": {}}), "has dependencies"),
            (|a| a["components"][0]["source"]["digest"] = "sha256:d".into(), "not among the image's layers"),
            // A layer of data is no component.
            (|a| a["components"][0]["source"]["digest"] = digest("b").into(), "not among the image's layers"),
        ];
        for (change, problem) in refused {
            let text = refusal(change);
            assert!(text.contains(problem) && text.contains("wherry image push"), "{problem}: {text}");
        }
        let text = read("r.example/x", &manifest(), b"{]").unwrap_err().to_string();
        assert!(text.contains("can't be read"), "{text}");
    }
}
