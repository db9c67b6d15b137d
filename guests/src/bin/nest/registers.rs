//! Registers keep what is written, where the architecture says they do, and the names of E2H mean what they should.

use crate::l2::Vm;
use crate::tables::{pa_bits, vmid_bits};
use rt::el2::{self, El1, Register};
use rt::{args, check, check_eq};

/// Runs the group.
pub(crate) fn run() {
    identity();
    hypervisor_registers();
    own_registers();
    timers();
    if args::gic_version() == 3 {
        interrupt_registers();
    }
    // Loads the registers of EL1 with something to go on from.
    let vm = Vm::plain(1);
    guest_registers();
    if el2::is_vhe() {
        redirected()
    } else {
        not_redirected()
    }
    vm.load();
}

fn field(register: Register, shift: u32) -> u64 {
    register.read() >> shift & 15
}

fn identity() {
    check_eq!(Register::CurrentEl.read(), 8, "CurrentEL is EL2");
    check!(field(Register::Pfr0, 8) != 0, "ID_AA64PFR0_EL1.EL2 shows EL2");
    check!(field(Register::Pfr0, 4) != 0 && field(Register::Pfr0, 0) != 0, "ID_AA64PFR0_EL1 shows EL1 and EL0");
    check!(field(Register::Pfr0, 24) != 0 || args::gic_version() != 3, "ID_AA64PFR0_EL1.GIC shows a GICv3");
    // Without FEAT_NV2 it is hidden.
    let vhe = field(Register::Mmfr1, 8);
    check!(vhe == 1 || vhe == 0 && !args::flag("vhe"), "ID_AA64MMFR1_EL1.VH shows VHE where it is to be had");
    check!(matches!(field(Register::Mmfr1, 4), 0 | 2), "ID_AA64MMFR1_EL1.VMIDBits is 8 or 16");
    let granule = field(Register::Mmfr0, 40);
    let stage_one = field(Register::Mmfr0, 28);
    check!(granule >= 2 || granule == 0 && stage_one != 15, "ID_AA64MMFR0_EL1.TGran4_2: 4 KiB pages at stage 2");
    check!(pa_bits() >= 36, "ID_AA64MMFR0_EL1.PARange is 36 bits at least");
    check_eq!(Register::Mpidr.read(), Register::Mpidr.read(), "MPIDR_EL1 does not change");
    check_eq!(Register::Mpidr.read() & 0xff_00ff_ffff, args::mpidr(0), "MPIDR_EL1 is that of the device tree");
    // Here the virtual ones are for EL1 alone.
    let (midr, mpidr) = (Register::Midr.read(), Register::Mpidr.read());
    Register::Vpidr.write(0x1234_5678);
    Register::Vmpidr.write(0x8000_0003);
    check_eq!(Register::Midr.read(), midr, "VPIDR_EL2 leaves EL2's MIDR_EL1 alone");
    check_eq!(Register::Mpidr.read(), mpidr, "VMPIDR_EL2 leaves EL2's MPIDR_EL1 alone");
    Register::Vpidr.write(midr);
    Register::Vmpidr.write(mpidr);
}

/// Writes patterns into the bits of `mask` and each of its bits alone, reads them, and puts back what was there.
fn keeps(register: Register, mask: u64) {
    let before = register.read();
    let rest = before & !mask;
    for pattern in [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, 0, !0] {
        register.write(rest | pattern & mask);
        check_eq!(register.read() & mask, pattern & mask, "{register:?} keeps a pattern");
    }
    let mut wrong = 0;
    for bit in (0..64).map(|n| 1u64 << n).filter(|bit| mask & bit != 0) {
        register.write(rest | bit);
        if register.read() & mask != bit {
            wrong |= bit;
        }
    }
    check_eq!(wrong, 0, "{register:?} keeps each bit");
    register.write(before);
}

