//! Passes the guests' linker script, and only where it means something: when building for bare metal.

fn main() {
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os == "none" {
        let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-T{here}/../linker/guest.ld");
        // Without it, the linker rounds segments up to 64 KiB and the flat image grows for nothing.
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    }
    println!("cargo:rerun-if-changed=../linker/guest.ld");
}
