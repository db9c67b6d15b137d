//! System registers that trap for each guest: what it reads of them, what it may write, and what is undefined.

use crate::exits::{here, model};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::exit;
use flatland::host::Here;
use flatland::machine::Machine;
use flatland::next::Next;
use flatland::vcpu::Vcpu;
use harness::cpu::{Cpu, host};

pub(crate) const VBAR: u64 = 0x8000;
const PC: u64 = 0x1_0000;

pub(crate) type Encoding = [u64; 5];

const OSLAR: Encoding = [2, 0, 1, 0, 4];
const OSLSR: Encoding = [2, 0, 1, 1, 4];
const OSDLR: Encoding = [2, 0, 1, 3, 4];
const CLAIMSET: Encoding = [2, 0, 7, 8, 6];
const CLAIMCLR: Encoding = [2, 0, 7, 9, 6];
const AUTHSTATUS: Encoding = [2, 0, 7, 14, 6];
const MDSCR: Encoding = [2, 0, 0, 2, 2];
/// DBGBVR0_EL1, DBGBCR0_EL1, DBGWVR0_EL1, DBGWCR0_EL1; the ID registers say one of each.
const POINTS: [Encoding; 4] = [[2, 0, 0, 0, 4], [2, 0, 0, 0, 5], [2, 0, 0, 0, 6], [2, 0, 0, 0, 7]];
const ACTLR: Encoding = [3, 0, 1, 0, 1];
const ICC_SRE: Encoding = [3, 0, 12, 12, 5];
const CNTP_CTL: Encoding = [3, 3, 14, 2, 1];
const CNTP_CVAL: Encoding = [3, 3, 14, 2, 2];
const CNTP_TVAL: Encoding = [3, 3, 14, 2, 0];
/// S3_0_C15_C2_0: an IMPLEMENTATION DEFINED one.
const NOTHING: Encoding = [3, 0, 15, 2, 0];

/// Lets the guest access a register with X`rt`; false if that is undefined.
pub(crate) fn access(here: Here<'_>, cpu: &Cpu<'_>, vcpu: &mut Vcpu, parts: Encoding, rt: u64, is_read: bool) -> bool {
    let [op0, op1, crn, crm, op2] = parts;
    let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | u64::from(is_read);
    vcpu.registers.esr = ec::SYSREG << 26 | 1 << 25 | iss;
    (vcpu.registers.pc, vcpu.registers.pstate) = (PC, psr::EL1H);
    cpu.set(El1::Vbar, VBAR);
    // A timer that was changed is looked at anew.
    assert!(matches!(exit::handle(here, cpu, vcpu), Next::Resume | Next::Reschedule));
    let is_done = vcpu.registers.pc == PC + 4;
    // An unknown reason, of an instruction of four bytes.
    assert!(is_done || cpu.get(El1::Esr) == 1 << 25, "{:#x}", cpu.get(El1::Esr));
    assert!(is_done || (vcpu.registers.pc, cpu.get(El1::Elr)) == (VBAR + 0x200, PC), "{:#x}", vcpu.registers.pc);
    is_done
}

pub(crate) fn read(here: Here<'_>, cpu: &Cpu<'_>, vcpu: &mut Vcpu, parts: Encoding) -> Option<u64> {
    vcpu.registers.x[3] = 0x5555;
    access(here, cpu, vcpu, parts, 3, true).then(|| vcpu.registers.x[3])
}

pub(crate) fn write(here: Here<'_>, cpu: &Cpu<'_>, vcpu: &mut Vcpu, parts: Encoding, value: u64) -> bool {
    vcpu.registers.x[3] = value;
    access(here, cpu, vcpu, parts, 3, false)
}

#[test]
fn what_a_guest_reads_and_writes_is_what_the_manual_says() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    // Register to write, what, register to read, what: Arm ARM D24.3.
    let writes = [
        (OSLAR, 1, OSLSR, 0b1010),
        (OSLAR, 0, OSLSR, 0b1000),
        (OSLAR, !1, OSLSR, 0b1000),
        (OSDLR, 1, OSDLR, 1),
        (OSDLR, !1, OSDLR, 0),
        (CLAIMSET, 0b1100, CLAIMCLR, 0b1100),
        (CLAIMSET, 0x101, CLAIMCLR, 0b1101),
        (CLAIMCLR, 0b0101, CLAIMCLR, 0b1000),
        (CLAIMCLR, 0, CLAIMSET, 0xff),
        // SS, TDCC, KDE and MDE; what is for external debuggers stays.
        (MDSCR, u64::MAX, MDSCR, 1 | 1 << 12 | 1 << 13 | 1 << 15),
        (MDSCR, 0, MDSCR, 0),
        (ACTLR, u64::MAX, ACTLR, 0),
        (ICC_SRE, 0, ICC_SRE, 0b111),
        // IMASK and ENABLE; ISTATUS is bit 2, and the counter is at zero.
        (CNTP_CVAL, 1 << 40, CNTP_CVAL, 1 << 40),
        (CNTP_CTL, u64::MAX, CNTP_CTL, 0b011),
        (CNTP_CTL, 0, CNTP_CTL, 0),
        (CNTP_TVAL, 77, CNTP_CVAL, 77),
        (CNTP_TVAL, 0xffff_fffe, CNTP_CVAL, u64::MAX - 1),
        (CNTP_CVAL, 5, CNTP_TVAL, 5),
        (CNTP_CVAL, 0, CNTP_CVAL, 0),
        (CNTP_CTL, 1, CNTP_CTL, 0b101),
    ];
    for (to, value, from, expected) in writes {
        assert!(write(here, &cpu, vcpu, to, value), "{to:?} may be written");
        assert_eq!(read(here, &cpu, vcpu, from), Some(expected), "{from:?} after {value:#x} was written to {to:?}");
    }
    assert_eq!(read(here, &cpu, vcpu, AUTHSTATUS), Some(0b1010));
    // E, PMC, BAS, HMC, SSC, LBN, BT; an address of a word; E, PAC, LSC, BAS, HMC, SSC, LBN, WT, MASK.
    let bits = |fields: &[std::ops::Range<u32>]| fields.iter().cloned().flatten().map(|bit| 1_u64 << bit).sum::<u64>();
    let masks = [!0, bits(&[0..3, 5..9, 13..24]), !3, bits(&[0..21, 24..29])];
    for (parts, mask) in POINTS.into_iter().zip(masks) {
        for value in [u64::MAX, 0] {
            assert!(write(here, &cpu, vcpu, parts, value));
            assert_eq!(read(here, &cpu, vcpu, parts), Some(value & mask), "{parts:?}");
        }
        let mut behind = parts;
        behind[3] = 1;
        assert!(!access(here, &cpu, vcpu, behind, 3, true), "there is one");
    }
    for (parts, is_read) in [(OSLAR, true), (OSLSR, false), (AUTHSTATUS, false), (NOTHING, true), (NOTHING, false)] {
        assert!(!access(here, &cpu, vcpu, parts, 3, is_read), "{parts:?} is undefined, read: {is_read}");
    }
    // X31 is zero, and stays.
    assert!(write(here, &cpu, vcpu, CLAIMSET, 0xff) && access(here, &cpu, vcpu, CLAIMCLR, 31, false));
    assert_eq!(read(here, &cpu, vcpu, CLAIMCLR), Some(0xff));
    assert!(access(here, &cpu, vcpu, CLAIMCLR, 31, true));
}
