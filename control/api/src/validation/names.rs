//! The rules for names: DNS labels and subdomains, label keys and values, ports, environment variables.
//!
//! A [`Rule`] takes a text and gives what is wrong with it, nothing if it is fine. All are written by hand over bytes: they run
//! several times for each object written.

/// What is wrong with a text.
pub type Rule = fn(&str) -> Vec<String>;

const PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

fn too_long(text: &str, max: usize, unit: &str) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} {unit}"))
}

fn pattern(what: &str, pattern: &str, examples: &[&str]) -> String {
    let mut text = what.to_owned();
    text.push_str(" (");
    for (i, example) in examples.iter().enumerate() {
        text.push_str(if i == 0 { "e.g. '" } else { " or '" });
        text.push_str(example);
        text.push_str("', ");
    }
    text + "regex used for validation is '" + pattern + "')"
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Letters of `ends` first and last, of `ends` or `inner` between; not empty.
fn shaped(text: &str, ends: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let end = |b: Option<&u8>| b.is_some_and(|b| ends(*b));
    end(bytes.first()) && end(bytes.last()) && bytes.iter().all(|b| ends(*b) || inner.contains(b))
}

fn is_label(text: &str) -> bool {
    shaped(text, lower, b"-")
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Anything.
pub fn any(_: &str) -> Vec<String> {
    Vec::new()
}

/// RFC 1123 label: Namespaces, Services, containers, volumes.
pub fn label(text: &str) -> Vec<String> {
    let mut errors: Vec<_> = too_long(text, 63, "characters").into_iter().collect();
    if !is_label(text) {
        errors.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    errors
}

/// RFC 1035 label: versions of APIs.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut errors: Vec<_> = too_long(text, 63, "characters").into_iter().collect();
    if !(is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase())) {
        errors.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// RFC 1123 subdomain: most objects.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut errors: Vec<_> = too_long(text, 253, "characters").into_iter().collect();
    if !is_subdomain(text) {
        errors.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// A search path of DNS: a subdomain that may have underscores.
pub fn search(text: &str) -> Vec<String> {
    const FORM: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    let mut errors: Vec<_> = too_long(text, 253, "characters").into_iter().collect();
    let is_part = |part: &str| shaped(part.strip_prefix('_').unwrap_or(part), lower, b"-_");
    if !text.split('.').all(is_part) {
        errors.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            FORM,
            &["example.com"],
        ));
    }
    errors
}

/// A segment of a URL's path: RBAC objects.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// The key of a label or the name of a resource or finalizer, with or without a domain before it.
pub fn qualified(text: &str) -> Vec<String> {
    const KEY: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let examples = ["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((prefix, name)) => (Some(prefix), name),
    };
    if name.contains('/') {
        let key = pattern(KEY, FORM, &examples);
        return vec![format!(
            "a valid label key {key} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )];
    }
    match prefix {
        Some("") => errors.push("prefix part must be non-empty".to_owned()),
        Some(prefix) if !(is_subdomain(prefix) && prefix.len() <= 253) => {
            errors.extend(subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
        }
        _ => {}
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if let Some(long) = too_long(name, 63, "bytes") {
        errors.push(format!("name part {long}"));
    }
    if !shaped(name, |b| b.is_ascii_alphanumeric(), b"-_.") {
        errors.push(format!("name part {}", pattern(KEY, FORM, &examples)));
    }
    errors
}

/// The key of an annotation: as a label's, whatever the case.
pub fn annotation_key(text: &str) -> Vec<String> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) { qualified(&text.to_ascii_lowercase()) } else { qualified(text) }
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut errors: Vec<_> = too_long(text, 63, "bytes").into_iter().collect();
    if !text.is_empty() && !shaped(text, |b| b.is_ascii_alphanumeric(), b"-_.") {
        errors.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// The name of an environment variable.
pub fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must not be empty".to_owned()];
    }
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        Vec::new()
    } else {
        vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ]
    }
}

/// The key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut errors: Vec<_> = too_long(text, 253, "characters").into_iter().collect();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        errors.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    } else if text == "." {
        errors.push("must not be '.'".to_owned());
    } else if text == ".." {
        errors.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// The name of a port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut errors: Vec<_> = too_long(text, 15, "characters").into_iter().collect();
    if !text.bytes().all(|b| lower(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A share in per cent.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![pattern(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// An IP address.
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// A network: an address and the length of its prefix.
pub fn cidr(text: &str) -> Vec<String> {
    if network(text).is_some() {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

/// Address and prefix length of a network.
pub fn network(text: &str) -> Option<(std::net::IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let (address, length): (std::net::IpAddr, u32) = (address.parse().ok()?, length.parse().ok()?);
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// A subdomain whose first part is a star.
pub fn wildcard(text: &str) -> Vec<String> {
    if text.strip_prefix("*.").is_some_and(is_subdomain) {
        return Vec::new();
    }
    vec![pattern(
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
        &format!(r"\*\.{SUBDOMAIN}"),
        &["*.example.com"],
    )]
}

/// A domain and a path below it, such as `acme.io/foo`.
pub fn domain_prefixed(text: &str) -> Vec<String> {
    match text.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            let mut messages = subdomain(domain);
            if !path.bytes().all(|b| b.is_ascii_alphanumeric() || br"/\-._~%!$&'()*+,;=:".contains(&b)) {
                messages.push(format!("Invalid path (regex used for validation is '{PATH}')"));
            }
            messages
        }
        _ => vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()],
    }
}

/// What is wrong with a port's number.
pub fn port_number(port: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&port)).then_some("must be between 1 and 65535, inclusive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_upstream_does() {
        let table: &[(Rule, &[&str], &[&str])] = &[
            (label, &["a", "a-b", "0", "123-abc"], &["", "A", "-a", "a-", "a.b", "a_b", "ä"]),
            (dns_1035_label, &["v1", "v1beta1", "a-1"], &["", "1", "V1", "-a", "a-", "v1.x"]),
            (subdomain, &["a", "a.b", "a-1.b"], &["", "a..b", ".a", "a.", "A", "a-.b", "a/b"]),
            (qualified, &["a", "A_b.c", "x.y/a", "1"], &["", "/a", "a/", "a/b/c", "-a", "X/a", "a b"]),
            (label_value, &["", "a", "A.b_c-1"], &["-", "a b", "a/b", "a."]),
            (config_key, &["a", "A_b", ".x", "a..b"], &["", ".", "..", "..a", "a b"]),
            (port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "Http", "abcdefghijklmnop"]),
            (env_name, &["A", "a.b-c", "1", "a b"], &["", "a=b", "ä", "a\n"]),
            (percent, &["1%", "100%"], &["", "%", "1", "-1%", "a%"]),
            (path_segment, &["system:node", "A b"], &[".", "..", "a/b", "a%b"]),
        ];
        for (rule, good, bad) in table {
            for text in *good {
                assert!(rule(text).is_empty(), "{text:?} is good: {:?}", rule(text));
            }
            for text in *bad {
                assert!(!rule(text).is_empty(), "{text:?} is bad");
            }
        }
        assert_eq!(label("a.b"), ["must not contain dots"]);
        assert_eq!(label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }

    #[test]
    fn texts_are_upstreams() {
        assert_eq!(
            subdomain("Bad_Name"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
              alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert!(
            label("A")[0].contains(
                "(e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            )
        );
    }
}
