//! Reads a value of a known type. What is read is as deep as its type is, however many brackets the text has.

use std::str::FromStr;

use wasmtime::component::{Type, Val};

use super::named;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(String);

/// Of the rest of a text, what a message shows.
const SHOWN: usize = 20;

/// The value of `ty` that `text` is.
pub(crate) fn read(ty: &Type, text: &str) -> Result<Val, Malformed> {
    let mut reader = Reader { rest: text };
    let value = reader.value(ty)?;
    reader.space();
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.wrong("nothing more is expected")) }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self, ty: &Type) -> Result<Val, Malformed> {
        self.space();
        let payload = |reader: &mut Self, ty: Option<Type>| ty.map(|ty| reader.payload(&ty).map(Box::new)).transpose();
        Ok(match ty {
            Type::Bool => match self.keyword(&["true", "false"]) {
                Some(word) => Val::Bool(word == "true"),
                None => return Err(self.wrong("true or false is expected")),
            },
            Type::S8 => Val::S8(self.number(ty)?),
            Type::U8 => Val::U8(self.number(ty)?),
            Type::S16 => Val::S16(self.number(ty)?),
            Type::U16 => Val::U16(self.number(ty)?),
            Type::S32 => Val::S32(self.number(ty)?),
            Type::U32 => Val::U32(self.number(ty)?),
            Type::S64 => Val::S64(self.number(ty)?),
            Type::U64 => Val::U64(self.number(ty)?),
            Type::Float32 => Val::Float32(self.number(ty)?),
            Type::Float64 => Val::Float64(self.number(ty)?),
            Type::Char => Val::Char(self.char()?),
            Type::String => Val::String(self.string()?),
            Type::List(list) => {
                let (ty, mut values) = (list.ty(), Vec::new());
                self.sequence('[', ']', |reader| reader.value(&ty).map(|value| values.push(value)))?;
                Val::List(values)
            }
            Type::Tuple(tuple) => {
                let (mut types, mut values) = (tuple.types(), Vec::new());
                self.sequence('(', ')', |reader| match types.next() {
                    Some(ty) => reader.value(&ty).map(|value| values.push(value)),
                    None => Err(reader.wrong("the tuple has fewer values")),
                })?;
                if types.next().is_some() {
                    return Err(self.wrong("the tuple has more values"));
                }
                Val::Tuple(values)
            }
            Type::Record(record) => {
                self.record(record.fields().map(|field| (field.name.to_owned(), field.ty)).collect())?
            }
            Type::Flags(flags) => {
                let mut set = Vec::new();
                self.sequence('{', '}', |reader| {
                    let name = reader.label()?;
                    if !flags.names().any(|flag| flag == name) || set.contains(&name) {
                        return Err(reader.wrong(&format!("{name:?} is no flag of it, or there twice")));
                    }
                    set.push(name);
                    Ok(())
                })?;
                Val::Flags(
                    flags.names().filter(|flag| set.iter().any(|name| name == flag)).map(str::to_owned).collect(),
                )
            }
            Type::Variant(variant) => {
                let name = self.label()?;
                let Some(case) = variant.cases().find(|case| case.name == name) else {
                    return Err(self.wrong(&format!("{name:?} is none of its cases")));
                };
                let ty = case.ty;
                Val::Variant(name, payload(self, ty)?)
            }
            Type::Enum(cases) => {
                let name = self.label()?;
                if !cases.names().any(|case| case == name) {
                    return Err(self.wrong(&format!("{name:?} is none of its cases")));
                }
                Val::Enum(name)
            }
            Type::Option(option) => match self.keyword(&["some", "none"]) {
                Some("some") => Val::Option(payload(self, Some(option.ty()))?),
                Some(_) => Val::Option(None),
                // `some` may be left out where that can mean one thing only, and so may `ok`.
                None if is_plain(&option.ty()) => Val::Option(Some(Box::new(self.value(&option.ty())?))),
                None => return Err(self.wrong("some(...) or none is expected")),
            },
            Type::Result(result) => match (self.keyword(&["ok", "err"]), result.ok()) {
                (Some("ok"), ok) => Val::Result(Ok(payload(self, ok)?)),
                (Some(_), _) => Val::Result(Err(payload(self, result.err())?)),
                (None, Some(ok)) if is_plain(&ok) => Val::Result(Ok(Some(Box::new(self.value(&ok)?)))),
                (None, _) => return Err(self.wrong("ok or err is expected")),
            },
            other => return Err(self.wrong(&format!("a {} can't be written as text", named(other)))),
        })
    }

    /// Fields in any order; an option that is left out is none.
    fn record(&mut self, fields: Vec<(String, Type)>) -> Result<Val, Malformed> {
        let mut values: Vec<Option<Val>> = vec![None; fields.len()];
        let before = self.rest;
        if self.symbol('{') && self.symbol(':') {
            self.expect('}')?;
        } else {
            self.rest = before;
            self.sequence('{', '}', |reader| {
                let name = reader.label()?;
                let place = fields.iter().position(|(field, _)| *field == name);
                let Some(place) = place.filter(|&place| values[place].is_none()) else {
                    return Err(reader.wrong(&format!("{name:?} is no field of it, or there twice")));
                };
                reader.expect(':')?;
                values[place] = Some(reader.value(&fields[place].1)?);
                Ok(())
            })?;
        }
        let mut complete = Vec::new();
        for ((name, ty), value) in fields.into_iter().zip(values) {
            let value = match value {
                Some(value) => value,
                None if matches!(ty, Type::Option(_)) => Val::Option(None),
                None => return Err(self.wrong(&format!("the field {name} is missing"))),
            };
            complete.push((name, value));
        }
        Ok(Val::Record(complete))
    }

    /// Items between brackets and commas; the last may have one, too.
    fn sequence(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(open)?;
        while !self.symbol(close) {
            item(self)?;
            if !self.symbol(',') {
                return self.expect(close);
            }
        }
        Ok(())
    }

    fn payload(&mut self, ty: &Type) -> Result<Val, Malformed> {
        self.expect('(')?;
        let value = self.value(ty)?;
        self.expect(')')?;
        Ok(value)
    }

    fn number<T: FromStr>(&mut self, ty: &Type) -> Result<T, Malformed> {
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(self.rest.len());
        let text = &self.rest[..end];
        // Rust takes more: a sign before a positive number, `infinity`, `NaN`.
        let digits = text.trim_start_matches('-');
        let usual = digits.starts_with(|c: char| c.is_ascii_digit()) || ["inf", "-inf", "nan"].contains(&text);
        match text.parse() {
            Ok(number) if usual => {
                self.rest = &self.rest[end..];
                Ok(number)
            }
            _ => Err(self.wrong(&format!("a {} is expected", named(ty)))),
        }
    }

    fn char(&mut self) -> Result<char, Malformed> {
        self.expect('\'')?;
        let read = self.letter('\'')?;
        match read {
            Some(letter) if self.rest.starts_with('\'') => {
                self.rest = &self.rest[1..];
                Ok(letter)
            }
            _ => Err(self.wrong("one character between ' and ' is expected")),
        }
    }

    fn string(&mut self) -> Result<String, Malformed> {
        if self.rest.starts_with("\"\"\"") {
            return self.lines();
        }
        if !self.rest.starts_with('"') {
            return Err(self.wrong("a string in double quotes is expected"));
        }
        self.rest = &self.rest[1..];
        let mut text = String::new();
        while let Some(letter) = self.letter('"')? {
            text.push(letter);
        }
        Ok(text)
    }

    /// A string of several lines, each with the indentation of the last.
    fn lines(&mut self) -> Result<String, Malformed> {
        let inner = &self.rest[3..];
        let Some((inner, rest)) = inner.split_once("\"\"\"") else {
            return Err(self.wrong("the end \"\"\" is missing"));
        };
        let mut lines: Vec<&str> = inner.split('\n').collect();
        let indent = lines.pop().filter(|indent| !lines.is_empty() && indent.chars().all(|c| c == ' '));
        let (Some(indent), true) = (indent, lines.first().is_some_and(|first| first.trim_end().is_empty())) else {
            return Err(self.wrong("\"\"\" stands at the end of a line, and at the beginning of one"));
        };
        let stripped = lines[1..].iter().map(|line| line.strip_prefix(indent).or(line.is_empty().then_some("")));
        let Some(stripped) = stripped.collect::<Option<Vec<&str>>>() else {
            return Err(self.wrong("a line is indented less than the last one"));
        };
        self.rest = rest;
        let joined = stripped.join("\n");
        let mut reader = Reader { rest: &joined };
        let mut text = String::new();
        while !reader.rest.is_empty() {
            match reader.letter('\0')? {
                Some(letter) => text.push(letter),
                None => break,
            }
        }
        Ok(text)
    }

    /// The next letter, unescaped; none at `end`, which is passed where it is a quote of a string.
    fn letter(&mut self, end: char) -> Result<Option<char>, Malformed> {
        let mut chars = self.rest.chars();
        let letter = match chars.next() {
            Some('\\') => {
                let escaped = match chars.next() {
                    Some('n') => Some('\n'),
                    Some('t') => Some('\t'),
                    Some('r') => Some('\r'),
                    Some(same @ ('\\' | '\'' | '"')) => Some(same),
                    Some('u') => {
                        let code = chars.as_str().strip_prefix('{').and_then(|rest| rest.split_once('}'));
                        code.filter(|(code, _)| code.len() <= 6).and_then(|(code, rest)| {
                            chars = rest.chars();
                            u32::from_str_radix(code, 16).ok().and_then(char::from_u32)
                        })
                    }
                    _ => None,
                };
                Some(escaped.ok_or_else(|| self.wrong("an unknown escape"))?)
            }
            Some(letter) if letter == end => None,
            Some('\n') if end != '\0' => return Err(self.wrong("a line ends within quotes")),
            Some(letter) => Some(letter),
            None => return Err(self.wrong("the closing quote is missing")),
        };
        self.rest = chars.as_str();
        Ok(letter)
    }

    /// One of these words, if it is next.
    fn keyword(&mut self, words: &[&'static str]) -> Option<&'static str> {
        self.space();
        let end = self.word_end();
        let found = words.iter().find(|word| **word == &self.rest[..end])?;
        self.rest = &self.rest[end..];
        Some(found)
    }

    /// A name. One that is a keyword is written with %.
    fn label(&mut self) -> Result<String, Malformed> {
        self.space();
        let escaped = self.rest.strip_prefix('%');
        self.rest = escaped.unwrap_or(self.rest);
        let end = self.word_end();
        let name = &self.rest[..end];
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || escaped.is_none() && super::is_keyword(name) {
            return Err(self.wrong("a name is expected"));
        }
        self.rest = &self.rest[end..];
        Ok(name.to_owned())
    }

    fn word_end(&self) -> usize {
        self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(self.rest.len())
    }

    fn symbol(&mut self, symbol: char) -> bool {
        self.space();
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, symbol: char) -> Result<(), Malformed> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.wrong(&format!("{symbol} is expected"))) }
    }

    /// Passes over space and comments.
    fn space(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let Some(comment) = self.rest.strip_prefix("//") else { return };
            self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
        }
    }

    fn wrong(&self, problem: &str) -> Malformed {
        let shown: String = self.rest.chars().take(SHOWN).collect();
        Malformed(if shown.is_empty() { format!("{problem} at the end") } else { format!("{problem} at {shown:?}") })
    }
}

/// Whether a value of it is never taken for `some`, `none`, `ok` or `err`.
fn is_plain(ty: &Type) -> bool {
    !matches!(ty, Type::Option(_) | Type::Result(_))
}
