//! The strategies that others begin with.

use super::{Generation, StatusRule, Strategy};
use crate::columns;
use crate::defaults;
use crate::validation::names;

/// Kinds with a spec and a status.
pub(super) const SPEC_STATUS: Strategy = Strategy {
    columns: columns::NAME_AGE,
    fields: &[],
    allow_unconditional_update: true,
    allow_create_on_update: false,
    status: StatusRule::Dropped,
    generation: Generation::Counted,
    name: names::subdomain,
    default: defaults::nothing,
    create: |_| {},
    update: |_, _, _| {},
    fixed: &[],
    check: |_, _| {},
    check_new: |_, _| {},
    check_update: |_, _, _, _| {},
    warn: |_, _| {},
    row: columns::name_age,
    grace: |_, _| 0,
};

/// Kinds that are data only.
pub(super) const DATA: Strategy =
    Strategy { status: StatusRule::Absent, generation: Generation::Absent, ..SPEC_STATUS };

/// Kinds unknown to the table: custom resources.
pub(super) static CUSTOM: Strategy = Strategy { allow_unconditional_update: false, ..SPEC_STATUS };

/// A status, but nobody counts the spec's changes.
pub(super) const UNCOUNTED: Strategy = Strategy { generation: Generation::Absent, ..SPEC_STATUS };
/// No status; the changes are counted.
pub(super) const COUNTED: Strategy = Strategy { status: StatusRule::Absent, ..SPEC_STATUS };
/// The same, updated only by clients that name the version they have seen.
pub(super) const VERSIONED_COUNTED: Strategy = Strategy { allow_unconditional_update: false, ..COUNTED };
/// Data, updated only by clients that name the version they have seen.
pub(super) const VERSIONED_DATA: Strategy = Strategy { allow_unconditional_update: false, ..DATA };
