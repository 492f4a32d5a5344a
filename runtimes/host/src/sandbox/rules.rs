//! What a host may do to the files that it sees (Landlock). There are none but its cache, its containers' mounts, the modules that
//! it is given, its terminals, and itself in `/proc`, which it may only read: so that this holds, too, of what it may be made to see by
//! mistake.

use std::sync::OnceLock;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::{ARTIFACTS, CACHE, MOUNTS};

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum RulesError {
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    #[error("{0}")]
    Path(#[from] landlock::PathFdError),
    #[error("the kernel enforces nothing")]
    NotEnforced,
}

/// The process itself in `/proc`, which stands there for preview 1's open files. It is kept open: what the kernel forgets of `/proc` it makes anew
/// as something that no rule names.
fn own_process() -> Result<&'static PathFd, RulesError> {
    static OWN: OnceLock<PathFd> = OnceLock::new();
    match OWN.get() {
        Some(own) => Ok(own),
        None => PathFd::new("/proc/self").map(|own| OWN.get_or_init(|| own)).map_err(RulesError::from),
    }
}

/// Puts the rules in force. The kernel must know of files; what newer ones know of devices, TCP, signals and abstract sockets is
/// forbidden where they do.
pub(super) fn enforce() -> Result<(), RulesError> {
    let files = AccessFs::from_all(ABI::V5);
    let of_guests = files
        & !(AccessFs::Execute
            | AccessFs::MakeChar
            | AccessFs::MakeBlock
            | AccessFs::MakeSock
            | AccessFs::MakeFifo
            | AccessFs::IoctlDev);
    let own = of_guests & !(AccessFs::MakeSym | AccessFs::Refer);
    let terminals = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let rule = |path: &str, access: BitFlags<AccessFs>| -> Result<_, RulesError> {
        Ok(PathBeneath::new(PathFd::new(path)?, access))
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(files)?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rule(rule(CACHE, own)?)?
        .add_rule(rule(ARTIFACTS, own)?)?
        .add_rule(rule(MOUNTS, of_guests)?)?
        .add_rule(rule("/dev", terminals)?)?
        .add_rule(PathBeneath::new(own_process()?, AccessFs::ReadFile | AccessFs::ReadDir))?
        .restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced { Err(RulesError::NotEnforced) } else { Ok(()) }
}
