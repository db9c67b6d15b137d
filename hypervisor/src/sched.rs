//! Which vCPU runs where, and when.
