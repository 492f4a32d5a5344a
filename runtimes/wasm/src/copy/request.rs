//! Which commands are copies: those that `kubectl cp` sends, word for word.

use std::ffi::OsStr;

/// What `kubectl cp` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `test -d PATH`.
    IsDirectory(String),
    /// `tar [--no-same-permissions --no-same-owner] -xmf - [-C DIR]`.
    Unpack {
        /// Where to; the working directory where none.
        dir: Option<String>,
        /// Modes are the archive's, not cut by a umask.
        same_modes: bool,
    },
    /// `tar cf - PATH`, and `sh -c "tar cf - PATH | tail -c+N"`.
    Pack {
        path: String,
        /// What is left out of the archive's beginning, bytes: it has come through before.
        skip: u64,
    },
}

impl Request {
    /// The request that a command is; none where it is a command as any other.
    pub(crate) fn of(command: &[String]) -> Option<Self> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["test", "-d", path] => Some(Self::IsDirectory((*path).to_owned())),
            ["tar", "cf", "-", path] => Some(Self::Pack { path: (*path).to_owned(), skip: 0 }),
            ["tar", "--no-same-permissions", "--no-same-owner", rest @ ..] => Self::unpack(rest, false),
            ["tar", rest @ ..] => Self::unpack(rest, true),
            ["sh", "-c", line] => {
                let (path, from) = line.strip_prefix("tar cf - ")?.rsplit_once(" | tail -c+")?;
                // tail counts from 1, and takes 0 for 1.
                Some(Self::Pack { path: unquoted(path), skip: from.parse::<u64>().ok()?.saturating_sub(1) })
            }
            _ => None,
        }
    }

    fn unpack(words: &[&str], same_modes: bool) -> Option<Self> {
        match words {
            ["-xmf", "-"] => Some(Self::Unpack { dir: None, same_modes }),
            ["-xmf", "-", "-C", dir] => Some(Self::Unpack { dir: Some((*dir).to_owned()), same_modes }),
            _ => None,
        }
    }

    /// The program that a container would have run.
    pub(crate) fn program(&self) -> &'static str {
        match self {
            Self::IsDirectory(_) => "test",
            Self::Unpack { .. } | Self::Pack { .. } => "tar",
        }
    }
}

/// A path in a shell's quotes (newer kubectls write them) or without any.
fn unquoted(path: &str) -> String {
    match path.strip_prefix('\'').and_then(|path| path.strip_suffix('\'')) {
        // A quote within quotes, in the two ways that it is written.
        Some(path) => path.replace(r"'\''", "'").replace(r#"'"'"'"#, "'"),
        None => path.to_owned(),
    }
}

/// A path as the container's, without dots: `path`, at `cwd` where it is relative. What `..` means is decided by the words alone, as
/// kubectl does it.
pub(crate) fn absolute(cwd: &str, path: &str) -> String {
    let words = cwd.split('/').chain(path.split('/'));
    let words: Box<dyn Iterator<Item = &str>> =
        if path.starts_with('/') { Box::new(path.split('/')) } else { Box::new(words) };
    let mut parts = Vec::new();
    for word in words {
        match word {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The path of an archive's member below the directory that it is unpacked to; none where it leads out.
pub(crate) fn member(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok().filter(|name| !name.contains('\0'))?;
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

/// A directory's entries that are not it itself or its parent.
pub(crate) fn is_entry(name: &OsStr) -> bool {
    name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Option<Request> {
        Request::of(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_kubectl_sends() {
        assert_eq!(of(&["test", "-d", "/data"]), Some(Request::IsDirectory("/data".into())));
        let to = |dir: Option<&str>, same_modes| Some(Request::Unpack { dir: dir.map(str::to_owned), same_modes });
        assert_eq!(of(&["tar", "-xmf", "-"]), to(None, true));
        assert_eq!(of(&["tar", "-xmf", "-", "-C", "/data"]), to(Some("/data"), true));
        let plain = ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", "d"];
        assert_eq!(of(&plain), to(Some("d"), false));
        let from = |path: &str, skip| Some(Request::Pack { path: path.into(), skip });
        assert_eq!(of(&["tar", "cf", "-", "/data/a b"]), from("/data/a b", 0));
        assert_eq!(of(&["sh", "-c", "tar cf - /data/x | y | tail -c+0"]), from("/data/x | y", 0));
        assert_eq!(of(&["sh", "-c", "tar cf - /x | tail -c+513"]), from("/x", 512));
        assert_eq!(of(&["sh", "-c", "tar cf - 'data/a b' | tail -c+1"]), from("data/a b", 0));
        assert_eq!(of(&["sh", "-c", r"tar cf - 'it'\''s' | tail -c+1"]), from("it's", 0));
        assert_eq!(of(&["sh", "-c", r#"tar cf - 'it'"'"'s' | tail -c+1"#]), from("it's", 0));
    }

    #[test]
    fn what_is_a_command_of_the_guest() {
        for words in [
            &["test"][..],
            &["test", "-f", "/x"],
            &["tar"],
            &["tar", "tf", "-"],
            &["tar", "-xmf", "-", "-C"],
            &["tar", "-xmf", "-", "-C", "a", "b"],
            &["sh", "-c", "tar cf - /x"],
            &["sh", "-c", "tar cf - /x | tail -c+y"],
            &["app.wasm", "tar", "cf", "-", "/x"],
        ] {
            assert_eq!(of(words), None, "{words:?}");
        }
    }

    #[test]
    fn paths_are_the_containers() {
        assert_eq!(absolute("/", "/data/./x/../y/"), "/data/y");
        assert_eq!(absolute("/work", "a"), "/work/a");
        assert_eq!(absolute("/work", "../../../a"), "/a");
        assert_eq!(absolute("/", "."), "/");
        assert_eq!(member(b"/a/./b/"), Some("a/b".into()));
        assert_eq!(member(b"./"), Some(String::new()));
        for out in [&b"../a"[..], b"a/../../b", b"a\0b", b"\xff"] {
            assert_eq!(member(out), None);
        }
    }
}
