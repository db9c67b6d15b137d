//! Attacks by speculation across exception levels: what the CPU is open to, what is done about it on each way out of a
//! guest, and what guests are told (Arm DEN0028 7, "Cache speculation side-channels" 2.5, "Spectre-BHB" 1.7).
//!
//! * Branch target injection (variant 2): CSV2 says that it is not possible, or the CPU is one of the old in-order ones, or
//!   the firmware has ARCH_WORKAROUND_1 to empty the predictors.
//! * Branch history injection: CSV2 of 3 or FEAT_ECBHB say that it is not possible; else history is overwritten by CLRBHB or
//!   by a number of branches that the CPU's manual tells, or the firmware has ARCH_WORKAROUND_3.
//! * Store bypass (variant 4): the firmware forbids it for good, by ARCH_WORKAROUND_2; or FEAT_SSBS lets each do so.
//!
//! What one VM has taught the predictors is gone as soon as it leaves, so neither EL2 nor another VM meets it.

use super::idreg::field::{self, isar2, mmfr1, pfr0};
use aarch64_cpu::registers::MIDR_EL1;

/// SMCCC_ARCH_WORKAROUND_1: empties branch predictors.
pub const WORKAROUND_1: u32 = 0x8000_8000;
/// SMCCC_ARCH_WORKAROUND_2: allows (0) or forbids (1) that loads pass stores by speculation.
pub const WORKAROUND_2: u32 = 0x8000_7fff;
/// SMCCC_ARCH_WORKAROUND_3: empties branch predictors and branch history.
pub const WORKAROUND_3: u32 = 0x8000_3fff;

/// How it stands with one kind of attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mitigation {
    /// The CPU is not open to it.
    Unaffected,
    /// It is, and something is done about it.
    Mitigated,
    /// It is, and nothing can be done.
    Vulnerable,
}

use Mitigation::{Mitigated, Unaffected, Vulnerable};

/// How it stands with a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speculation {
    /// Branch target injection.
    pub v2: Mitigation,
    /// Store bypass. Mitigated: the firmware has to be told so on each CPU ([`WORKAROUND_2`]).
    pub v4: Mitigation,
    /// Branch history injection.
    pub bhb: Mitigation,
    /// What is done as a guest leaves; vectors.S knows this layout. Bits 7:0: how many branches overwrite the history; bit
    /// 8: CLRBHB does; bits 63:32: the firmware's function to call. 0: nothing.
    pub guard: u64,
}

/// CLRBHB, in a guard.
const CLRBHB: u64 = 1 << 8;
/// Of MIDR_EL1 the implementer's lower four bits and the part, as one number.
fn part(midr: u64) -> u16 {
    ((MIDR_EL1::Implementer.read(midr) & 0xf) << 12 | MIDR_EL1::PartNum.read(midr)) as u16
}

/// In-order CPUs, which none of these attacks reaches: Cortex-A35, A53, A55, Brahma-B53, Kryo Silver.
const IN_ORDER: [u16; 7] = [0x1d04, 0x1d03, 0x1d05, 0x2100, 0x1801, 0x1803, 0x1805];
/// How many branches overwrite the history, and for which CPUs (implementer 'A'): Cortex-A57, A72; A76, A76AE, A77,
/// Neoverse N1; A78, A78AE, A78C, X1, X1C, A710, X2, N2, V1; A715, A720, A720AE; X3, V2.
const BRANCHES: [(u8, &[u16]); 5] = [
    (8, &[0xd07, 0xd08]),
    (24, &[0xd0b, 0xd0e, 0xd0d, 0xd0c]),
    (32, &[0xd41, 0xd42, 0xd4b, 0xd44, 0xd4c, 0xd47, 0xd48, 0xd49, 0xd40]),
    (38, &[0xd4d, 0xd81, 0xd89]),
    (132, &[0xd4e, 0xd4f]),
];

impl Speculation {
    /// How it stands with a CPU that is `midr`, whose ID registers read as `id(CRm, op2)`, and whose firmware answers
    /// SMCCC_ARCH_FEATURES with `features(function)`: 0 is offered and needed, negative is not there, positive not needed.
    pub fn assess(midr: u64, id: impl Fn(u64, u64) -> u64, features: impl Fn(u32) -> i32) -> Self {
        let field = |crm, op2, at| field::read(id(crm, op2), at);
        // Bits 27:24 of the implementer are enough to tell these apart: 'A' 0x41, 'B' 0x42, 'Q' 0x51.
        let is_in_order =
            IN_ORDER.contains(&part(midr)) && matches!(MIDR_EL1::Implementer.read(midr), 0x41 | 0x42 | 0x51);
        let csv2 = field(4, 0, pfr0::CSV2);
        let first = features(WORKAROUND_1);
        let third = features(WORKAROUND_3);
        let mut guard = 0;
        let v2 = if is_in_order || csv2 != 0 || first > 0 {
            Unaffected
        } else if first == 0 || third == 0 {
            guard = u64::from(if third == 0 { WORKAROUND_3 } else { WORKAROUND_1 }) << 32;
            Mitigated
        } else {
            Vulnerable
        };
        let branches = BRANCHES.iter().find(|(_, parts)| {
            MIDR_EL1::Implementer.read(midr) == 0x41 && parts.contains(&(MIDR_EL1::PartNum.read(midr) as u16))
        });
        let bhb = if is_in_order || csv2 >= 3 || field(7, 1, mmfr1::ECBHB) != 0 || third > 0 {
            Unaffected
        } else if v2 == Vulnerable {
            // Who can inject targets needs no history.
            Vulnerable
        } else if guard >> 32 == u64::from(WORKAROUND_3) {
            Mitigated
        } else if field(6, 2, isar2::CLRBHB) != 0 {
            guard |= CLRBHB;
            Mitigated
        } else if let Some((branches, _)) = branches {
            guard |= u64::from(*branches);
            Mitigated
        } else if third == 0 {
            guard = u64::from(WORKAROUND_3) << 32;
            Mitigated
        } else {
            Vulnerable
        };
        let v4 = match features(WORKAROUND_2) {
            _ if is_in_order => Unaffected,
            0 => Mitigated,
            // NOT_REQUIRED; or not by this CPU.
            -2 | 1.. => Unaffected,
            _ => Vulnerable,
        };
        Self { v2, v4, bhb, guard }
    }

