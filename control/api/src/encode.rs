//! The stored form of an object: its JSON without `metadata.resourceVersion`, and where that belongs.
//!
//! (Answers in protobuf are made of it: [`protobuf`], with [`wire`] for the envelope.)
//!
//! The revision is only known at commit. The store splices `"resourceVersion":"N",` in at [`Encoded::rv_at`], so that
//! no object is serialised a second time and every reader shares the bytes.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::status::Status;

pub mod protobuf;
pub mod wire;

/// An object's JSON, ready for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The JSON without `metadata.resourceVersion`.
    pub json: Bytes,
    /// The offset right after `"metadata":{`.
    pub rv_at: usize,
}

impl Encoded {
    /// Encodes `object`. Its `metadata` must hold something besides the resource version (every stored object has a
    /// name), else the spliced text would not be JSON.
    pub fn new(object: &Value) -> Result<Self, Status> {
        let map = object.as_object().ok_or_else(|| Status::internal("cannot encode what is not an object"))?;
        let mut json: Vec<u8> = Vec::with_capacity(1024);
        let mut rv_at = None;
        json.push(b'{');
        for (i, (key, value)) in map.iter().enumerate() {
            if i > 0 {
                json.push(b',');
            }
            write_json(&mut json, key)?;
            json.push(b':');
            match value {
                Value::Object(metadata) if key == "metadata" => {
                    json.push(b'{');
                    let start = json.len();
                    rv_at = Some(start);
                    for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
                        if json.len() > start {
                            json.push(b',');
                        }
                        write_json(&mut json, key)?;
                        json.push(b':');
                        write_json(&mut json, value)?;
                    }
                    if json.len() == start {
                        return Err(Status::internal("cannot encode an object without a name"));
                    }
                    json.push(b'}');
                }
                _ => write_json(&mut json, value)?,
            }
        }
        json.push(b'}');
        let rv_at = rv_at.ok_or_else(|| Status::internal("cannot encode an object without metadata"))?;
        Ok(Self { json: json.into(), rv_at })
    }

    /// The JSON with the resource version in its place.
    pub fn splice(&self, revision: u64) -> Bytes {
        let mut out = Vec::with_capacity(self.json.len() + 42);
        out.extend_from_slice(&self.json[..self.rv_at]);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "\"resourceVersion\":\"{revision}\",");
        out.extend_from_slice(&self.json[self.rv_at..]);
        out.into()
    }
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Status> {
    serde_json::to_writer(out, value).map_err(Status::internal)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_is_spliced_into_metadata() {
        let mut object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "{", "é": "\n"},
            "metadata": {"name": "a", "resourceVersion": "7", "labels": {"x": "y"}},
        });
        let encoded = Encoded::new(&object).unwrap();
        assert!(encoded.json[..encoded.rv_at].ends_with(b"\"metadata\":{"));
        let spliced: Value = serde_json::from_slice(&encoded.splice(42)).unwrap();
        object["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(spliced, object);
    }

    #[test]
    fn what_could_not_be_spliced_is_refused() {
        for object in [json!([]), json!({}), json!({"metadata": {}}), json!({"metadata": {"resourceVersion": "1"}})] {
            assert!(Encoded::new(&object).is_err(), "{object}");
        }
    }
}
