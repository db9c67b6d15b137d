//! TLB maintenance and address translation for the guests below. With E2H and TGE the same instructions are about EL2 itself,
//! so they are done without TGE. Follows Arm ARM D8.17 and C5.4 (AT).

use super::{E2H, Register, TGE};
use core::arch::asm;

/// What of the current VMID (or of all) to forget, on all CPUs unless it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// IPAS2E1IS of this IPA, and VMALLE1IS for what was made of it.
    Ipa(u64),
    /// IPAS2LE1IS of this IPA, and VMALLE1IS.
    LastLevel(u64),
    /// VMALLS12E1IS: both stages of the current VMID.
    Vm,
    /// VMALLS12E1: the same on this CPU.
    VmHere,
    /// VMALLE1IS: stage 1 of the current VMID.
    StageOne,
    /// ALLE1IS: everything of EL1 and EL0, of all VMIDs.
    All,
    /// RIPAS2E1IS: from this IPA on 2 MiB, and VMALLE1IS; where ID_AA64ISAR0_EL1.TLB is 2.
    Range(u64),
}

/// Runs `f` with this HCR_EL2.
fn with_hcr<R>(value: u64, f: impl FnOnce() -> R) -> R {
    let hcr = Register::Hcr.read();
    if hcr == value {
        return f();
    }
    Register::Hcr.write(value);
    let result = f();
    Register::Hcr.write(hcr);
    result
}

/// Forgets translations. VTTBR_EL2 says whose.
pub fn forget(what: Forget) {
    let hcr = Register::Hcr.read();
    with_hcr(if hcr & E2H != 0 { hcr & !TGE } else { hcr }, || {
        // SAFETY: forgetting translations changes no memory; the program's own are found again in its tables.
        unsafe {
            asm!("dsb ishst", options(nostack));
            match what {
                Forget::Ipa(ipa) => {
                    asm!("tlbi ipas2e1is, {}", "dsb ish", "tlbi vmalle1is", in(reg) ipa >> 12, options(nostack))
                }
                Forget::LastLevel(ipa) => {
                    asm!("tlbi ipas2le1is, {}", "dsb ish", "tlbi vmalle1is", in(reg) ipa >> 12, options(nostack))
                }
                Forget::Vm => asm!("tlbi vmalls12e1is", options(nostack)),
                Forget::VmHere => asm!("tlbi vmalls12e1", options(nostack)),
                Forget::StageOne => asm!("tlbi vmalle1is", options(nostack)),
                Forget::All => asm!("tlbi alle1is", options(nostack)),
                // TG 4 KiB, SCALE 1, NUM 7: (7 + 1) << 6 pages.
                Forget::Range(ipa) => asm!("sys #4, c8, c0, #2, {}", "dsb ish", "tlbi vmalle1is",
                    in(reg) ipa >> 12 & 0x1f_ffff_ffff | 1 << 46 | 1 << 44 | 7 << 39, options(nostack)),
            }
            asm!("dsb ish", "isb", options(nostack));
        }
    });
}

/// A translation to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// S1E1R: the guest's stage 1, a read at EL1.
    S1E1R,
    /// S1E1W.
    S1E1W,
    /// S1E0R.
    S1E0R,
    /// S1E1RP, with PSTATE.PAN set.
    S1E1RP,
    /// S12E1R: both stages, a read at EL1.
    S12E1R,
    /// S12E1W.
    S12E1W,
    /// S12E0R.
    S12E0R,
    /// S12E0W.
    S12E0W,
    /// S1E2R: the program's own map.
    S1E2R,
    /// S1E2W.
    S1E2W,
}

/// Asks for a translation under the guest's HCR_EL2; returns PAR_EL1.
pub fn translate(how: At, address: u64, hcr: u64) -> u64 {
    let ask = || {
        // SAFETY: the instructions write PAR_EL1, no more.
        unsafe {
            match how {
                At::S1E1R => asm!("at s1e1r, {}", in(reg) address, options(nostack)),
                At::S1E1W => asm!("at s1e1w, {}", in(reg) address, options(nostack)),
                At::S1E0R => asm!("at s1e0r, {}", in(reg) address, options(nostack)),
                // MSR PAN, #1; AT S1E1RP; MSR PAN, #0.
                At::S1E1RP => {
                    asm!(".inst 0xd500419f", "sys #0, c7, c9, #0, {}", ".inst 0xd500409f", in(reg) address, options(nostack))
                }
                At::S12E1R => asm!("at s12e1r, {}", in(reg) address, options(nostack)),
                At::S12E1W => asm!("at s12e1w, {}", in(reg) address, options(nostack)),
                At::S12E0R => asm!("at s12e0r, {}", in(reg) address, options(nostack)),
                At::S12E0W => asm!("at s12e0w, {}", in(reg) address, options(nostack)),
                At::S1E2R => asm!("at s1e2r, {}", in(reg) address, options(nostack)),
                At::S1E2W => asm!("at s1e2w, {}", in(reg) address, options(nostack)),
            }
        }
        crate::cpu::isb();
        Register::Par.read()
    };
    if matches!(how, At::S1E2R | At::S1E2W) { ask() } else { with_hcr(hcr, ask) }
}
