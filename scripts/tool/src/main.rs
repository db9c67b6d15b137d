//! The host side of the scripts.
fn main() {}
