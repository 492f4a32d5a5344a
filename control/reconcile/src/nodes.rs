//! What a Node says of itself.

use k8s_openapi::api::core::v1::{ContainerImage, Node};

/// What the last name of an image begins with, in a Node's status, where the node has made ready all that containers of it start
/// from: of a Wasm image, machine code. Upstream's API has no other field that could say so.
const PREPARED: &str = "wherry.dev/prepared@";

/// The value of a Node's condition; none where it has no such.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// Whether a Node is known to be well.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready") == Some("True")
}

/// The name that says that an image is made ready, by the digest of its uppermost layer; none of an image without layers.
#[must_use]
pub fn prepared_name(layers: &[String]) -> Option<String> {
    layers.last().map(|digest| format!("{PREPARED}{digest}"))
}

/// Whether a node says that it has made an image ready.
#[must_use]
pub fn is_prepared(image: &ContainerImage) -> bool {
    image.names.iter().flatten().any(|name| name.starts_with(PREPARED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_said_to_be_ready_by_a_name() {
        let names = |name: Option<String>| ContainerImage {
            names: Some(std::iter::once("example.com/app:1".to_owned()).chain(name).collect()),
            ..ContainerImage::default()
        };
        let layers = ["sha256:01".to_owned(), "sha256:02".to_owned()];
        assert_eq!(prepared_name(&layers).as_deref(), Some("wherry.dev/prepared@sha256:02"));
        assert!(is_prepared(&names(prepared_name(&layers))));
        assert_eq!(prepared_name(&[]), None);
        assert!(!is_prepared(&names(None)));
    }
}