    /// Whether one guest can guide what another, or EL2, does by speculation.
    pub const fn is_open(&self) -> bool {
        matches!((self.v2, self.bhb), (Vulnerable, _) | (_, Vulnerable))
    }

    /// What SMCCC_ARCH_FEATURES says to a guest of one of the three: that it is here and does something, that it is here
    /// and not needed, or not here, from which a guest has to conclude that it is open to the attack (DEN0028 7.5 to 7.9).
    pub const fn offers(&self, function: u32) -> i64 {
        let state = match function {
            WORKAROUND_1 => self.v2,
            WORKAROUND_3 => self.bhb,
            // It is forbidden for all or for nobody, and no guest may change it: NOT_REQUIRED.
            _ => return if matches!(self.v4, Vulnerable) { -1 } else { -2 },
        };
        match state {
            Mitigated => 0,
            Unaffected => 1,
            Vulnerable => -1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mitigation::{Mitigated, Unaffected, Vulnerable};
    use super::{Speculation, WORKAROUND_1, WORKAROUND_2, WORKAROUND_3};

    const A53: u64 = 0x410f_d034;
    const A72: u64 = 0x410f_d083;
    const A75: u64 = 0x412f_d0a1;
    const A76: u64 = 0x414f_d0b1;
    const TSV110: u64 = 0x480f_d010;

    /// ID registers with these: CSV2, ECBHB, CLRBHB.
    fn with(csv2: u64, ecbhb: u64, clrbhb: u64) -> impl Fn(u64, u64) -> u64 {
        move |crm, op2| match (crm, op2) {
            (4, 0) => csv2 << 56,
            (7, 1) => ecbhb << 60,
            (6, 2) => clrbhb << 28,
            _ => 0,
        }
    }

    /// Firmware that answers this of the three.
    fn firmware(answers: [i32; 3]) -> impl Fn(u32) -> i32 {
        move |function| match function {
            WORKAROUND_1 => answers[0],
            WORKAROUND_2 => answers[1],
            WORKAROUND_3 => answers[2],
            _ => panic!("{function:#x} is not asked for"),
        }
    }

    #[test]
    fn a_cortex_a72_depends_on_its_firmware() {
        let assess = |answers| Speculation::assess(A72, with(0, 0, 0), firmware(answers));
        let none = assess([-1; 3]);
        assert_eq!((none.v2, none.v4, none.bhb, none.guard), (Vulnerable, Vulnerable, Vulnerable, 0));
        assert!(none.is_open());
        let old = assess([0, 0, -1]);
        assert!(!old.is_open());
        assert_eq!((old.v2, old.v4, old.bhb), (Mitigated, Mitigated, Mitigated));
        assert_eq!(
            old.guard,
            u64::from(WORKAROUND_1) << 32 | 8,
            "the predictors by the firmware, the history by branches"
        );
        let new = assess([0, -2, 0]);
        assert_eq!((new.v2, new.v4, new.bhb), (Mitigated, Unaffected, Mitigated));
        assert_eq!(new.guard, u64::from(WORKAROUND_3) << 32, "one call does both");
        assert_eq!([WORKAROUND_1, WORKAROUND_2, WORKAROUND_3].map(|it| none.offers(it)), [-1, -1, -1]);
        assert_eq!([WORKAROUND_1, WORKAROUND_2, WORKAROUND_3].map(|it| new.offers(it)), [0, -2, 0]);
    }

    #[test]
    fn what_the_cpu_says_of_itself_is_believed() {
        let none = || firmware([-1; 3]);
        let a53 = Speculation::assess(A53, with(0, 0, 0), none());
        assert_eq!((a53.v2, a53.v4, a53.bhb, a53.guard), (Unaffected, Unaffected, Unaffected, 0));
        let a76 = Speculation::assess(A76, with(1, 0, 0), none());
        assert_eq!((a76.v2, a76.bhb, a76.guard), (Unaffected, Mitigated, 24));
        assert_eq!(Speculation::assess(A76, with(1, 1, 0), none()).guard, 0, "FEAT_ECBHB");
        assert_eq!(Speculation::assess(A76, with(3, 0, 0), none()).bhb, Unaffected, "FEAT_CSV2_3");
        assert_eq!(Speculation::assess(A76, with(1, 0, 1), none()).guard, 1 << 8, "CLRBHB");
        assert_eq!([WORKAROUND_1, WORKAROUND_3].map(|it| a76.offers(it)), [1, 0]);
        let a75 = Speculation::assess(A75, with(1, 0, 0), firmware([1, -2, 0]));
        assert_eq!((a75.bhb, a75.guard), (Mitigated, u64::from(WORKAROUND_3) << 32), "by the firmware alone");
        assert_eq!(Speculation::assess(A75, with(1, 0, 0), none()).bhb, Vulnerable);
        // Another vendor's number that looks like a Cortex-A's.
        assert_eq!(Speculation::assess(A72 ^ 0x10 << 24, with(1, 0, 0), none()).bhb, Vulnerable);
        assert_eq!(Speculation::assess(TSV110, with(0, 0, 0), none()).v2, Vulnerable);
    }
}
