//! Registers as conformance suites look at them, and accesses nobody should make.
