//! Self-hosted debug: a guest's breakpoints, watchpoints, MDSCR_EL1, locks and claim tags (Arm ARM D2, D24.3).
//!
//! [`struct@Debug`] is what the guest wrote and reads back: its accesses trap, always (MDCR_EL2.TDA), for it may not have the CPU's
//! own. What the CPU is given is made from it here, and can match at EL1 and EL0 alone: never at EL2, whatever a guest
//! writes to HMC, SSC and PMC, and not by VMID, whose numbers are ours. The CPU's registers need to hold it only while its
//! MDSCR_EL1.MDE is in force: without, none of them hits, and what another guest left there means nothing.

use crate::arm::idreg::IdRegs;
use crate::arm::idreg::field::{self, dfr0};
use tock_registers::register_bitfields;

/// MDSCR_EL1.
#[allow(missing_docs)]
pub mod mdscr {
    pub const SS: u64 = 1;
    pub const TDCC: u64 = 1 << 12;
    pub const KDE: u64 = 1 << 13;
    pub const MDE: u64 = 1 << 15;
    /// What a guest has of it: the rest speaks of external debuggers.
    pub const ALL: u64 = SS | TDCC | KDE | MDE;
}

/// How many breakpoints a guest can have: no core by Arm has more. Of one that had, the first are shown.
pub const BREAKPOINTS: usize = 6;
/// How many watchpoints.
pub const WATCHPOINTS: usize = 4;

register_bitfields! {u64,
    /// `DBGBCR<n>_EL1`.
    DBGBCR [
        /// What a breakpoint is of.
        BT OFFSET(20) NUMBITS(4) [],
    ],
}

/// `DBGBCR<n>_EL1` and `DBGWCR<n>_EL1`: E; PMC or PAC; HMC; SSC.
const E: u64 = 1;
const PMC: u64 = 0b11 << 1;
const HMC: u64 = 1 << 13;
const SSC: u64 = 0b11 << 14;
/// `DBGBCR<n>_EL1` beyond: BAS, LBN, BT, whose values from 4 on are of VMIDs, CONTEXTIDR_EL2 and AArch32.
const BCR: u64 = E | PMC | 0xf << 5 | HMC | SSC | 0xf << 16 | 0xf << 20;
/// `DBGWCR<n>_EL1` beyond: LSC, BAS, LBN, WT, MASK.
const WCR: u64 = E | PMC | 0b11 << 3 | 0xff << 5 | HMC | SSC | 0x1f << 16 | 0x1f << 24;

/// A breakpoint or a watchpoint: its value and its control register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Point {
    /// `DBGBVR<n>_EL1` or `DBGWVR<n>_EL1`.
    pub value: u64,
    /// `DBGBCR<n>_EL1` or `DBGWCR<n>_EL1`.
    pub control: u64,
}

impl Point {
    /// What the CPU's control register holds for it, while who runs at EL1 is the guest's EL1, or its EL2 (`at_el2`).
    #[inline]
    pub const fn armed(self, at_el2: bool) -> u64 {
        let secure_only = self.control & SSC == 0b10 << 14;
        let higher = self.control & HMC != 0;
        // EL0 by the upper bit, EL1 by the lower, EL2 by HMC (Arm ARM D2.8.1): there is no secure state here, no EL3.
        let kernel = if at_el2 { higher } else { self.control & 1 << 1 != 0 };
        let levels = if kernel { 1 << 1 } else { 0 } | self.control & 1 << 2;
        if secure_only || levels == 0 { 0 } else { self.control & !(PMC | HMC | SSC) | levels }
    }
}

/// A vCPU's debug registers, as it wrote them.
#[derive(Clone, Debug)]
pub struct Debug {
    /// MDSCR_EL1: SS, TDCC, KDE, MDE.
    pub mdscr: u64,
    /// OSLSR_EL1.OSLK.
    pub os_lock: bool,
    /// OSDLR_EL1.DLK.
    pub double_lock: bool,
    /// The claim tags.
    pub claims: u8,
    /// The breakpoints.
    pub breakpoints: [Point; BREAKPOINTS],
    /// The watchpoints.
    pub watchpoints: [Point; WATCHPOINTS],
}

