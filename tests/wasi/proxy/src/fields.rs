//! Headers and trailers.

use wasip2::http::types::{Fields, HeaderError};

pub(crate) fn check() {
    let fields = Fields::new();
    assert!(fields.entries().is_empty() && !fields.has("x-one") && fields.get("x-one").is_empty());
    fields.append("x-one", b"1").unwrap();
    fields.append("X-One", b"2").unwrap();
    assert_eq!((fields.has("X-ONE"), fields.get("x-one")), (true, vec![b"1".to_vec(), b"2".to_vec()]));
    fields.set("x-one", &[b"3".to_vec()]).unwrap();
    fields.set("x-two", &[b"4".to_vec()]).unwrap();
    assert_eq!((fields.get("x-one"), fields.entries().len()), (vec![b"3".to_vec()], 2));
    let copy = fields.clone();
    fields.delete("x-one").unwrap();
    assert!(!fields.has("x-one") && copy.has("x-one"), "a copy is its own");

    let listed = Fields::from_list(&[("x-three".to_owned(), b"5".to_vec())]).unwrap();
    assert_eq!(listed.entries(), [("x-three".to_owned(), b"5".to_vec())]);
    for (name, value) in [("no name", &b"x"[..]), ("", b"x"), ("x-four", b"line\nfeed")] {
        assert!(matches!(listed.append(name, value), Err(HeaderError::InvalidSyntax)), "{name:?}");
        assert!(matches!(listed.set(name, &[value.to_vec()]), Err(HeaderError::InvalidSyntax)), "{name:?}");
        let list = [(name.to_owned(), value.to_vec())];
        assert!(matches!(Fields::from_list(&list), Err(HeaderError::InvalidSyntax)), "{name:?}");
    }
    assert!(matches!(listed.append("connection", b"close"), Err(HeaderError::Forbidden)), "it is the host's");
}
