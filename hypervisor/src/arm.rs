//! What the architecture says: numbers and formats, no state.

pub mod idreg;
pub mod smccc;
pub mod sysreg;
