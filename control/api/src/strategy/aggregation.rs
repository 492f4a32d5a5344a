//! APIService: one that this server serves is available from the start.

use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use super::base::UNCOUNTED;
use super::{Strategy, Sub};
use crate::defaults::{self, Object};
use crate::validation::{Errors, aggregation, names};
use crate::{columns, discovery};

pub(super) const API_SERVICE: Strategy = Strategy {
    name: names::path_segment,
    default: defaults::api_service,
    create,
    check: aggregation::api_service,
    check_update: |new: &Value, _: &Value, sub: Sub, errors: &mut Errors| {
        if sub == Sub::Status {
            aggregation::status(new, errors);
        }
    },
    columns: columns::API_SERVICE,
    row: columns::api_service,
    allow_unconditional_update: false,
    ..UNCOUNTED
};

fn create(object: &mut Object) {
    let is_local = object.get("spec").is_none_or(|spec| spec["service"].is_null());
    if is_local {
        let now = Timestamp::now();
        let now = now.round(Unit::Second).unwrap_or(now).to_string();
        object.insert("status".into(), json!({"conditions": [discovery::local_condition(&now)]}));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_served_here_is_available() {
        let made = |spec: Value| {
            let mut object = json!({"spec": spec}).as_object().unwrap().clone();
            create(&mut object);
            Value::from(object)["status"]["conditions"][0]["reason"].clone()
        };
        assert_eq!(made(json!({"group": "apps"})), "Local");
        assert_eq!(made(json!({"service": {"name": "s"}})), Value::Null);
    }
}
