//! What one decoding remembers: where it is and what it found.

use crate::facts::{Facts, Shape, TypeId};

use super::visit::Typed;

/// As many unknown and duplicate fields are named as upstream names.
const MAX_STRICT: usize = 100;

/// One step of the way from the object's root.
#[derive(Debug, Clone)]
pub(super) enum Step<'f> {
    /// A field of a type.
    Field(&'f str),
    /// A key of a map.
    Key(String),
    /// An item of a list.
    Index(usize),
}

/// What one decoding remembers.
pub(super) struct Context<'f> {
    pub(super) facts: &'f Facts,
    pub(super) path: Vec<Step<'f>>,
    /// The Go struct whose fields are being read.
    pub(super) owner: Option<TypeId>,
    /// The type error that ended the decoding.
    pub(super) problem: Option<String>,
    /// Unknown and duplicate fields.
    pub(super) strict: Vec<String>,
}

impl<'f> Context<'f> {
    pub(super) fn new(facts: &'f Facts) -> Self {
        Self { facts, path: Vec::new(), owner: None, problem: None, strict: Vec::new() }
    }

    /// Where decoding an object begins.
    pub(super) fn root(&mut self, root: TypeId) -> Typed<'_, 'f> {
        Typed { context: self, shape: super::visit::At::Struct(root) }
    }

    pub(super) fn unknown(&mut self, name: &str) {
        self.strict("unknown", name);
    }

    pub(super) fn duplicate(&mut self, name: &str) {
        self.strict("duplicate", name);
    }

    fn strict(&mut self, what: &str, name: &str) {
        if self.strict.len() >= MAX_STRICT {
            return;
        }
        let parent = self.full_path();
        let dot = if parent.is_empty() { "" } else { "." };
        let text = format!("{what} field \"{parent}{dot}{name}\"");
        if !self.strict.contains(&text) {
            self.strict.push(text);
        }
    }

    /// `spec.containers[0].ports[1]`.
    fn full_path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => {
                    text.push_str(&format!("[{index}]"));
                }
                Step::Field(_) | Step::Key(_) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(step.name());
                }
            }
        }
        text
    }

    /// Remembers a type error in Go's words; `found` is `string`, `number 1.5`, `array`, ...
    pub(super) fn mismatch(&mut self, found: &str, shape: &str) {
        let place = match self.owner {
            Some(owner) => {
                // Go names the fields of structs, not the keys of maps.
                let fields = self.path.iter().filter(|step| matches!(step, Step::Field(_)));
                let names: Vec<&str> = fields.map(Step::name).collect();
                format!("struct field {}.{}", self.facts.get(owner).short_name(), names.join("."))
            }
            None => "value".to_owned(),
        };
        self.problem(format!("json: cannot unmarshal {found} into Go {place} of type {shape}"));
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    /// The Go type of a shape.
    pub(super) fn go_type(&self, shape: &Shape) -> String {
        match shape {
            Shape::String => "string".into(),
            Shape::Bool => "bool".into(),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Double => "float64".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::Time => "v1.Time".into(),
            Shape::MicroTime => "v1.MicroTime".into(),
            Shape::Duration => "v1.Duration".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::FieldsV1 => "v1.FieldsV1".into(),
            Shape::Raw => "runtime.RawExtension".into(),
            Shape::Struct(id) => self.struct_name(*id),
            Shape::List(item) => format!("[]{}", self.go_type(item)),
            Shape::Map(item) => format!("map[string]{}", self.go_type(item)),
        }
    }

    pub(super) fn struct_name(&self, id: TypeId) -> String {
        let name = &self.facts.get(id).name;
        name.split_once('.').map_or_else(|| name.to_string(), |(_, rest)| rest.to_owned())
    }
}

impl Step<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Field(name) => name,
            Self::Key(name) => name,
            Self::Index(_) => "",
        }
    }
}
