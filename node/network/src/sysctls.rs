//! The kernel's settings of a Pod: those of its network and of its IPC namespace.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::NetworkError;
use crate::netns::Netns;

/// What every Pod with a namespace has, as containerd gives it: ports below 1024 and `ping` need no capability.
const DEFAULTS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Sets a Pod's own over the defaults.
pub(crate) fn apply(netns: &Netns, ipc: Option<&Path>, own: &[(String, String)]) -> Result<(), NetworkError> {
    let default = DEFAULTS.iter().filter(|(name, _)| !own.iter().any(|(given, _)| file(given) == file(name)));
    let default = default.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    set(Some(netns.path()), ipc, default.chain(own.iter().cloned()).collect())
}

/// Sets those of a Pod in the node's network.
pub(crate) fn apply_to_ipc(ipc: &Path, own: &[(String, String)]) -> Result<(), NetworkError> {
    if own.is_empty() { Ok(()) } else { set(None, Some(ipc), own.to_vec()) }
}

fn set(net: Option<&Path>, ipc: Option<&Path>, all: Vec<(String, String)>) -> Result<(), NetworkError> {
    let into = [(net, CloneFlags::CLONE_NEWNET), (ipc, CloneFlags::CLONE_NEWIPC)];
    let into = into.map(|(path, kind)| path.map(|path| (path.to_owned(), kind)));
    // Whose settings /proc/sys shows is a matter of the thread that looks: this one ends in the Pod's namespaces.
    let set = std::thread::spawn(move || -> Result<(), (String, io::Error)> {
        for (path, kind) in into.into_iter().flatten() {
            let entered = fs::File::open(&path).and_then(|file| Ok(setns(file.as_fd(), kind)?));
            entered.map_err(|error| (format!("enter {}", path.display()), error))?;
        }
        all.iter().try_for_each(|(name, value)| {
            fs::write(file(name), value).map_err(|error| (format!("set the sysctl {name} to {value:?}"), error))
        })
    });
    match set.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err((what, source))) => Err(NetworkError::Io { what, source }),
        Err(_) => Err(NetworkError::Invalid("the thread that sets sysctls panicked".to_owned())),
    }
}

/// The file of a sysctl. Its name's parts are separated by dots or by slashes, whichever comes first; the other may be within a
/// part (`net/ipv4/conf/eth0.1/mtu`).
fn file(name: &str) -> PathBuf {
    let slashes = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let path = if slashes {
        name.to_owned()
    } else {
        let swap = |letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        name.chars().map(swap).collect()
    };
    Path::new("/proc/sys").join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_spellings() {
        for name in ["net.ipv4.conf.eth0/1.mtu", "net/ipv4/conf/eth0.1/mtu"] {
            assert_eq!(file(name), Path::new("/proc/sys/net/ipv4/conf/eth0.1/mtu"));
        }
    }
}
