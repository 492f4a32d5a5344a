//! Writes values and the names of types.

use std::fmt::Write as _;

use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{Type, Val};

use super::is_keyword;

/// A value as text.
pub(crate) fn write(value: &Val) -> String {
    let mut text = String::new();
    put(&mut text, value);
    text
}

fn put(text: &mut String, value: &Val) {
    let number = |text: &mut String, number: &dyn std::fmt::Display| {
        // A String takes all that is written.
        let _never = write!(text, "{number}");
    };
    match value {
        Val::Bool(value) => number(text, value),
        Val::S8(value) => number(text, value),
        Val::U8(value) => number(text, value),
        Val::S16(value) => number(text, value),
        Val::U16(value) => number(text, value),
        Val::S32(value) => number(text, value),
        Val::U32(value) => number(text, value),
        Val::S64(value) => number(text, value),
        Val::U64(value) => number(text, value),
        Val::Float32(value) if value.is_nan() => text.push_str("nan"),
        Val::Float64(value) if value.is_nan() => text.push_str("nan"),
        Val::Float32(value) => number(text, value),
        Val::Float64(value) => number(text, value),
        Val::Char(letter) => quoted(text, '\'', std::iter::once(*letter)),
        Val::String(letters) => quoted(text, '"', letters.chars()),
        Val::List(values) | Val::FixedLengthList(values) => sequence(text, "[", values, "]", put),
        Val::Tuple(values) => sequence(text, "(", values, ")", put),
        Val::Record(fields) => {
            let there = |value: &Val| !matches!(value, Val::Option(None));
            let there: Vec<_> = fields.iter().filter(|(_, value)| there(value)).collect();
            if there.is_empty() {
                return text.push_str("{:}");
            }
            sequence(text, "{", there, "}", |text, (name, value)| {
                label(text, name);
                text.push_str(": ");
                put(text, value);
            });
        }
        Val::Flags(names) => sequence(text, "{", names, "}", |text, name| label(text, name)),
        Val::Enum(name) => label(text, name),
        Val::Variant(name, payload) => {
            label(text, name);
            within(text, payload.as_deref());
        }
        Val::Option(None) => text.push_str("none"),
        Val::Option(payload) => {
            text.push_str("some");
            within(text, payload.as_deref());
        }
        Val::Result(result) => {
            text.push_str(if result.is_ok() { "ok" } else { "err" });
            let (Ok(payload) | Err(payload)) = result;
            within(text, payload.as_deref());
        }
        // A function that gives one of these is not called.
        Val::Resource(_) | Val::Stream(_) | Val::Future(_) | Val::ErrorContext(_) | Val::Map(_) => text.push('?'),
    }
}

fn within(text: &mut String, payload: Option<&Val>) {
    if let Some(payload) = payload {
        sequence(text, "(", [payload], ")", put);
    }
}

fn sequence<T>(
    text: &mut String,
    open: &str,
    items: impl IntoIterator<Item = T>,
    close: &str,
    mut put: impl FnMut(&mut String, T),
) {
    text.push_str(open);
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        put(text, item);
    }
    text.push_str(close);
}

fn quoted(text: &mut String, quote: char, letters: impl Iterator<Item = char>) {
    text.push(quote);
    for letter in letters {
        match letter {
            '\\' | '"' | '\'' | '\t' | '\r' | '\n' => text.extend(letter.escape_default()),
            other => text.extend(other.escape_debug()),
        }
    }
    text.push(quote);
}

fn label(text: &mut String, name: &str) {
    if is_keyword(name) {
        text.push('%');
    }
    text.push_str(name);
}

/// A type as WIT names it.
pub(crate) fn named(ty: &Type) -> String {
    let of = |name: &str, types: &mut dyn Iterator<Item = Type>| {
        format!("{name}<{}>", types.map(|ty| named(&ty)).collect::<Vec<_>>().join(", "))
    };
    let cases = |name: &str, names: Vec<String>| format!("{name} {{{}}}", names.join(", "));
    match ty {
        Type::Bool => "bool".into(),
        Type::S8 => "s8".into(),
        Type::U8 => "u8".into(),
        Type::S16 => "s16".into(),
        Type::U16 => "u16".into(),
        Type::S32 => "s32".into(),
        Type::U32 => "u32".into(),
        Type::S64 => "s64".into(),
        Type::U64 => "u64".into(),
        Type::Float32 => "f32".into(),
        Type::Float64 => "f64".into(),
        Type::Char => "char".into(),
        Type::String => "string".into(),
        Type::List(list) => of("list", &mut std::iter::once(list.ty())),
        Type::Tuple(tuple) => of("tuple", &mut tuple.types()),
        Type::Option(option) => of("option", &mut std::iter::once(option.ty())),
        Type::Result(result) => match (result.ok(), result.err()) {
            (None, None) => "result".into(),
            (ok, None) => of("result", &mut ok.into_iter()),
            (ok, Some(err)) => {
                format!("result<{}, {}>", ok.map_or_else(|| "_".into(), |ok| named(&ok)), named(&err))
            }
        },
        Type::Record(record) => {
            cases("record", record.fields().map(|field| format!("{}: {}", field.name, named(&field.ty))).collect())
        }
        Type::Variant(variant) => {
            let case = |name: &str, ty: Option<Type>| {
                ty.map_or_else(|| name.to_owned(), |ty| format!("{name}({})", named(&ty)))
            };
            cases("variant", variant.cases().map(|found| case(found.name, found.ty)).collect())
        }
        Type::Enum(names) => cases("enum", names.names().map(str::to_owned).collect()),
        Type::Flags(names) => cases("flags", names.names().map(str::to_owned).collect()),
        Type::Own(_) | Type::Borrow(_) => "resource".into(),
        Type::Stream(_) => "stream".into(),
        Type::Future(_) => "future".into(),
        Type::ErrorContext => "error-context".into(),
        Type::FixedLengthList(_) => "list of fixed length".into(),
        Type::Map(_) => "map".into(),
    }
}

/// A function as WIT declares it.
pub(crate) fn signature(name: &str, function: &ComponentFunc) -> String {
    let params: Vec<String> = function.params().map(|(name, ty)| format!("{name}: {}", named(&ty))).collect();
    let results: Vec<String> = function.results().map(|ty| format!(" -> {}", named(&ty))).collect();
    format!("{name}: func({}){}", params.join(", "), results.concat())
}

/// The first type in it that has no text, as a handle.
pub(crate) fn unwritable(ty: &Type) -> Option<String> {
    let any = |mut types: &mut dyn Iterator<Item = Type>| Iterator::find_map(&mut types, |ty| unwritable(&ty));
    match ty {
        Type::List(list) => unwritable(&list.ty()),
        Type::Option(option) => unwritable(&option.ty()),
        Type::Tuple(tuple) => any(&mut tuple.types()),
        Type::Result(result) => any(&mut result.ok().into_iter().chain(result.err())),
        Type::Record(record) => any(&mut record.fields().map(|field| field.ty)),
        Type::Variant(variant) => any(&mut variant.cases().filter_map(|case| case.ty)),
        Type::Own(_)
        | Type::Borrow(_)
        | Type::Stream(_)
        | Type::Future(_)
        | Type::ErrorContext
        | Type::FixedLengthList(_)
        | Type::Map(_) => Some(named(ty)),
        _ => None,
    }
}
