//! A virtual machine, built from its parts.
