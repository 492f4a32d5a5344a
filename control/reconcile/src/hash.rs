//! Short, stable names for content: the `pod-template-hash` of a Pod template, the hash of a revision's data.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// Characters that cannot form words or be mistaken for each other; label values and names may hold all of them.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template. `collisions` is the owner's `status.collisionCount`: raising it gives the same template another
/// name after two templates were found to share one.
pub fn pod_template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Serialization is canonical: struct fields have a fixed order and maps are sorted.
    let mut hash = Fnv::new();
    match serde_json::to_vec(template) {
        Ok(bytes) => hash.write(&bytes),
        // A template that was decoded from JSON always encodes; its debug form is as stable.
        Err(_) => hash.write(format!("{template:?}").as_bytes()),
    }
    finish(hash, collisions)
}

/// The hash of a tree; `collisions` as above.
pub fn data_hash(data: &Value, collisions: Option<i32>) -> String {
    let mut hash = Fnv::new();
    hash.write(data.to_string().as_bytes());
    finish(hash, collisions)
}

fn finish(mut hash: Fnv, collisions: Option<i32>) -> String {
    if let Some(collisions) = collisions {
        hash.write(&collisions.to_le_bytes());
    }
    safe_encode(&hash.0.to_string())
}

/// Each byte replaced by one of [`ALPHABET`].
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// FNV-1a of 32 bits: not secure, and it need not be; collisions are counted, not feared.
struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_fnv_1a() {
        let mut hash = Fnv::new();
        hash.write(b"foobar");
        assert_eq!(hash.0, 0xbf9c_f968);
    }

    #[test]
    fn depends_on_template_and_collisions_only() {
        let mut template = PodTemplateSpec::default();
        let plain = pod_template_hash(&template, None);
        assert_eq!(plain, pod_template_hash(&template, None));
        assert_ne!(plain, pod_template_hash(&template, Some(1)));
        template.metadata.get_or_insert_default().name = Some("x".into());
        assert_ne!(plain, pod_template_hash(&template, None));
        assert!(plain.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
