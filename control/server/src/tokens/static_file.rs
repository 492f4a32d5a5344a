//! Tokens from a file: one a line, `token,user,uid` and optionally a quoted list of groups (upstream's `--token-auth-file`).
//!
//! The file is read once, at start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::User;
use crate::layers::authenticate::{Authenticated, Refused, TokenAuthenticator};

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line says too little.
    #[error("token file must have at least 3 columns (token, user name, user uid), found {found} in line {line}")]
    Columns {
        /// The line, from 1.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// A quotation has no end.
    #[error("line {line} has a quotation without an end")]
    Quotation {
        /// The line, from 1.
        line: usize,
    },
}

/// The authenticator of tokens from a file.
pub struct StaticTokens {
    /// By the token's digest: a look-up takes as long whatever the token begins with.
    users: HashMap<[u8; 32], User>,
}

impl StaticTokens {
    /// The tokens in the file at `path`.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path);
        Self::parse(&text.map_err(|source| TokenFileError::Read { path: path.to_owned(), source })?)
    }

    /// The tokens in a text. Of a token that stands there twice the last line counts; a line without a token is left out.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let mut users = HashMap::new();
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let columns = columns(line).ok_or(TokenFileError::Quotation { line: n + 1 })?;
            let [token, name, uid, rest @ ..] = &columns[..] else {
                return Err(TokenFileError::Columns { line: n + 1, found: columns.len() });
            };
            if token.is_empty() {
                tracing::warn!(line = n + 1, "a line of the token file has no token");
                continue;
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let mut user = User::new(name.as_str(), groups.split(',').filter(|group| !group.is_empty()));
            user.uid.clone_from(uid);
            if users.insert(Sha256::digest(token).into(), user).is_some() {
                tracing::warn!(line = n + 1, "the token file names a token again");
            }
        }
        Ok(Self { users })
    }
}

impl std::fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticTokens").field("tokens", &self.users.len()).finish()
    }
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate(&self, token: &str, _audiences: &[String]) -> Result<Option<Authenticated>, Refused> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        Ok(self.users.get(&digest).map(|user| Authenticated { user: user.clone(), audiences: None }))
    }
}

/// The columns of a line; a column in quotation marks may hold commas, and marks that are doubled.
fn columns(line: &str) -> Option<Vec<String>> {
    let (mut columns, mut column, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                column.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(std::mem::take(&mut column)),
            // Space before a column does not count.
            ' ' if !quoted && column.is_empty() => {}
            c => column.push(c),
        }
    }
    columns.push(column);
    (!quoted).then_some(columns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn tokens_are_read_from_lines() {
        let text = "t1,jane,1\n\nt2, joe,2,\"dev,ops\"\n,nobody,3\nt1,jim,4,dev\n";
        let tokens = StaticTokens::parse(text).unwrap();
        let whose = async |token: &str| tokens.authenticate(token, &[]).await.unwrap().map(|found| found.user);
        let mut joe = User::new("joe", ["dev", "ops"]);
        joe.uid = "2".to_owned();
        assert_eq!(whose("t2").await, Some(joe));
        assert_eq!(whose("t1").await.unwrap().name, "jim");
        assert_eq!(whose("").await, None);
        assert_eq!(whose("t3").await, None);
    }

    #[test]
    fn bad_lines_are_refused() {
        assert!(matches!(StaticTokens::parse("a,b"), Err(TokenFileError::Columns { line: 1, found: 2 })));
        assert!(matches!(StaticTokens::parse("\na,b,c,\"d"), Err(TokenFileError::Quotation { line: 2 })));
        assert_eq!(columns("a,\"b \"\"c\"\", d\",").unwrap(), ["a", "b \"c\", d", ""]);
    }
}
