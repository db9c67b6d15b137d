//! A64 instructions that are UNDEFINED at EL0 and mean something at EL2, as the syndrome that a trap of theirs has (Arm ARM C4.1.94,
//! D24.2.40).
//!
//! Where a CPU has no FEAT_NV a guest's EL2 is a program at EL0. What it may not do there comes as EC 0, which says nothing of the
//! instruction. [`syndrome`] has it say what FEAT_NV would have, so that the same code handles either.

use super::esr::ec;
use super::sysreg::{Encoding, ISS, Trapped};
use aarch64_cpu::registers::ESR_EL2;
use tock_registers::register_bitfields;

register_bitfields! {u32,
    /// MSR, MRS, SYS, SYSL, and what else has this form: hints, barriers, MSR of an immediate.
    SYSTEM [
        CLASS OFFSET(22) NUMBITS(10) [System = 0b11_0101_0100],
        /// It reads.
        L OFFSET(21) NUMBITS(1) [],
        OP0 OFFSET(19) NUMBITS(2) [],
        OP1 OFFSET(16) NUMBITS(3) [],
        CRN OFFSET(12) NUMBITS(4) [],
        CRM OFFSET(8) NUMBITS(4) [],
        OP2 OFFSET(5) NUMBITS(3) [],
        RT OFFSET(0) NUMBITS(5) [],
    ],
    /// SVC, HVC, SMC, BRK, HLT.
    EXCEPTION [
        CLASS OFFSET(21) NUMBITS(11) [Call = 0b110_1010_0000],
        IMM16 OFFSET(5) NUMBITS(16) [],
        LEVEL OFFSET(0) NUMBITS(5) [Hvc = 0b00010, Smc = 0b00011],
    ],
}

/// ERET.
pub const ERET: u32 = 0xd69f_03e0;
/// The CRn of an MSR of an immediate to a field of PSTATE, whose op0 is 0.
const PSTATE: u32 = 4;

/// ESR_EL2 of a trap of the instruction `word`; nothing where it is none that traps at EL1 by HCR_EL2.NV, TSC or ID registers, or calls
/// EL2: it is UNDEFINED at EL2, too, or was so for another reason.
pub fn syndrome(word: u32) -> Option<u64> {
    let (class, iss) = if word == ERET {
        (ec::ERET, 0)
    } else if EXCEPTION::CLASS::Call.matches_all(word) {
        let class = match EXCEPTION::LEVEL.read_as_enum(word)? {
            EXCEPTION::LEVEL::Value::Hvc => ec::HVC64,
            EXCEPTION::LEVEL::Value::Smc => ec::SMC64,
        };
        (class, EXCEPTION::IMM16.read(word).into())
    } else if SYSTEM::CLASS::System.matches_all(word) {
        (ec::SYSREG, system(word)?)
    } else {
        return None;
    };
    Some((ESR_EL2::EC.val(class) + ESR_EL2::IL::SET + ESR_EL2::ISS.val(iss)).value)
}

/// MRS, MSR, SYS or SYSL: what the word accesses. Hints, barriers and MSR of an immediate have this form, too, with op0 0.
#[inline(always)]
pub fn access(word: u32) -> Option<Trapped> {
    // Five bits; op0 to op2 are in the order that an encoding has them.
    let (rt, encoding) = (SYSTEM::RT.read(word) as u8, Encoding::from_word(word));
    SYSTEM::CLASS::System.matches_all(word).then_some(Trapped { encoding, rt, is_read: SYSTEM::L.is_set(word) })
}

/// The ISS of a trapped access.
fn system(word: u32) -> Option<u64> {
    let [op0, crn, rt] = [SYSTEM::OP0.read(word), SYSTEM::CRN.read(word), SYSTEM::RT.read(word)];
    // Hints and barriers are anybody's.
    if op0 == 0 && (crn != PSTATE || rt != 31 || SYSTEM::L.is_set(word)) {
        return None;
    }
    let fields = ISS::Op0.val(op0.into())
        + ISS::Op1.val(SYSTEM::OP1.read(word).into())
        + ISS::CRn.val(crn.into())
        + ISS::CRm.val(SYSTEM::CRM.read(word).into())
        + ISS::Op2.val(SYSTEM::OP2.read(word).into())
        + ISS::Rt.val(rt.into())
        + ISS::Direction.val(SYSTEM::L.read(word).into());
    Some(fields.value)
}