fn hypervisor_registers() {
    let vhe = el2::is_vhe();
    // Bit by bit, for combinations turn others off: what is there in ARMv8.0, but for VI, VF and VSE, of which
    // interrupts speak, and E2H; and TID4, TICAB, TOCU where there is FEAT_EVT, not asked for here.
    keeps(Register::Hcr, 0x0000_0000_cfff_fe3f & !(1 << 29 | 1 << 28));
    let vmid = if vmid_bits() == 16 { 0xffff << 48 } else { 0xff << 48 };
    keeps(Register::Vttbr, vmid | ((1 << pa_bits().min(48)) - 1) & !0xfff);
    keeps(Register::Vtcr, 0x7_ffff);
    keeps(Register::Tpidr, !0);
    keeps(Register::Elr, !3);
    keeps(Register::Spsr, 0xf010_03cf);
    keeps(Register::Esr, 0xffff_ffff);
    keeps(Register::Far, !0);
    keeps(Register::Hpfar, 0xff_ffff_fff0);
    keeps(Register::Cptr, if vhe { 1 << 31 | 3 << 20 } else { 1 << 31 | 1 << 10 });
    keeps(Register::Mdcr, 0xf00);
    if field(Register::Pfr0, 0) == 2 {
        keeps(Register::Hstr, 0x0fef);
    }
    keeps(Register::Cnthctl, if vhe { 0xfff } else { 0xff });
    keeps(Register::Cntvoff, !0);
    keeps(Register::Vpidr, 0xffff_ffff);
    keeps(Register::Vmpidr, 0xff_00ff_ffff);
}

/// What the program itself lives on: the bits that do it no harm.
fn own_registers() {
    for register in [Register::Ttbr0, Register::Tcr, Register::Mair, Register::Sctlr] {
        // ID_AA64MMFR2_EL1.CnP
        if register != Register::Ttbr0 || field(Register::Mmfr2, 0) != 0 {
            keeps(register, register.free());
        }
    }
    for register in [Register::Vbar, Register::Ttbr0, Register::Tcr, Register::Mair, Register::Sctlr] {
        let held = register.read();
        register.write(held);
        check_eq!(register.read(), held, "{register:?} can be written with what it holds");
    }
    check_eq!(Register::Sctlr.read() & 0x1005, 0x1005, "SCTLR_EL2 has I, C and M set");
    let format = if el2::is_vhe() { 0x80_3519 } else { 0x8080_3519 };
    check_eq!(Register::Tcr.read() & 0xffff_ffff & !(7 << 16), format, "TCR_EL2 is as start.S wrote it");
    if el2::is_vhe() {
        keeps(Register::Ttbr1, 0x0000_ffff_ffff_f000);
        keeps(Register::Contextidr, 0xffff_ffff);
    }
}

fn timers() {
    keeps(Register::CnthpCval, !0);
    if el2::is_vhe() {
        keeps(Register::CnthvCval, !0);
    }
    let timers = [
        ("CNTHP", Register::CnthpCtl, Register::CnthpCval, Register::CnthpTval),
        ("CNTHV", Register::CnthvCtl, Register::CnthvCval, Register::CnthvTval),
    ];
    for (name, control, deadline, left) in timers.into_iter().take(if el2::is_vhe() { 2 } else { 1 }) {
        control.write(2);
        check_eq!(control.read() & 3, 2, "{name}_CTL_EL2 keeps IMASK");
        let now = Register::Cntpct.read();
        deadline.write(now + (1 << 40));
        control.write(3);
        check_eq!(control.read(), 3, "{name}_CTL_EL2: no ISTATUS before the deadline");
        deadline.write(now);
        check_eq!(control.read(), 7, "{name}_CTL_EL2: ISTATUS after the deadline");
        left.write(1 << 30);
        let (then, got) = (Register::Cntpct.read(), deadline.read());
        let near = got > now + (1 << 30) && got <= then + (1 << 30);
        check!(near, "{name}_TVAL_EL2 sets the deadline", "{got:#x} at {then:#x}");
        let read = left.read() as u32; // it is 32 bits
        check!(read <= 1 << 30 && read > 1 << 24, "{name}_TVAL_EL2 counts down", "{read:#x}");
        control.write(0);
        check_eq!(control.read() & 1, 0, "{name}_CTL_EL2 stops");
    }
}

