//! Limits of the machine and of this process that many Pods run into: raised at the start where that is allowed.

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use wherry_agent::PodLimit;

/// Memory mappings that Wasm instances may need: the kernel's default (65,530) ends at some 12,000 alive at once.
const MAPPINGS: u64 = 262_144;
/// Connections that the kernel follows for each core, and at the least: kube-proxy's (`conntrack.maxPerCore`, `conntrack.min`).
const CONNECTIONS_OF_CORE: u64 = 32_768;
const FEWEST_CONNECTIONS: u64 = 131_072;

/// Raises what may be raised, and lowers nothing.
pub(crate) fn raise() {
    at_least(Path::new("/proc/sys/vm/max_map_count"), MAPPINGS);
    // As many open files as the system lets this process have: sockets of Pods count.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Raises how many connections the machine follows. The kernel has such a limit from the first packet rule on that looks at them.
pub(crate) fn raise_connections() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let wanted = (CONNECTIONS_OF_CORE * cores as u64).max(FEWEST_CONNECTIONS);
    at_least(Path::new("/proc/sys/net/netfilter/nf_conntrack_max"), wanted);
}

/// Raises a limit of the whole machine, where it has one and this process may.
fn at_least(path: &Path, wanted: u64) {
    let known = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if known.is_some_and(|known| known < wanted)
        && let Err(error) = std::fs::write(path, wanted.to_string())
    {
        tracing::debug!(limit = %path.display(), ?known, wanted, %error, "a limit stays as it is");
    }
}

/// Says how many Pods a node takes where that is few, and why.
pub(crate) fn tell(PodLimit { pods, by }: PodLimit) {
    const FEW: i64 = 1000;
    if pods < FEW {
        eprintln!("note: a node takes {pods} Pods at the most: {by} are the limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_and_never_lowered() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("limit");
        for (before, after) in [("65530\n", "262144"), ("1000000\n", "1000000\n"), ("none\n", "none\n")] {
            std::fs::write(&path, before)?;
            at_least(&path, MAPPINGS);
            assert_eq!(std::fs::read_to_string(&path)?, after);
        }
        let missing = dir.path().join("missing");
        at_least(&missing, MAPPINGS);
        assert!(!missing.exists(), "what the machine does not limit is not made");
        Ok(())
    }
}
