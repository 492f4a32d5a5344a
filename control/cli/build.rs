//! How the binary is linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=control/cli/build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Functions that came out the same are kept once: of generic code there are many. lld can do it, which is what Rust links with on
    // this platform unless told otherwise.
    if is("PROFILE", "release") && is("TARGET", "x86_64-unknown-linux-gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