/// How many list registers there are that this program has names for.
pub(crate) fn n_lists() -> u64 {
    ((Register::IchVtr.read() & 31) + 1).min(4)
}

fn interrupt_registers() {
    let vtr = Register::IchVtr.read();
    check!(vtr >> 29 >= 4 && vtr >> 26 & 7 >= 4, "ICH_VTR_EL2 shows 5 bits of priority", "{vtr:#x}");
    check_eq!(Register::IccSre.read() & 9, 9, "ICC_SRE_EL2 has SRE and Enable set");
    keeps(Register::IchHcr, 0x1cfe);
    keeps(Register::IchVmcr, 0xf800_0212);
    if vtr >> 26 & 7 == 4 {
        keeps(Register::IchAp1r0, 0xffff_ffff);
        keeps(Register::IchAp0r0, 0xffff_ffff);
    }
    let lists = [Register::IchLr0, Register::IchLr1, Register::IchLr2, Register::IchLr3];
    for list in lists.into_iter().take(n_lists() as usize) {
        // State, HW, group, 5 bits of priority, pINTID of 10 bits, vINTID of 16.
        keeps(list, 0xf0f8_03ff_0000_ffff);
    }
    let elrsr = Register::IchElrsr.read();
    check_eq!(elrsr, (1 << ((vtr & 31) + 1)) - 1, "ICH_ELRSR_EL2: list registers of zero are free");
    Register::IchLr0.write(1 << 62 | 1 << 60 | 0xa0 << 48 | 40);
    check_eq!(Register::IchElrsr.read(), elrsr & !1, "ICH_ELRSR_EL2: one that is pending is not");
    Register::IchLr0.write(1 << 41 | 1 << 60 | 40);
    check_eq!(Register::IchElrsr.read(), elrsr & !1, "ICH_ELRSR_EL2: nor is one that is to tell of its end");
    check_eq!(Register::IchEisr.read(), 1, "ICH_EISR_EL2: it has ended");
    Register::IchLr0.write(0);
    check_eq!(Register::IchEisr.read(), 0, "ICH_EISR_EL2: none has ended");
}

/// Which bits of a register of EL1's are looked at.
fn el1_mask(register: El1) -> u64 {
    match register {
        // M, A, C, SA, I, WXN: nothing runs at EL1 meanwhile.
        El1::Sctlr => 0x8_100f,
        El1::Cpacr => 3 << 20,
        El1::Ttbr0 | El1::Ttbr1 => 0xffff_ffff_f000 | 0xff << 48,
        El1::Tcr => 0xff_ff3f | 7 << 24,
        El1::Spsr => 0xf010_03cf,
        El1::Elr | El1::Vbar => !0xfff,
        El1::Far | El1::CntpCval | El1::CntvCval => !0,
        El1::Mair => 0xffff_ffff_ffff_ffff,
        El1::Esr | El1::Contextidr => 0xffff_ffff,
        El1::Cntkctl => 0x3ff,
        El1::CntpCtl | El1::CntvCtl => 3,
        El1::Afsr0 | El1::Afsr1 | El1::Amair => 0,
    }
}

/// The registers of the EL1 below, by the name that E2H gives them: all at once, then each against the others.
fn guest_registers() {
    for round in 0..3u64 {
        let pattern = |at: usize| (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 * 7);
        let before: [u64; El1::ALL.len()] = core::array::from_fn(|at| El1::ALL[at].read());
        for (at, register) in El1::ALL.iter().enumerate() {
            let mask = el1_mask(*register);
            register.write(before[at] & !mask | pattern(at) & mask);
        }
        for (at, register) in El1::ALL.iter().enumerate() {
            let mask = el1_mask(*register);
            check_eq!(register.read() & mask, pattern(at) & mask, "{register:?} of EL1 keeps a pattern");
            register.write(before[at]);
        }
    }
    for register in [Register::SpEl1, Register::SpEl0, Register::TpidrEl0, Register::TpidrroEl0] {
        keeps(register, !0);
    }
}

