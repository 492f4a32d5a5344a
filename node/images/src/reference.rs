//! Image references: `[registry/]repository[:tag][@digest]`, by the grammar of the distribution project and
//! with Docker Hub's short forms written out.

use std::fmt;
use std::str::FromStr;

use crate::ImageError;

const HUB: &str = "docker.io";

/// A normalised image reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// The registry's host, with its port where it has one. Docker Hub is `docker.io`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; none where a digest is given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:...`, where given.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What a manifest is asked for by: the digest, else the tag.
    pub(crate) fn target(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// `registry/repository`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The reference of `digest` in the same repository.
    pub(crate) fn with_digest(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(name: &str) -> Result<Self, ImageError> {
        parse(name).map_err(|problem| ImageError::InvalidName { name: name.chars().take(300).collect(), problem })
    }
}

fn parse(name: &str) -> Result<Reference, &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("after @ comes a digest: sha256: and 64 lower-case hex digits");
    }
    // A colon after the last slash begins a tag; one before it begins a port.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("a tag has at most 128 letters, digits, '_', '.' and '-', and begins with none of the last two");
    }
    let (registry, repository) = match path.split_once('/') {
        Some((host, repository))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(char::is_uppercase) =>
        {
            (if host == "index.docker.io" { HUB } else { host }, repository)
        }
        _ => (HUB, path),
    };
    if !is_host(registry) {
        return Err("the registry is not a host name with an optional port");
    }
    if repository.is_empty() {
        return Err("the repository is missing");
    }
    if !repository.split('/').all(is_component) {
        return Err(if repository.chars().any(char::is_uppercase) {
            "the repository must be lower case"
        } else {
            "each part of the repository is lower-case letters and digits, joined by '.', '_', '__' or '-'"
        });
    }
    let repository = if registry == HUB && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    if registry.len() + repository.len() > 255 {
        return Err("the name is longer than 255 characters");
    }
    let tag = match (tag, digest) {
        // A digest says it all; the tag beside it is a comment.
        (_, Some(_)) => None,
        (Some(tag), None) => Some(tag.to_owned()),
        (None, None) => Some("latest".to_owned()),
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest: digest.map(str::to_owned) })
}

/// Whether `text` is `sha256:` and 64 lower-case hex digits: the only algorithm that is accepted, so that a
/// digest can be a file's name.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && matches!(b, b'.' | b'-')))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    // Between two alphanumerics: one '.', one or two '_', or any number of '-'.
    bytes
        .split(|b| alnum(*b))
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn normal(name: &str) -> String {
        name.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_forms_are_written_out() {
        assert_eq!(normal("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("busybox:1.36"), "docker.io/library/busybox:1.36");
        assert_eq!(normal("user/app"), "docker.io/user/app:latest");
        assert_eq!(normal("index.docker.io/user/app"), "docker.io/user/app:latest");
        assert_eq!(normal("localhost/app"), "localhost/app:latest");
        assert_eq!(normal("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(normal("[::1]:5000/a/b:c"), "[::1]:5000/a/b:c");
        assert_eq!(normal("ghcr.io/a/b_c__d.e--f:v1.0-rc"), "ghcr.io/a/b_c__d.e--f:v1.0-rc");
    }

    #[test]
    fn a_digest_outranks_a_tag() {
        assert_eq!(normal(&format!("busybox:1@sha256:{HEX}")), format!("docker.io/library/busybox@sha256:{HEX}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            "UPPER",
            "a//b",
            "a/",
            "/a",
            "a:",
            "a:b:c",
            "a@sha256:123",
            "a@md5:abc",
            "a b",
            "a..b",
            "-a",
            "a___b",
            "r.io/",
            "r.io:x/a",
            "r.io:99999/a",
            "a/../b",
            "./a",
            "a@",
            "é",
            "[::1/a",
            "a:.x",
        ] {
            assert!(matches!(bad.parse::<Reference>(), Err(ImageError::InvalidName { .. })), "{bad:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn normal_forms_are_fixed_points(name in "[a-z0-9./:@_-]{1,40}") {
            if let Ok(reference) = name.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