impl Debug {
    /// As after a warm reset: nothing is armed, the OS lock is held.
    pub const fn new() -> Self {
        Self {
            mdscr: 0,
            os_lock: true,
            double_lock: false,
            claims: 0,
            breakpoints: [Point { value: 0, control: 0 }; BREAKPOINTS],
            watchpoints: [Point { value: 0, control: 0 }; WATCHPOINTS],
        }
    }

    /// What the CPU's MDSCR_EL1 holds: either lock holds debug exceptions back, and so does running above the Exception
    /// level that they go to (`above`), but for BRK (Arm ARM D2.3).
    #[inline]
    pub const fn in_force(&self, above: bool) -> u64 {
        self.mdscr & if self.os_lock || self.double_lock || above { mdscr::TDCC } else { !0 }
    }

    /// `DBGBVR<n>_EL1`, `DBGBCR<n>_EL1`, `DBGWVR<n>_EL1` or `DBGWCR<n>_EL1` (op2 4 to 7), and which bits of it can be written;
    /// nothing for those that `ids` does not show.
    pub fn point(&mut self, ids: &IdRegs, n: u16, op2: u16) -> Option<(&mut u64, u64)> {
        let (points, at) = match op2 {
            4 | 5 => (&mut self.breakpoints[..], dfr0::BRPS),
            _ => (&mut self.watchpoints[..], dfr0::WRPS),
        };
        if u64::from(n) > field::read(ids.get(5, 0), at) {
            return None;
        }
        let point = points.get_mut(usize::from(n))?;
        Some(match op2 {
            4 => (&mut point.value, !0),
            5 => (&mut point.control, BCR),
            6 => (&mut point.value, !0b11),
            _ => (&mut point.control, WCR),
        })
    }

    /// What the CPU's registers hold for breakpoint `n`.
    #[inline]
    pub fn breakpoint(&self, n: usize, at_el2: bool) -> Point {
        let point = self.breakpoints.get(n).copied().unwrap_or_default();
        let control = match DBGBCR::BT.read(point.control) {
            // A context to be linked to: whoever links to it says at which levels.
            0b0011 => point.control & !(HMC | SSC) | PMC,
            0b0000..0b0011 => point.armed(at_el2),
            _ => 0,
        };
        Point { control, ..point }
    }

    /// The same for watchpoint `n`.
    #[inline]
    pub fn watchpoint(&self, n: usize, at_el2: bool) -> Point {
        let point = self.watchpoints.get(n).copied().unwrap_or_default();
        Point { control: point.armed(at_el2), ..point }
    }
}

