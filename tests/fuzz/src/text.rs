//! The small languages: selectors and quantities.

use wherry_api::quantity::{Quantity, canonical};
use wherry_api::selector::{Attributes, FieldSelector, LabelSelector};

/// A label selector in the first line, a field selector in the second.
pub(crate) fn selector(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (labels, fields) = text.split_once('\n').unwrap_or((&text, ""));
    let attributes = Attributes {
        labels: [("app".to_owned(), "web".to_owned())].into(),
        fields: vec![("metadata.name", "a".to_owned())],
    };
    if let Ok(selector) = LabelSelector::parse(labels) {
        let all = selector.requirements().iter().all(|one| one.matches(&attributes.labels));
        assert_eq!(selector.matches(&attributes.labels), all, "{labels:?} is not the sum of its requirements");
    }
    if let Ok(selector) = FieldSelector::parse(fields) {
        selector.matches(&attributes);
    }
}

/// A quantity: the canonical form means the same and is its own canonical form.
pub(crate) fn quantity(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let parsed = Quantity::parse(&text);
    let written = canonical(&text);
    assert_eq!(parsed.is_ok(), written.is_ok(), "{text:?} is a quantity to one and none to the other");
    let (Ok(parsed), Ok(written)) = (parsed, written) else {
        return;
    };
    assert_eq!(canonical(&written).as_deref(), Ok(&*written), "{text:?}");
    assert_eq!(Quantity::parse(&written).map(|again| again.value()), Ok(parsed.value()), "{text:?} as {written:?}");
}
