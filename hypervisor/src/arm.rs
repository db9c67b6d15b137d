//! What the architecture says: numbers and formats, no state.

pub mod gic;
