//! What a service account's token says, in the two forms there are: the bound one of TokenRequest, and the legacy one that
//! lies in a Secret and never expires.

use serde::{Deserialize, Deserializer, Serialize};

/// Clocks of a cluster differ a little: times are taken with this much leeway (go-jose's).
pub(super) const LEEWAY: i64 = 60;

/// The claims of a bound token; times in seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io", default)]
    pub(crate) kubernetes: Kubernetes,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// The part that is Kubernetes' own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kubernetes {
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
    /// When the use of the token should be warned of, where it is good for longer than was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

/// An object, and which one of that name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

impl Claims {
    /// Whether the token is good at `now`; else why not, in upstream's words.
    pub(super) fn check_times(&self, now: i64) -> Result<(), &'static str> {
        if now.saturating_add(LEEWAY) < self.nbf {
            return Err("service account token is not valid yet");
        }
        if now.saturating_sub(LEEWAY) > self.exp {
            return Err("service account token has expired");
        }
        if now.saturating_add(LEEWAY) < self.iat {
            return Err("service account token is issued in the future");
        }
        Ok(())
    }
}

/// The claims of a token in a Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LegacyClaims {
    pub(crate) iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    pub(crate) namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    pub(crate) secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    pub(crate) account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    pub(crate) account_uid: String,
    #[serde(default)]
    pub(crate) sub: String,
}

/// An audience may be one string or a list.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_are_taken_with_leeway() {
        let claims = Claims { nbf: 1000, iat: 1000, exp: 2000, ..Claims::default() };
        for (now, expected) in [
            (939, Err("service account token is not valid yet")),
            (940, Ok(())),
            (2060, Ok(())),
            (2061, Err("service account token has expired")),
        ] {
            assert_eq!(claims.check_times(now), expected, "{now}");
        }
        let ahead = Claims { iat: 1500, ..claims };
        assert_eq!(ahead.check_times(1100), Err("service account token is issued in the future"));
    }

    #[test]
    fn an_audience_is_one_or_many() {
        let read = |aud: &str| {
            let text = format!(r#"{{"aud":{aud},"exp":1,"iat":1,"nbf":1,"iss":"","sub":""}}"#);
            serde_json::from_str::<Claims>(&text).map(|claims| claims.aud)
        };
        assert_eq!(read(r#""a""#).unwrap(), ["a"]);
        assert_eq!(read(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert!(read("1").is_err());
    }
}