impl Default for Debug {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Debug, HMC, Point, SSC, mdscr};
    use crate::arm::idreg::field::{self, dfr0};
    use crate::arm::idreg::{IdRegs, Offer};

    fn ids(dfr0: u64) -> IdRegs {
        let raw = |crm, op2| if (crm, op2) == (5, 0) { dfr0 } else { 0 };
        IdRegs::new(raw, Offer { gic_registers: false, pa_range: 2 })
    }

    #[test]
    fn nothing_a_guest_writes_matches_at_el2() {
        for control in (0..=u16::MAX).map(u64::from) {
            for at_el2 in [false, true] {
                let armed = Point { value: 0, control }.armed(at_el2);
                assert_eq!(armed & (HMC | SSC), 0, "{control:#x}");
                assert!(armed & 1 == 0 || armed & 0b110 != 0, "{control:#x}: no level is not a choice in AArch64");
            }
        }
    }

    #[test]
    fn a_context_to_be_linked_to_is_of_all_levels() {
        let mut debug = Debug::new();
        // BT of a linked context; E, BAS, and all sorts of HMC, SSC and PMC.
        for levels in 0..32 {
            let (hmc, ssc, pmc) = (levels & 1, levels >> 1 & 3, levels >> 3 & 3);
            debug.breakpoints[0].control = 0b0011 << 20 | 0xf << 5 | 1 | hmc << 13 | ssc << 14 | pmc << 1;
            assert_eq!(debug.breakpoint(0, false).control, 0b0011 << 20 | 0xf << 5 | 1 | 0b11 << 1);
        }
    }

    #[test]
    fn levels_are_those_of_who_runs() {
        // (HMC, SSC, PMC) of EL0 alone, EL1 alone, both, EL1 and EL2, EL2 alone; secure state alone.
        let cases = [
            (0, 0, 0b10, 0b10, 0b10),
            (0, 0, 0b01, 0b01, 0),
            (0, 0, 0b11, 0b11, 0b10),
            (1, 0, 0b01, 0b01, 0b01),
            (1, 3, 0b00, 0, 0b01),
            (0, 2, 0b11, 0, 0),
        ];
        for (hmc, ssc, pmc, guest, hypervisor) in cases {
            let control = 1 | pmc << 1 | hmc << 13 | ssc << 14 | 0xf << 5;
            for (at_el2, levels) in [(false, guest), (true, hypervisor)] {
                let expected = if levels == 0 { 0 } else { 1 | levels << 1 | 0xf << 5 };
                assert_eq!(Point { value: 0, control }.armed(at_el2), expected, "{hmc} {ssc} {pmc} {at_el2}");
            }
        }
    }

    #[test]
    fn a_watchpoint_is_as_it_was_written_but_for_levels() {
        let mut debug = Debug::new();
        // E, PMC of EL1 and EL0, LSC of stores, BAS, MASK; HMC has EL2 watched, too.
        let control = 1 | 0b11 << 1 | 0b10 << 3 | 0xa5 << 5 | 0b111 << 24;
        debug.watchpoints[2] = Point { value: 0xffff_0000_1234_5678, control: control | HMC };
        for at_el2 in [false, true] {
            assert_eq!(debug.watchpoint(2, at_el2), Point { value: 0xffff_0000_1234_5678, control });
            assert_eq!(debug.watchpoint(1, at_el2), Point::default());
            assert_eq!(debug.watchpoint(4, at_el2), Point::default(), "there is none");
        }
        debug.watchpoints[2].control &= !HMC;
        assert_eq!(debug.watchpoint(2, true).control, control & !2, "EL0 alone is left");
        assert_eq!(debug.breakpoint(2, false), Point::default());
    }

    #[test]
    fn breakpoints_by_vmid_are_not_armed() {
        let mut debug = Debug::new();
        for bt in 0..16u64 {
            debug.breakpoints[1].control = 1 | 0b11 << 1 | 0xf << 5 | bt << 20;
            assert_eq!(debug.breakpoint(1, false).control & 1 != 0, bt < 4, "BT {bt:#b}");
        }
    }

    #[test]
    fn as_many_are_there_as_are_shown() {
        for (dfr0, breakpoints, watchpoints) in [(0x0010_1006, 2, 2), (0x1030_5006, 6, 4), (0x10f0_f006, 6, 4)] {
            let (ids, mut debug) = (ids(dfr0), Debug::new());
            let mut count = |op2| (0..16).filter(|n| debug.point(&ids, *n, op2).is_some()).count();
            assert_eq!([count(4), count(5), count(6), count(7)], [breakpoints, breakpoints, watchpoints, watchpoints]);
            assert_eq!(field::read(ids.get(5, 0), dfr0::BRPS), breakpoints as u64 - 1);
            assert_eq!(field::read(ids.get(5, 0), dfr0::WRPS), watchpoints as u64 - 1);
        }
    }

    #[test]
    fn locks_hold_debug_exceptions_back() {
        let all = mdscr::SS | mdscr::TDCC | mdscr::KDE | mdscr::MDE;
        let open = Debug { mdscr: all, os_lock: false, ..Debug::new() };
        assert_eq!(open.in_force(false), all);
        assert_eq!(open.in_force(true), mdscr::TDCC);
        assert_eq!(Debug { os_lock: true, ..open.clone() }.in_force(false), mdscr::TDCC);
        assert_eq!(Debug { double_lock: true, ..open }.in_force(false), mdscr::TDCC);
    }
}
