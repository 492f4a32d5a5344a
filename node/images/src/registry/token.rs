//! How a registry is told who we are: the challenges of HTTP and the token service of the distribution project.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::Deserialize;

use super::http::{Failure, broken, read_capped};
use crate::registries::Endpoint;
use crate::{Auth, ImageError, Reference};

/// A token is renewed before it ends, so that it does not end on its way.
const MARGIN: Duration = Duration::from_secs(10);
/// What a token service means that does not say.
const DEFAULT_LIFE: u64 = 60;
/// Nobody's word is believed for longer.
const LONGEST_LIFE: u64 = 3600;
const MAX_TOKEN: u64 = 256 * 1024;
/// Tokens kept. Beyond it all are forgotten: they are asked for again.
const CAPACITY: usize = 1024;

/// The `Authorization` values that have worked, by endpoint, credentials and scope.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<u64, (String, Instant)>>);

impl Tokens {
    pub(super) fn known(&self, endpoint: &Endpoint, scope: &str) -> Option<String> {
        let tokens = self.0.lock();
        tokens.get(&key(endpoint, scope)).filter(|(_, until)| *until > Instant::now()).map(|(proof, _)| proof.clone())
    }

    fn keep(&self, endpoint: &Endpoint, scope: &str, proof: &str, life: Duration) {
        let mut tokens = self.0.lock();
        if tokens.len() >= CAPACITY {
            tokens.clear();
        }
        tokens.insert(key(endpoint, scope), (proof.to_owned(), Instant::now() + life));
    }

    /// The `Authorization` that answers a challenge; none where there is nothing to say.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        endpoint: &Endpoint,
        challenges: &[String],
        scope: &str,
        reference: &Reference,
    ) -> Result<Option<String>, Failure> {
        if let Some(Auth::Bearer(token)) = &endpoint.auth {
            return Ok(Some(format!("Bearer {token}")));
        }
        let parsed: Vec<Challenge> = challenges.iter().filter_map(|text| Challenge::parse(text)).collect();
        if let Some(challenge) = parsed.iter().find(|challenge| challenge.scheme == "bearer") {
            let (proof, life) = fetch(http, endpoint, challenge, scope, reference).await?;
            self.keep(endpoint, scope, &proof, life);
            return Ok(Some(proof));
        }
        match (&endpoint.auth, parsed.iter().any(|challenge| challenge.scheme == "basic")) {
            (Some(Auth::Basic { username, password }), true) => {
                let proof = basic(username, password);
                self.keep(endpoint, scope, &proof, Duration::from_secs(LONGEST_LIFE));
                Ok(Some(proof))
            }
            _ => Ok(None),
        }
    }
}

fn key(endpoint: &Endpoint, scope: &str) -> u64 {
    // The credentials are part of it: one user's token is not another's.
    let mut hasher = DefaultHasher::new();
    (&endpoint.base, &endpoint.auth, scope).hash(&mut hasher);
    hasher.finish()
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

async fn fetch(
    http: &reqwest::Client,
    endpoint: &Endpoint,
    challenge: &Challenge,
    scope: &str,
    reference: &Reference,
) -> Result<(String, Duration), Failure> {
    let bad =
        |problem: &str| ImageError::malformed(format!("{reference}: the challenge of {}", endpoint.host), problem);
    let realm = challenge.get("realm").ok_or_else(|| bad("it names no realm"))?;
    let mut url = reqwest::Url::parse(realm).map_err(|_| bad("its realm is not a URL"))?;
    // Credentials don't leave an encrypted registry in the clear.
    if url.scheme() != "https" && !(url.scheme() == "http" && endpoint.base.starts_with("http://")) {
        return Err(bad("its realm is not https").into());
    }
    let service = challenge.get("service").unwrap_or_default();
    let request = match &endpoint.auth {
        Some(Auth::Identity(token)) => {
            let mut form = form_urlencoded(&[
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", "wherry"),
                ("scope", scope),
            ]);
            form.push_str(&form_urlencoded(&[("", ""), ("refresh_token", token)])[1..]);
            http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form)
        }
        other => {
            url.query_pairs_mut().append_pair("service", service).append_pair("scope", scope);
            let request = http.get(url);
            match other {
                Some(Auth::Basic { username, password }) => request.header("authorization", basic(username, password)),
                _ => request,
            }
        }
    };
    let response = request.send().await.map_err(|e| broken(endpoint, &e))?;
    let status = response.status();
    if !status.is_success() {
        let error = ImageError::Unauthorized {
            reference: reference.to_string(),
            registry: endpoint.host.clone(),
            detail: format!("its token service answered {status}"),
        };
        return Err(Failure { error, transient: status.is_server_error(), wait: None });
    }
    let what = format!("{reference}: the token of {}", endpoint.host);
    let body = read_capped(response, MAX_TOKEN, &what, "the most that a token may have", &endpoint.host).await?;
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|_| bad("its token service does not answer with JSON"))?;
    let token = answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| bad("its token service gives no token"))?;
    let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE));
    Ok((format!("Bearer {token}"), life.saturating_sub(MARGIN)))
}

/// `a=b&c=d`, percent-encoded, as a form's body.
fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    let mut url = reqwest::Url::parse("http://form/").unwrap_or_else(|_| unreachable!("a fixed URL"));
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// One `WWW-Authenticate` value.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    /// In lower case.
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parameters = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            let Some((name, after)) = rest.split_once('=') else { break };
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => unquote(quoted)?,
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    (after[..end].trim().to_owned(), &after[end..])
                }
            };
            parameters.push((name.trim().to_ascii_lowercase(), value));
        }
        (!scheme.is_empty()).then(|| Self { scheme: scheme.to_ascii_lowercase(), parameters })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A quoted string from after its first quote: its value and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = Challenge::parse(
            r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#,
        )
        .unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.get("realm"), Some("https://auth.example/token"));
        assert_eq!(challenge.get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(Challenge::parse(r#"Basic realm="a \"b\"""#).unwrap().get("realm"), Some(r#"a "b""#));
        assert_eq!(Challenge::parse("Basic").unwrap().parameters, []);
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form_urlencoded(&[("a", "b c&d"), ("e", "")]), "a=b+c%26d&e=");
    }

    proptest! {
        #[test]
        fn no_challenge_breaks_the_parser(text in ".{0,80}") {
            let _ = Challenge::parse(&text);
        }
    }
}
