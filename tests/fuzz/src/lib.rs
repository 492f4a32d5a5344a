//! Fuzz targets: all that reads bytes from outside, each as a function that panics if a promise is broken.
//!
//! The same targets run twice: in `cargo test`, over the committed seeds and some thousand mutations of them, and
//! under libFuzzer with coverage (`tests/fuzz/run.sh`), for as long as one likes. An input's first line says what the
//! rest is about (`v1/pods yaml`); a line that says nothing known still picks something, so that no mutation is wasted.

mod body;
mod patch;
mod request;
mod text;

/// A target: a name (that of its seeds' folder) and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("body", body::run),
    ("patch", patch::run),
    ("selector", text::selector),
    ("quantity", text::quantity),
    ("request", request::run),
];

/// The words of the first line, and what follows it.
fn header(input: &[u8]) -> (Vec<&str>, &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let words = std::str::from_utf8(&input[..end]).unwrap_or_default().split(' ').collect();
    (words, input.get(end + 1..).unwrap_or_default())
}

/// The item that `word` names, or any.
fn pick<'a, T>(items: &'a [T], word: &str, is: impl Fn(&T) -> bool) -> &'a T {
    let any = word.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % items.len();
    items.iter().find(|item| is(item)).unwrap_or(&items[any])
}

/// The built-in resources, made once.
fn registry() -> &'static std::sync::Arc<wherry_api::resource::Registry> {
    static REGISTRY: std::sync::OnceLock<std::sync::Arc<wherry_api::resource::Registry>> = std::sync::OnceLock::new();
    REGISTRY.get_or_init(|| std::sync::Arc::new(wherry_api::resource::Registry::builtin()))
}

/// The resource that `word` (`v1/pods`, `apps/v1/deployments`) names, or any.
fn resource(word: &str) -> std::sync::Arc<wherry_api::resource::Resource> {
    let all: Vec<_> = registry().resources().cloned().collect();
    pick(&all, word, |r| format!("{}/{}", r.api_version(), r.plural) == word).clone()
}
