//! Which container is meant.

use serde_json::Value;
use wherry_api::status::Status;

/// The container that was asked for, or the only one.
pub(super) fn container(pod: &Value, asked: Option<&str>, name: &str) -> Result<String, Status> {
    let names = |key: &str| -> Vec<&str> {
        let list = pod["spec"][key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|container| container["name"].as_str()).collect()
    };
    let main = names("containers");
    // As upstream walks through them.
    let all = [names("initContainers"), main.clone(), names("ephemeralContainers")].concat();
    match (asked, main.as_slice()) {
        (Some(asked), _) if all.contains(&asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        (None, _) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// The node that a Pod runs on.
pub(super) fn node<'a>(pod: &'a Value, name: &str) -> Result<&'a str, Status> {
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
    node.ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let one = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, None, "p").unwrap(), "a");
        assert_eq!(container(&one, Some("i"), "p").unwrap(), "i");
        assert_eq!(container(&one, Some("x"), "p").unwrap_err().message, "container x is not valid for pod p");
        let two = json!({"spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "e"}],
        }});
        assert_eq!(
            container(&two, None, "p").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [i a b e]"
        );
        assert_eq!(node(&one, "p").unwrap_err().message, "pod p does not have a host assigned");
    }
}