/// With E2H, EL1's names are EL2's registers, and EL1's own are left alone.
fn redirected() {
    let pairs = [
        (Register::NamedElr, Register::Elr, El1::Elr, !3),
        (Register::NamedSpsr, Register::Spsr, El1::Spsr, 0xf010_03cf),
        (Register::NamedEsr, Register::Esr, El1::Esr, 0xffff_ffff),
        (Register::NamedFar, Register::Far, El1::Far, !0),
        (Register::NamedMair, Register::Mair, El1::Mair, 0xffff_ffff_ffff_0000),
        (Register::NamedCpacr, Register::Cptr, El1::Cpacr, 3 << 20),
        (Register::NamedContextidr, Register::Contextidr, El1::Contextidr, 0xffff_ffff),
        (Register::NamedCntkctl, Register::Cnthctl, El1::Cntkctl, 0x3ff),
        (Register::NamedCntpCval, Register::CnthpCval, El1::CntpCval, !0),
        (Register::NamedCntvCval, Register::CnthvCval, El1::CntvCval, !0),
        (Register::NamedCntpCtl, Register::CnthpCtl, El1::CntpCtl, 2),
        (Register::NamedCntvCtl, Register::CnthvCtl, El1::CntvCtl, 2),
    ];
    for (named, real, below, mask) in pairs {
        let (before, before_below) = (real.read(), below.read());
        below.write(before_below & !mask | 0x2222_2222_2222_2222 & mask);
        named.write(before & !mask | 0x1111_1111_1111_1111 & mask);
        check_eq!(real.read() & mask, 0x1111_1111_1111_1111 & mask, "{named:?} writes {real:?}");
        real.write(before & !mask | 0x4444_4444_4444_4444 & mask);
        check_eq!(named.read() & mask, 0x4444_4444_4444_4444 & mask, "{named:?} reads {real:?}");
        check_eq!(below.read() & mask, 0x2222_2222_2222_2222 & mask, "{named:?} is not EL1's {below:?}");
        real.write(before);
        below.write(before_below);
    }
    let same = [
        (Register::NamedSctlr, Register::Sctlr),
        (Register::NamedTcr, Register::Tcr),
        (Register::NamedTtbr0, Register::Ttbr0),
        (Register::NamedVbar, Register::Vbar),
    ];
    for (named, real) in same {
        check_eq!(named.read(), real.read(), "{named:?} reads {real:?}");
    }
    let faults = el2::alias_faults();
    check!(faults == [false; 3], "the names of EL12 and EL02 are there with E2H", "{faults:?}");
}

/// Without E2H, EL1's names are EL1's registers, and EL2's own are left alone.
fn not_redirected() {
    let pairs = [
        (Register::NamedElr, Register::Elr, !3),
        (Register::NamedSpsr, Register::Spsr, 0xf010_03cf),
        (Register::NamedEsr, Register::Esr, 0xffff_ffff),
        (Register::NamedFar, Register::Far, !0),
        (Register::NamedMair, Register::Mair, 0xffff_ffff_ffff_0000),
        (Register::NamedCntpCval, Register::CnthpCval, !0),
        (Register::SpEl1, Register::Tpidr, !0),
    ];
    for (below, real, mask) in pairs {
        let (before, before_below) = (real.read(), below.read());
        below.write(before_below & !mask | 0x2222_2222_2222_2222 & mask);
        real.write(before & !mask | 0x1111_1111_1111_1111 & mask);
        check_eq!(below.read() & mask, 0x2222_2222_2222_2222 & mask, "{below:?} is not {real:?}");
        check_eq!(real.read() & mask, 0x1111_1111_1111_1111 & mask, "{real:?} is not {below:?}");
        real.write(before);
        below.write(before_below);
    }
    let faults = el2::alias_faults();
    check!(faults == [true; 3], "the names of EL12 and EL02 are UNDEFINED without E2H", "{faults:?}");
}
