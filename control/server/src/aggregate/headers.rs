//! How extension API servers are told who asks.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::User;

/// The user's name.
pub(crate) const USER: &str = "X-Remote-User";
/// The user's uid.
pub(crate) const UID: &str = "X-Remote-Uid";
/// A group of the user.
pub(crate) const GROUP: &str = "X-Remote-Group";
/// Before the key of what else is known of the user.
pub(crate) const EXTRA: &str = "X-Remote-Extra-";

/// What of a key must be encoded to stand in the name of a header.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Says who the user is. What the client said of that is dropped.
pub(super) fn introduce(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    let claimed: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    claimed.iter().for_each(|name| drop(headers.remove(name)));
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("header {name:?}: {error}"))?;
        let told = HeaderValue::from_bytes(value.as_bytes()).map_err(|error| format!("header {name}: {error}"))?;
        headers.append(name, told);
        Ok::<_, String>(())
    };
    add(USER, &user.name)?;
    if !user.uid.is_empty() {
        add(UID, &user.uid)?;
    }
    user.groups.iter().try_for_each(|group| add(GROUP, group))?;
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(key, ENCODED));
        values.iter().try_for_each(|value| add(&name, value))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_by_this_server_alone() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("X-Remote-User", "root"), ("X-Remote-Group", "system:masters"), ("X-Remote-Extra-A", "b")]
        {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let mut user = User::new("jane", ["devs"]).with_extra("example.com/a%b", "c");
        user.uid = "7".to_owned();
        introduce(&mut headers, &user).unwrap();
        let mut told: Vec<(String, String)> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        told.sort();
        let expected = [
            ("accept", "application/json"),
            ("x-remote-extra-example.com%2fa%25b", "c"),
            ("x-remote-group", "devs"),
            ("x-remote-group", "system:authenticated"),
            ("x-remote-uid", "7"),
            ("x-remote-user", "jane"),
        ];
        assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        user.name = "a\nb".to_owned();
        assert!(introduce(&mut headers, &user).is_err(), "no header can hold it");
    }
}
