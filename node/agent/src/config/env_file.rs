//! Variables in files of a Pod's own (`valueFrom.fileKeyRef`): lines of `NAME='value'`, which one container writes into an emptyDir
//! and another is started with.
//!
//! The form is kubelet's, a strict part of a shell's: values stand in single quotes, within which everything (line breaks as
//! well) is meant as it is; comments begin with `#`. The containers write these files: nothing of them is trusted. A path is
//! resolved with the volume as its root, only a regular file is read, and no more of it than [`LIMIT`].

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// The most that is read of a file, in bytes.
const LIMIT: u64 = 1 << 20;

/// The file's text.
///
/// # Errors
/// The system's; of what is no regular file, no UTF-8 or longer than [`LIMIT`], its own.
pub(super) fn read(volume: &Path, path: &str) -> io::Result<String> {
    let root = File::open(volume)?;
    // A named pipe would keep whoever opens it.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = loop {
        match openat2(&root, path, how) {
            // Something was renamed under the kernel's hands.
            Err(Errno::EAGAIN) => {}
            found => break File::from(found?),
        }
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("it is longer than {LIMIT} bytes")));
    }
    Ok(text)
}

/// The value of `key`: of the first line that sets it; none where no line does. What follows that line is not looked at.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let wrong = |what: &str| Err(format!("invalid environment variable format at line {}: {what}", number + 1));
        let line = line.trim_start_matches(BLANK);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { return wrong("missing '='") };
        if name.trim_end_matches(BLANK).is_empty() {
            return wrong("empty variable name");
        }
        if name.ends_with(BLANK) {
            return wrong("whitespace before '=' is not allowed");
        }
        // As a shell has it, `NAME= 'value'` sets nothing.
        if value.starts_with(BLANK) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(mut rest) = value.strip_prefix('\'') else { return wrong("value must be enclosed in single quotes") };
        let mut found = String::new();
        let after = loop {
            if let Some((last, after)) = rest.split_once('\'') {
                found.push_str(last);
                break after.trim_start_matches(BLANK);
            }
            found.push_str(rest);
            found.push('\n');
            let Some((_, next)) = lines.next() else {
                return Err(format!(
                    "invalid environment variable format starting at line {}: unclosed single quote",
                    number + 1
                ));
            };
            rest = next;
        };
        if !after.is_empty() && !after.starts_with('#') {
            return wrong("unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(found).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

/// What counts as blank within a line.
const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_value_is_what_stands_in_quotes() {
        let text = "# first\n\n  A='one' # more\nB='a=b\"$C\\'\nLONG='one\n  two\n'\nNONE=''\nBLANK= 'x'\nA='again'\n";
        let of = |key: &str| value(text, key).unwrap();
        assert_eq!(of("A").unwrap(), "one");
        assert_eq!(of("B").unwrap(), "a=b\"$C\\");
        assert_eq!(of("LONG").unwrap(), "one\n  two\n");
        for none in ["NONE", "BLANK", "OTHER"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("A='1'\nnothing", "invalid environment variable format at line 2: missing '='"),
            ("='1'", "invalid environment variable format at line 1: empty variable name"),
            ("A ='1'", "invalid environment variable format at line 1: whitespace before '=' is not allowed"),
            ("A=1", "invalid environment variable format at line 1: value must be enclosed in single quotes"),
            ("A='1'2", "invalid environment variable format at line 1: unexpected content after closing quote"),
            ("\nA='1\n2", "invalid environment variable format starting at line 2: unclosed single quote"),
        ] {
            assert_eq!(value(text, "KEY").unwrap_err(), told);
        }
        // What comes after the value is not looked at.
        assert_eq!(value("KEY='1'\nnothing", "KEY").unwrap().unwrap(), "1");
    }

    #[test]
    fn only_a_regular_file_of_the_volume_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("etc")).unwrap();
        std::fs::write(volume.join("etc/passwd"), "mine").unwrap();
        symlink("/etc/passwd", volume.join("absolute")).unwrap();
        symlink("../../../../etc/passwd", volume.join("relative")).unwrap();
        for path in ["etc/passwd", "/etc/passwd", "absolute", "relative"] {
            assert_eq!(read(&volume, path).unwrap(), "mine", "{path}");
        }
        nix::unistd::mkfifo(&volume.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let large = File::create(volume.join("large")).unwrap();
        large.set_len(LIMIT + 1).unwrap();
        for path in ["etc", "pipe", "large", "none"] {
            assert!(read(&volume, path).is_err(), "{path}");
        }
    }
}
