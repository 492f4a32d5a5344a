//! Who a container runs as: numbers, from the securityContext or from the image's own user database.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use containerd_client::types;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use wherry_runtime::{ContainerSpec, RuntimeError, User};

/// Larger user databases than this are not read.
const MAX_DATABASE: u64 = 4 << 20;

/// An image's files, to be read without mounting them: the directories of its snapshot, topmost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rootfs {
    layers: Vec<PathBuf>,
}

impl Rootfs {
    /// From the mounts that containerd gives for a snapshot: an overlay's directories, or one bound directory.
    pub(crate) fn of(mounts: &[types::Mount]) -> Self {
        let layers = mounts.iter().flat_map(|mount| match mount.r#type.as_str() {
            "overlay" => {
                let option =
                    |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name)).unwrap_or_default();
                let lower = option("lowerdir=");
                std::iter::once(option("upperdir="))
                    .chain(lower.split(':'))
                    .filter(|dir| !dir.is_empty())
                    .map(PathBuf::from)
                    .collect()
            }
            _ => vec![PathBuf::from(&mount.source)],
        });
        Self { layers: layers.collect() }
    }

    /// A text file of the image. A link in it leads nowhere outside of it.
    fn read(&self, path: &str) -> Option<String> {
        for layer in &self.layers {
            let Ok(root) = File::open(layer) else { continue };
            let how = OpenHow::new()
                .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT);
            match openat2(&root, path, how) {
                Ok(fd) => {
                    let file = File::from(fd);
                    let meta = file.metadata().ok()?;
                    let mut text = String::new();
                    return meta
                        .is_file()
                        .then(|| file.take(MAX_DATABASE).read_to_string(&mut text).ok())
                        .flatten()
                        .map(|_| text);
                }
                Err(_) => {
                    // A whiteout: the file is deleted in this layer, whatever the ones below say.
                    let hidden = std::fs::symlink_metadata(layer.join(path))
                        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0);
                    if hidden {
                        return None;
                    }
                }
            }
        }
        None
    }
}

/// Who the container's first process is.
pub(crate) fn resolve(spec: &ContainerSpec, rootfs: &Rootfs) -> Result<User, RuntimeError> {
    let security = &spec.security;
    let database = Database {
        passwd: rootfs.read("etc/passwd").unwrap_or_default(),
        group: rootfs.read("etc/group").unwrap_or_default(),
    };
    let wanted = match security.user {
        Some(uid) => uid.to_string(),
        None => spec.image.user.clone().unwrap_or_default(),
    };
    let mut user = database.resolve(&wanted).map_err(|problem| {
        RuntimeError::InvalidSpec(format!("the user {wanted:?} of {}: {problem}", spec.image.reference))
    })?;
    if let Some(gid) = security.group {
        user.gid = gid;
    }
    let of_image = if security.strict_groups { Vec::new() } else { std::mem::take(&mut user.groups) };
    user.groups = vec![user.gid];
    for group in of_image.into_iter().chain(security.supplemental_groups.iter().copied()) {
        if !user.groups.contains(&group) {
            user.groups.push(group);
        }
    }
    Ok(user)
}

struct Database {
    passwd: String,
    group: String,
}

impl Database {
    /// `user[:group]`, each a name or a number; nothing is root.
    fn resolve(&self, wanted: &str) -> Result<User, String> {
        let (name, group) = wanted.split_once(':').map_or((wanted, None), |(name, group)| (name, Some(group)));
        let name = if name.is_empty() { "0" } else { name };
        let number = name.parse::<u32>().ok();
        let entry = self.passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
            fields.len() >= 4 && (fields[0] == name || number.is_some_and(|uid| fields[2].parse() == Ok(uid)))
        });
        let parsed = |text: &str| text.parse::<u32>().map_err(|_| "its /etc/passwd is damaged".to_owned());
        let (uid, primary) = match (&entry, number) {
            (Some(fields), _) => (parsed(fields[2])?, parsed(fields[3])?),
            (None, Some(uid)) => (uid, 0),
            (None, None) => return Err("there is no such user in its /etc/passwd".into()),
        };
        let gid = match group {
            None | Some("") => primary,
            Some(group) => {
                self.group_id(group).ok_or_else(|| format!("there is no group {group:?} in its /etc/group"))?
            }
        };
        let groups = entry.map(|fields| self.memberships(fields[0])).unwrap_or_default();
        Ok(User { uid, gid, groups })
    }

    fn groups(&self) -> impl Iterator<Item = (Vec<&str>, u32)> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let gid = fields.get(2)?.parse().ok()?;
            Some((fields, gid))
        })
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.groups().find(|(fields, _)| fields[0] == name).map(|(_, gid)| gid).or_else(|| name.parse().ok())
    }

    fn memberships(&self, name: &str) -> Vec<u32> {
        self.groups()
            .filter(|(fields, _)| fields.get(3).is_some_and(|members| members.split(',').any(|m| m == name)))
            .map(|(_, gid)| gid)
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn database() -> Database {
        Database {
            passwd: "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n".into(),
            group: "root:x:0:\nstaff:x:50:app,other\napp:x:1001:\nwheel:x:10:app\n".into(),
        }
    }

    #[test]
    fn names_and_numbers_are_resolved_as_by_docker() {
        let of = |wanted: &str| database().resolve(wanted).map(|user| (user.uid, user.gid, user.groups));
        assert_eq!(of("").unwrap(), (0, 0, vec![]));
        assert_eq!(of("app").unwrap(), (1000, 1001, vec![50, 10]));
        assert_eq!(of("1000").unwrap(), (1000, 1001, vec![50, 10]));
        assert_eq!(of("app:staff").unwrap(), (1000, 50, vec![50, 10]));
        assert_eq!(of("7:8").unwrap(), (7, 8, vec![]));
        assert_eq!(of("7").unwrap(), (7, 0, vec![]));
        assert!(of("nobody").is_err() && of("app:nothing").is_err());
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        for layer in [&upper, &lower] {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(dir.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), upper.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/real", lower.join("etc/group")).unwrap();
        fs::write(lower.join("etc/real"), "inside").unwrap();
        let overlay = types::Mount {
            r#type: "overlay".into(),
            options: vec![
                "workdir=/w".into(),
                format!("upperdir={}", upper.display()),
                format!("lowerdir={}", lower.display()),
            ],
            ..Default::default()
        };
        let rootfs = Rootfs::of(&[overlay]);
        assert_eq!(rootfs.read("etc/passwd"), None);
        assert_eq!(rootfs.read("etc/group").as_deref(), Some("inside"));
        assert_eq!(rootfs.read("etc/none"), None);
    }
}
