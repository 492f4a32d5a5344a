//! Reading the table of facts.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::{Facts, Field, ListType, Shape, Type, TypeId};

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct FactsError {
    line: usize,
    problem: String,
}

impl Facts {
    /// Reads a table in the format described above.
    pub fn parse(table: &str) -> Result<Self, FactsError> {
        // Shapes refer to types further down, so the names come first.
        let names: HashMap<&str, TypeId> = table
            .lines()
            .filter_map(|line| line.strip_prefix('=')?.split(' ').next())
            .zip((0u32..).map(TypeId))
            .collect();
        let mut facts = Self { digest: hex::encode(Sha256::digest(table)), ..Self::default() };
        for (i, line) in table.lines().enumerate() {
            let result = match line.strip_prefix('=') {
                Some(head) => {
                    facts.types.push(parse_type(head));
                    Ok(())
                }
                None => parse_field(line, &names).and_then(|field| {
                    let ty = facts.types.last_mut().ok_or("a field before any type")?;
                    ty.fields.push(field);
                    Ok(())
                }),
            };
            result.map_err(|problem| FactsError { line: i + 1, problem })?;
        }
        for (i, ty) in (0u32..).zip(&mut facts.types) {
            ty.fields.sort_by(|a, b| a.name.cmp(&b.name));
            facts.by_name.insert(ty.name.clone(), TypeId(i));
            if let Some(kind) = &ty.api_version_kind {
                facts.by_kind.insert(kind.clone(), TypeId(i));
            }
        }
        for i in 0..facts.types.len() {
            let fields = (0u16..).zip(&facts.types[i].fields);
            let implied = fields.filter(|(_, field)| field.implied(&facts).is_some()).map(|(i, _)| i).collect();
            facts.types[i].implied = implied;
            let ty = &mut facts.types[i];
            ty.order = (0u16..).zip(&ty.fields).filter(|(_, f)| !f.numbers.is_empty()).map(|(i, _)| i).collect();
            ty.order.sort_by(|a, b| ty.fields[usize::from(*a)].numbers.cmp(&ty.fields[usize::from(*b)].numbers));
            ty.ranks = vec![None; ty.fields.len()];
            for (rank, index) in (0u16..).zip(&ty.order) {
                ty.ranks[usize::from(*index)] = Some(rank);
            }
        }
        Ok(facts)
    }
}

fn parse_type(head: &str) -> Type {
    let mut words = head.split(' ');
    let name = words.next().unwrap_or_default().into();
    let (mut atomic, mut api_version_kind) = (false, None);
    for word in words {
        match word.rsplit_once('/') {
            Some((api_version, kind)) => api_version_kind = Some((api_version.into(), kind.into())),
            None => atomic = word == "atomic",
        }
    }
    Type {
        name,
        api_version_kind,
        atomic,
        fields: Vec::new(),
        implied: Vec::new(),
        order: Vec::new(),
        ranks: Vec::new(),
    }
}

fn parse_field(line: &str, names: &HashMap<&str, TypeId>) -> Result<Field, String> {
    let mut words = line.splitn(5, ' ');
    let (Some(name), Some(shape), Some(numbers), Some(flags)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("a field needs a name, a shape, a number and flags".into());
    };
    let mut field = Field {
        name: name.into(),
        shape: parse_shape(shape, names)?,
        numbers: match numbers {
            "0" => Box::default(),
            numbers => {
                numbers.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|e| format!("{numbers}: {e}"))?
            }
        },
        omitempty: flags.contains('o'),
        omitzero: flags.contains('z'),
        pointer: flags.contains('p'),
        required: flags.contains('r'),
        atomic: flags.contains('a'),
        granular: flags.contains('g'),
        patch_strategy: None,
        merge_key: None,
        list_type: None,
        list_map_keys: Box::default(),
        default: None,
    };
    let mut options = words.next().unwrap_or_default();
    // The default comes last, and its JSON may hold spaces.
    if let Some(at) = options.find("default=") {
        let json = &options[at + "default=".len()..];
        field.default = Some(serde_json::from_str(json).map_err(|e| format!("{json}: {e}"))?);
        options = options[..at].trim_end();
    }
    for option in options.split_terminator(' ') {
        match option.split_once('=') {
            Some(("strategy", value)) => field.patch_strategy = Some(value.into()),
            Some(("mergekey", value)) => field.merge_key = Some(value.into()),
            Some(("list", "atomic")) => field.list_type = Some(ListType::Atomic),
            Some(("list", "set")) => field.list_type = Some(ListType::Set),
            Some(("list", "map")) => field.list_type = Some(ListType::Map),
            Some(("keys", value)) => field.list_map_keys = value.split(',').map(Into::into).collect(),
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    Ok(field)
}

fn parse_shape(text: &str, names: &HashMap<&str, TypeId>) -> Result<Shape, String> {
    if let Some(item) = text.strip_prefix("[]") {
        return Ok(Shape::List(Box::new(parse_shape(item, names)?)));
    }
    if let Some(item) = text.strip_prefix("{}") {
        return Ok(Shape::Map(Box::new(parse_shape(item, names)?)));
    }
    Ok(match text {
        "s" => Shape::String,
        "b" => Shape::Bool,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "d" => Shape::Double,
        "y" => Shape::Bytes,
        "Q" => Shape::Quantity,
        "T" => Shape::Time,
        "M" => Shape::MicroTime,
        "D" => Shape::Duration,
        "X" => Shape::IntOrString,
        "F" => Shape::FieldsV1,
        "R" => Shape::Raw,
        name => Shape::Struct(*names.get(name).ok_or_else(|| format!("unknown shape {name:?}"))?),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found() {
        for table in [
            "a s 1 -o",
            "=a.B\nx",
            "=a.B\nx c.D 1 -",
            "=a.B\nx s 1 - what=1",
            "=a.B\nx s y -",
            "=a.B\nx s 1 - default={",
        ] {
            assert!(Facts::parse(table).is_err(), "{table}");
        }
        let facts = Facts::parse("=a.B v1/B atomic\nx []{}s 1.2 -or default=[ \"a\" ]").unwrap();
        let ty = facts.get(facts.by_kind("v1", "B").unwrap());
        assert!(ty.atomic && ty.fields[0].required && ty.fields[0].default.is_some());
    }
}
