//! Which representation the client accepts, and how its body is written.
//!
//! Answers can be JSON, YAML or protobuf; objects may be asked for as they are, as a `Table`, or as their metadata. A
//! client names what it accepts in order of preference; the first that can be made is chosen, and if there is none the
//! answer is 406. Where a range leaves the format open it is the first of [`FORMATS`], as upstream.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use wherry_api::decode::ContentType;
use wherry_api::status::Status;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// In the server's order of preference.
const FORMATS: [Format; 3] = [Format::Json, Format::Yaml, Format::Protobuf];

impl Format {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The content type of a watch; none if its documents cannot be told apart in a stream.
    pub(crate) fn stream_type(self) -> Option<&'static str> {
        match self {
            Self::Json => Some(JSON),
            Self::Yaml => None,
            Self::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
        }
    }
}

/// What of an object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The object itself.
    Whole,
    /// A `meta.k8s.io/v1` Table (or v1beta1, which differs in nothing else).
    Table { beta: bool },
    /// `PartialObjectMetadata`, or `PartialObjectMetadataList` for lists.
    Metadata { beta: bool, list: bool },
}

/// The representation of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) format: Format,
    pub(crate) view: View,
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

    fn covers(&self, format: Format) -> bool {
        matches!(self.media, "*/*" | "application/*") || self.media == format.media_type()
    }

    fn allows_stream(&self, format: Format) -> bool {
        match self.parameter("stream") {
            None | Some("") => true,
            Some(stream) => stream == "watch" && format.stream_type().is_some(),
        }
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
pub(crate) enum Offers {
    /// Objects and lists: also Tables and metadata can be made of them.
    Objects,
    /// Events: what can be made of objects, one after the other.
    Watch,
    /// Documents of a type that protobuf knows.
    Documents,
    /// Documents that are written as JSON and YAML alone.
    Plain,
}

/// Chooses the representation, or says 406.
pub(crate) fn accept(headers: &HeaderMap, offers: Offers) -> Result<Accepted, Status> {
    let ranges = ranges(headers);
    let candidates = ranges.iter().flat_map(|range| FORMATS.map(|format| (range, format)));
    let allowed = candidates.filter(|(range, format)| range.covers(*format) && range.allows_stream(*format));
    let chosen = allowed
        .filter(|(_, format)| !matches!(offers, Offers::Plain) || *format != Format::Protobuf)
        .find_map(|(range, format)| Some(Accepted { format, view: view(range, format, offers)? }));
    match chosen {
        Some(Accepted { format, .. }) if matches!(offers, Offers::Watch) && format.stream_type().is_none() => {
            Err(Status::not_acceptable(&[
                "application/json;stream=watch",
                "application/vnd.kubernetes.protobuf;stream=watch",
            ]))
        }
        Some(accepted) => Ok(accepted),
        None => Err(Status::not_acceptable(&FORMATS.map(Format::media_type))),
    }
}

/// What the range asks the object to be turned into; none if that cannot be.
fn view(range: &MediaRange<'_>, format: Format, offers: Offers) -> Option<View> {
    let [kind, group, version] = ["as", "g", "v"].map(|key| range.parameter(key));
    if kind.is_none() && group.is_none() && version.is_none() {
        return Some(View::Whole);
    }
    let beta = match version {
        Some("v1") => false,
        Some("v1beta1") => true,
        _ => return None,
    };
    if group != Some("meta.k8s.io") || !matches!(offers, Offers::Objects | Offers::Watch) {
        return None;
    }
    match kind {
        Some("Table") if format != Format::Protobuf => Some(View::Table { beta }),
        Some("PartialObjectMetadata") => Some(View::Metadata { beta, list: false }),
        Some("PartialObjectMetadataList") => Some(View::Metadata { beta, list: true }),
        _ => None,
    }
}

/// How the request's body is written; 415 for what is not understood.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<ContentType, Status> {
    match content_type(headers) {
        "" | JSON => Ok(ContentType::Json),
        YAML => Ok(ContentType::Yaml),
        PROTOBUF => Ok(ContentType::Protobuf),
        _ => Err(Status::unsupported_media_type(&FORMATS.map(Format::media_type))),
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

    fn chosen(accept_header: &str, offers: Offers) -> Option<(Format, View)> {
        let mut headers = HeaderMap::new();
        if !accept_header.is_empty() {
            headers.insert(ACCEPT, accept_header.parse().unwrap());
        }
        accept(&headers, offers).ok().map(|a| (a.format, a.view))
    }

    #[test]
    fn representations() {
        use Format::{Json, Protobuf, Yaml};
        use View::{Metadata, Table, Whole};
        let table = Table { beta: false };
        for (header, expected) in [
            ("", Some((Json, Whole))),
            ("*/*", Some((Json, Whole))),
            ("application/*", Some((Json, Whole))),
            ("application/json", Some((Json, Whole))),
            ("application/yaml", Some((Yaml, Whole))),
            ("application/vnd.kubernetes.protobuf", Some((Protobuf, Whole))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Protobuf, Whole))),
            ("application/json,application/vnd.kubernetes.protobuf", Some((Json, Whole))),
            ("application/vnd.kubernetes.protobuf;stream=watch", Some((Protobuf, Whole))),
            ("application/yaml;stream=watch", None),
            ("application/json;stream=other", None),
            ("text/html", None),
            ("text/html,*/*;q=0.1", Some((Json, Whole))),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some((Json, table))),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Some((Json, Table { beta: true }))),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Some((Json, Whole))),
            ("application/json;as=Table;v=v1;g=other", None),
            ("application/json;as=Table;v=v1", None),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Some((Protobuf, Metadata { beta: false, list: false })),
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                Some((Json, Metadata { beta: false, list: true })),
            ),
            ("application/json;q=0.1, application/yaml;q=0.9", Some((Yaml, Whole))),
            ("application/json;q=0.5, application/vnd.kubernetes.protobuf", Some((Protobuf, Whole))),
            ("application/json;q=0", None),
        ] {
            assert_eq!(chosen(header, Offers::Objects), expected, "{header}");
        }
        assert_eq!(chosen("application/json;as=Table;v=v1;g=meta.k8s.io", Offers::Documents), None);
        assert_eq!(chosen("application/vnd.kubernetes.protobuf", Offers::Plain), None);
        assert_eq!(chosen("application/vnd.kubernetes.protobuf,*/*", Offers::Plain), Some((Json, Whole)));
        assert_eq!(chosen("application/yaml", Offers::Watch), None);
        assert_eq!(chosen("application/yaml,application/json", Offers::Watch), None);
    }
}
