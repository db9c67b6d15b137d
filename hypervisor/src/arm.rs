//! What the architecture says: numbers and formats, no state.

pub mod desc;
pub mod gic;
pub mod vmsa;
