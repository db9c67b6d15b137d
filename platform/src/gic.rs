//! The physical interrupt controller, as EL2 (non-secure) uses it: [`v2`] and [`v3`].
//!
//! Key types: [`Ack`], [`Trigger`], [`Stuck`], and each version's register structures, which are the drivers.
//!
//! Invariants: all interrupts have one priority until told otherwise ([`PRIORITY`]); INTIDs that a controller does not have
//! are ignored by setters and read as false, so no number can make a driver panic. Priority drop and deactivation are
//! apart (EOImode 1), so that a guest's interrupt can be dropped at once and deactivated by the guest's own end of
//! interrupt.
//!
//! Registers that are set by writing ones (enable, active, pending) may be written by all CPUs at once. Trigger and
//! routing are for boot, or for whoever holds a lock.
//!
//! The drivers issue no barriers. Who sends an SGI to have its stores seen owes a DSB ISHST before; who disables or
//! deactivates and must know that it has happened owes a DSB SY after.

pub mod v2;
pub mod v3;

/// The priority of every interrupt after `init`: the middle of what the non-secure side has. Lower is more urgent.
pub const PRIORITY: u8 = 0xa0;
/// The priority mask after `init`: everything passes.
pub(crate) const PRIORITY_MASK: u32 = 0xff;
/// The first shared interrupt (SPI).
pub const FIRST_SPI: u32 = 32;
/// The first of the INTIDs that mean no interrupt (1020 to 1023, in both versions).
pub(crate) const SPECIAL: u32 = 1020;

/// What starts an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// A level: pending as long as the device says so.
    Level,
    /// A rising edge.
    Edge,
}

/// A GICv2's interrupt that has been acknowledged: what GICC_IAR has returned, to be given back at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[must_use = "an acknowledged interrupt stays active until it is ended and deactivated"]
pub struct Ack(u32);

impl Ack {
    /// Wraps what GICC_IAR has returned, or nothing where it says that no interrupt is pending.
    pub const fn new(raw: u32) -> Option<Self> {
        if raw & 0x3ff >= SPECIAL { None } else { Some(Self(raw)) }
    }

    /// Tells what GICC_IAR has returned, which is what GICC_EOIR and GICC_DIR want.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Tells the INTID, 0 to 1019.
    pub const fn intid(self) -> u32 {
        self.0 & 0x3ff
    }

    /// Tells which CPU interface has sent an SGI; 0 for other interrupts.
    pub const fn source(self) -> u32 {
        self.0 >> 10 & 7
    }
}

/// Says that the controller has not finished what it was told, after a million polls. The hardware's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stuck;

/// Where an INTID has its bit in an array of 32-bit registers.
pub(crate) const fn bit(intid: u32) -> (usize, u32) {
    // u32 fits usize on every target.
    ((intid / 32) as usize, 1 << (intid % 32))
}

/// Where an INTID has its two configuration bits in GICD_ICFGR, of which the upper one counts.
pub(crate) const fn config_bit(intid: u32) -> (usize, u32) {
    ((intid / 16) as usize, 2 << (intid % 16 * 2))
}

/// How many INTIDs below 1020 there are by the field ITLinesNumber of GICD_TYPER.
pub(crate) const fn lines(it_lines_number: u32) -> u32 {
    let lines = ((it_lines_number & 0x1f) + 1) * 32;
    if lines > SPECIAL { SPECIAL } else { lines }
}

/// What a loop steps by, hidden from the compiler, which else makes the step a part of the access (`str w0, [x1], #4`). Of
/// that form the syndrome says nothing (ESR_EL2.ISV; Arm ARM D24.2.40), so a hypervisor below could not emulate it.
fn apart<T>(step: T) -> T {
    core::hint::black_box(step)
}

#[cfg(test)]
mod tests {
    use super::{Ack, bit, config_bit, lines};

    #[test]
    fn special_numbers_are_no_interrupts_whatever_cpu_they_name() {
        assert_eq!(Ack::new(1023), None);
        assert_eq!(Ack::new(1020), None);
        assert_eq!(Ack::new(2 << 10 | 1023), None);
        let sgi = Ack::new(3 << 10 | 5).unwrap();
        assert_eq!((sgi.intid(), sgi.source(), sgi.raw()), (5, 3, 0xc05));
        assert_eq!(Ack::new(1019).map(Ack::intid), Some(1019));
    }

    #[test]
    fn bits_lie_where_the_architecture_has_them() {
        assert_eq!(bit(33), (1, 2));
        assert_eq!(config_bit(33), (2, 8));
        assert_eq!((lines(0), lines(2), lines(31), lines(u32::MAX)), (32, 96, 1020, 1020));
    }
}
