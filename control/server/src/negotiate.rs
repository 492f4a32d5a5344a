//! Which representation the client accepts, and how its body is written.
//!
//! Answers can be JSON or YAML; objects may be asked for as they are, as a `Table`, or as their metadata. A
//! client names what it accepts in order of preference; the first that can be made is chosen, and if there is none the
//! answer is 406. Protobuf in `Accept` is passed over as long as something else is acceptable.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use wherry_api::decode::ContentType;
use wherry_api::status::Status;

/// What bodies may be.
const READ: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What answers may be.
const WRITTEN: [&str; 2] = ["application/json", "application/yaml"];
/// What watches may be.
const STREAMED: [&str; 2] = ["application/json", "application/json;stream=watch"];

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// What of an object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The object itself.
    Whole,
    /// A `meta.k8s.io/v1` Table (or v1beta1, which differs in nothing else).
    Table { beta: bool },
    /// `PartialObjectMetadata`, in a list `PartialObjectMetadataList`.
    Metadata,
}

/// The representation of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) format: Format,
    pub(crate) view: View,
    /// `;stream=watch` was asked for, which the content type of a watch repeats.
    pub(crate) stream: bool,
}

/// A media range with its parameters: `application/json;as=Table;v=v1`.
pub(crate) struct MediaRange<'a> {
    pub(crate) media: &'a str,
    quality: u16,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut range = Self { media, quality: 1000, parameters: Vec::new() };
        for parameter in parts {
            let Some((key, value)) = parameter.split_once('=') else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim().trim_matches('"'));
            match key {
                "q" => range.quality = value.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16),
                _ => range.parameters.push((key, value)),
            }
        }
        range
    }

    pub(crate) fn parameter(&self, key: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }
}

/// The ranges of `Accept`, best first; without the header anything goes.
pub(crate) fn ranges(headers: &HeaderMap) -> Vec<MediaRange<'_>> {
    let mut ranges: Vec<_> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter(|v| !v.trim().is_empty())
        .map(MediaRange::parse)
        .filter(|r| r.quality > 0)
        .collect();
    if ranges.is_empty() && !headers.contains_key(ACCEPT) {
        ranges.push(MediaRange::parse("*/*"));
    }
    ranges.sort_by_key(|r| std::cmp::Reverse(r.quality));
    ranges
}

/// What a kind of answer may be turned into.
#[derive(Clone, Copy)]
pub(crate) struct Offers {
    /// Tables and metadata can be made of it.
    pub(crate) transformable: bool,
    /// It is a watch: YAML documents cannot be told apart in a stream.
    pub(crate) watch: bool,
}

/// Chooses the representation, or says 406.
pub(crate) fn accept(headers: &HeaderMap, offers: Offers) -> Result<Accepted, Status> {
    for range in ranges(headers) {
        let format = match range.media {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/yaml" | "application/x-yaml" | "text/yaml" if !offers.watch => Format::Yaml,
            _ => continue,
        };
        let version = range.parameter("v");
        let meta = range.parameter("g").is_none_or(|g| g == "meta.k8s.io");
        let view = match range.parameter("as") {
            None => View::Whole,
            Some("Table") if offers.transformable && meta => match version {
                Some("v1") | None => View::Table { beta: false },
                Some("v1beta1") => View::Table { beta: true },
                Some(_) => continue,
            },
            Some("PartialObjectMetadata" | "PartialObjectMetadataList")
                if offers.transformable && meta && matches!(version, Some("v1" | "v1beta1") | None) =>
            {
                View::Metadata
            }
            Some(_) => continue,
        };
        return Ok(Accepted { format, view, stream: range.parameter("stream") == Some("watch") });
    }
    Err(Status::not_acceptable(if offers.watch { &STREAMED } else { &WRITTEN }))
}

/// How the request's body is written; 415 for what is not understood.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<ContentType, Status> {
    match content_type(headers) {
        "" | "application/json" | "*/*" => Ok(ContentType::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(ContentType::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(ContentType::Protobuf),
        _ => Err(Status::unsupported_media_type(&READ)),
    }
}

/// The media type of the body without parameters, empty if there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn chosen(accept_header: &str, transformable: bool, watch: bool) -> Option<(Format, View)> {
        let mut headers = HeaderMap::new();
        if !accept_header.is_empty() {
            headers.insert(ACCEPT, accept_header.parse().unwrap());
        }
        accept(&headers, Offers { transformable, watch }).ok().map(|a| (a.format, a.view))
    }

    #[test]
    fn representations() {
        use Format::{Json, Yaml};
        let table = View::Table { beta: false };
        for (header, expected) in [
            ("", Some((Json, View::Whole))),
            ("*/*", Some((Json, View::Whole))),
            ("application/json", Some((Json, View::Whole))),
            ("application/yaml", Some((Yaml, View::Whole))),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Json, View::Whole))),
            ("text/html", None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some((Json, table))),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Some((Json, View::Whole))),
            ("application/json;as=Table;v=v1;g=other", None),
            ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", Some((Json, View::Metadata))),
            ("application/json;q=0.1, application/yaml;q=0.9", Some((Yaml, View::Whole))),
            ("application/json;q=0", None),
        ] {
            assert_eq!(chosen(header, true, false), expected, "{header}");
        }
        assert_eq!(chosen("application/json;as=Table;v=v1;g=meta.k8s.io", false, false), None);
        assert_eq!(chosen("application/yaml", true, true), None);
    }
}
