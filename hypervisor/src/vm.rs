//! A virtual machine, built from its parts.

pub mod tree;
