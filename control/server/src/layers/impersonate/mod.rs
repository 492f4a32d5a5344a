//! Acting as somebody else: `kubectl --as`, for those who may impersonate (upstream's impersonation filter).
//!
//! Runs after authentication and before authorization; what is then done is authorized as the impersonated user. The headers
//! go no further than here. What has to be permitted is in [`modes`].

mod modes;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use wherry_api::status::Status;

use super::authorize::{Attributes, Authorizer};
use super::info::RequestInfo;
use crate::User;
use crate::respond::Failure;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Replaces the request's user by the one it asks to act as, or refuses.
pub(crate) async fn layer(State(authorizer): State<Arc<dyn Authorizer>>, mut request: Request, next: Next) -> Response {
    let wanted = match take(request.headers_mut()) {
        Ok(None) => return next.run(request).await,
        Ok(Some(wanted)) => wanted,
        Err(status) => return Failure(status).into_response(),
    };
    let extensions = request.extensions();
    let (Some(user), Some(info)) = (extensions.get::<User>(), extensions.get::<Arc<RequestInfo>>()) else {
        return Failure(Status::unauthorized()).into_response();
    };
    match modes::impersonate(authorizer.as_ref(), user, &wanted, &Attributes::from(info.as_ref())) {
        Ok(user) => request.extensions_mut().insert(user),
        Err(status) => return Failure(status).into_response(),
    };
    next.run(request).await
}

/// Whom the headers ask for, as they say it; they are taken out.
fn take(headers: &mut HeaderMap) -> Result<Option<User>, Status> {
    let is_ours = |name: &HeaderName| [USER, GROUP, UID].contains(&name.as_str()) || name.as_str().starts_with(EXTRA);
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    let mut wanted = User::default();
    for name in names {
        let values = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned);
        let mut values: Vec<String> = values.collect();
        headers.remove(&name);
        match name.as_str() {
            USER if !values.is_empty() => wanted.name = values.swap_remove(0),
            UID if !values.is_empty() => wanted.uid = values.swap_remove(0),
            GROUP => wanted.groups = values,
            other => {
                let key = percent_decode_str(other.trim_start_matches(EXTRA)).decode_utf8_lossy().into_owned();
                wanted.extra.entry(key).or_default().extend(values);
            }
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == User::default() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", go(&wanted))))
}

/// As Go prints the value that upstream makes of the headers.
fn go(user: &User) -> String {
    let list = |list: &[String]| {
        let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
        format!("[]string{{{}}}", items.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let items: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        format!("map[string][]string{{{}}}", items.join(", "))
    };
    format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.name, user.uid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(given: &[(&'static str, &str)]) -> Result<Option<User>, Status> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", "text/plain".parse().unwrap());
        for (name, value) in given {
            headers.append(*name, value.parse().unwrap());
        }
        let wanted = take(&mut headers);
        assert_eq!(headers.len(), 1, "the headers are taken out");
        wanted
    }

    #[test]
    fn headers_name_a_user() {
        assert_eq!(read(&[]).unwrap(), None);
        let wanted = read(&[
            (USER, "jane"),
            (GROUP, "dev"),
            (GROUP, "ops"),
            (UID, "1"),
            ("impersonate-extra-acme.com%2fproject", "x"),
            ("impersonate-extra-acme.com%2fproject", "y"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!((wanted.name.as_str(), wanted.uid.as_str()), ("jane", "1"));
        assert_eq!(wanted.groups, ["dev", "ops"]);
        assert_eq!(wanted.extra["acme.com/project"], ["x", "y"]);
    }

    #[test]
    fn nothing_is_impersonated_without_a_user() {
        for (headers, text) in [
            (
                vec![(GROUP, "dev")],
                r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"dev"}, Extra:map[string][]string(nil)} without impersonating a user name"#,
            ),
            (
                vec![(UID, "1"), ("impersonate-extra-k", "v")],
                r#"requested &user.DefaultInfo{Name:"", UID:"1", Groups:[]string(nil), Extra:map[string][]string{"k":[]string{"v"}}} without impersonating a user name"#,
            ),
        ] {
            assert_eq!(read(&headers).unwrap_err().message, text);
        }
    }
}
