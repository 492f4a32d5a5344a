//! The `wherry` binary.
fn main() {}
