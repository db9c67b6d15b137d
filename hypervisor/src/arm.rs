//! What the architecture says: numbers and formats, no state.

pub mod a64;
pub mod debug;
pub mod desc;
pub mod el1;
pub mod el2;
pub mod esr;
pub mod exception;
pub mod gic;
pub mod idreg;
pub mod smccc;
pub mod speculation;
pub mod sysreg;
pub mod tlbi;
pub mod trap;
pub mod vmsa;
pub mod vncr;
