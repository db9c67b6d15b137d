//! Hands the linker its script, for the bare-metal binary alone.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=../linker/flatland.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{here}/../linker/flatland.ld");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
        println!("cargo::rustc-link-arg-bins=--icf=all");
    }
}
