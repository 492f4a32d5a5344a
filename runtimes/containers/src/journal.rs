//! What must be known of a container after a restart and is not in containerd: when it started, and how it ended.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wherry_runtime::Exit;

/// One small file a container, replaced by rename.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
}

/// A container's past.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub(crate) struct Past {
    /// Nanoseconds since the epoch; none where it was never started.
    started: Option<u64>,
    ended: Option<Ended>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
struct Ended {
    code: i32,
    oom_killed: bool,
    message: Option<String>,
    at: u64,
}

impl Past {
    pub(crate) fn started(at: SystemTime) -> Self {
        Self { started: Some(nanos(at)), ended: None }
    }

    pub(crate) fn ended(exit: &Exit) -> Self {
        let ended = Ended {
            code: exit.code,
            oom_killed: exit.oom_killed,
            message: exit.message.clone(),
            at: nanos(exit.finished_at),
        };
        Self { started: Some(nanos(exit.started_at)), ended: Some(ended) }
    }

    pub(crate) fn started_at(&self) -> Option<SystemTime> {
        self.started.map(time)
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        let ended = self.ended.as_ref()?;
        let finished_at = time(ended.at);
        Some(Exit {
            code: ended.code,
            oom_killed: ended.oom_killed,
            message: ended.message.clone(),
            started_at: self.started_at().unwrap_or(finished_at),
            finished_at,
        })
    }
}

impl Journal {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("past.json")
    }

    /// What is known; an unreadable file counts as nothing.
    pub(crate) fn read(&self) -> Past {
        fs::read(self.path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(crate) fn write(&self, past: &Past) -> io::Result<()> {
        let path = self.path();
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(past)?)?;
        fs::rename(&new, &path)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_past_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().into());
        assert_eq!(journal.read(), Past::default());
        let started_at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        journal.write(&Past::started(started_at)).unwrap();
        assert_eq!((journal.read().started_at(), journal.read().exit()), (Some(started_at), None));
        let exit = Exit {
            code: 137,
            oom_killed: true,
            message: None,
            started_at,
            finished_at: started_at + Duration::from_secs(1),
        };
        journal.write(&Past::ended(&exit)).unwrap();
        assert_eq!(journal.read().exit(), Some(exit));
    }
}
