//! Query parameters, parsed once and checked as upstream checks them.

use std::borrow::Cow;

use wherry_api::field::{FieldError, Path};
use wherry_api::status::Status;

/// The parameters of a request, in order.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn parse(query: Option<&'a str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect())
    }

    /// The first value of `key`; an empty one counts as none.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_ref()).filter(|v| !v.is_empty())
    }

    pub(crate) fn all<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_ref())
    }

    /// A flag: present without a value, or with anything but a false one.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.boolean(key).unwrap_or(false)
    }

    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        let (_, value) = self.0.iter().find(|(k, _)| k == key)?;
        Some(!matches!(value.as_ref(), "0" | "false" | "False" | "FALSE"))
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, Status> {
        self.get(key)
            .map(|v| {
                v.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {v:?}: invalid syntax")))
            })
            .transpose()
    }

    /// `dryRun`: only `All` is known.
    pub(crate) fn dry_run(&self) -> Result<bool, Status> {
        let mut dry = false;
        for value in self.all("dryRun").filter(|v| !v.is_empty()) {
            check_dry_run(value)?;
            dry = true;
        }
        Ok(dry)
    }
}

/// Whether `value` is a known dryRun stage.
pub(crate) fn check_dry_run(value: &str) -> Result<(), Status> {
    if value == "All" {
        return Ok(());
    }
    Err(invalid("DeleteOptions", FieldError::not_supported(&Path::new("dryRun"), value, &["All"])))
}

/// 422 about an options object if there is anything wrong with it.
pub(crate) fn all_invalid(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", errors)) }
}

/// 422 about an options object.
pub(crate) fn invalid(kind: &str, error: FieldError) -> Status {
    Status::invalid("meta.k8s.io", kind, "", &[error])
}
