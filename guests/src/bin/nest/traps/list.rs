//! The registers and instructions that trap by one bit each.

use super::{Bit, PAC, read, trap, write};
use crate::l2::Vm;
use crate::ops::Sys;
use rt::el2::{El1, Register};
use rt::println;

/// TVM and TRVM: what a guest's memory looks like.
pub(crate) fn control_registers(vm: &mut Vm) {
    for (name, register, sys) in [
        ("SCTLR_EL1", El1::Sctlr, Sys(3, 0, 1, 0, 0)),
        ("TTBR0_EL1", El1::Ttbr0, Sys(3, 0, 2, 0, 0)),
        ("TTBR1_EL1", El1::Ttbr1, Sys(3, 0, 2, 0, 1)),
        ("TCR_EL1", El1::Tcr, Sys(3, 0, 2, 0, 2)),
        ("AFSR0_EL1", El1::Afsr0, Sys(3, 0, 5, 1, 0)),
        ("AFSR1_EL1", El1::Afsr1, Sys(3, 0, 5, 1, 1)),
        ("ESR_EL1", El1::Esr, Sys(3, 0, 5, 2, 0)),
        ("FAR_EL1", El1::Far, Sys(3, 0, 6, 0, 0)),
        ("MAIR_EL1", El1::Mair, Sys(3, 0, 10, 2, 0)),
        ("AMAIR_EL1", El1::Amair, Sys(3, 0, 10, 3, 0)),
        ("CONTEXTIDR_EL1", El1::Contextidr, Sys(3, 0, 13, 0, 1)),
    ] {
        let before = register.read();
        read(vm, name, Bit::Hcr(30), sys);
        // What is written without the trap is an address, and nothing for SCTLR_EL1, which is in use.
        if register != El1::Sctlr {
            write(vm, name, Bit::Hcr(26), sys);
        }
        register.write(before);
    }
}

/// TID1, TID2, TID3, TID4: who the guest thinks it is.
pub(crate) fn identity(vm: &mut Vm) {
    read(vm, "REVIDR_EL1", Bit::Hcr(16), Sys(3, 0, 0, 0, 6));
    read(vm, "AIDR_EL1", Bit::Hcr(16), Sys(3, 1, 0, 0, 7));
    let caches = [
        ("CCSIDR_EL1", Sys(3, 1, 0, 0, 0)),
        ("CLIDR_EL1", Sys(3, 1, 0, 0, 1)),
        ("CSSELR_EL1", Sys(3, 2, 0, 0, 0)),
        ("CTR_EL0", Sys(3, 3, 0, 0, 1)),
    ];
    for (name, sys) in caches {
        read(vm, name, Bit::Hcr(17), sys);
    }
    // FEAT_EVT
    if Register::Mmfr2.read() >> 56 & 15 != 0 {
        for (name, sys) in caches.into_iter().take(3) {
            read(vm, name, Bit::Hcr(49), sys);
        }
        write(vm, "IC IALLUIS", Bit::Hcr(50), Sys(1, 0, 7, 1, 0));
        write(vm, "IC IALLU", Bit::Hcr(52), Sys(1, 0, 7, 5, 0));
        write(vm, "DC CVAU", Bit::Hcr(52), Sys(1, 3, 7, 11, 1));
        if Register::Mmfr2.read() >> 56 & 15 >= 2 {
            write(vm, "TLBI VMALLE1IS", Bit::Hcr(54), Sys(1, 0, 8, 3, 0));
            write(vm, "TLBI VMALLE1OS", Bit::Hcr(55), Sys(1, 0, 8, 1, 0));
        }
    } else {
        println!("nest: traps: HCR_EL2.TID4, TICAB, TOCU, TTLBIS, TTLBOS skipped: no FEAT_EVT");
    }
    for (name, crm, n) in [
        ("ID registers of AArch32", 1, 8),
        ("more ID registers of AArch32", 2, 8),
        ("MVFR", 3, 3),
        ("ID_AA64PFR", 4, 2),
        ("ID_AA64DFR", 5, 2),
        ("ID_AA64ISAR", 6, 2),
        ("ID_AA64MMFR", 7, 3),
    ] {
        for op2 in 0..n {
            read(vm, name, Bit::Hcr(18), Sys(3, 0, 0, crm, op2));
        }
    }
}

/// TPCP, TPU, TSW, TTLB, TDZ: caches and TLBs.
pub(crate) fn maintenance(vm: &mut Vm) {
    for (name, bit, sys) in [
        ("DC CIVAC", 23, Sys(1, 3, 7, 14, 1)),
        ("DC CVAC", 23, Sys(1, 3, 7, 10, 1)),
        ("DC IVAC", 23, Sys(1, 0, 7, 6, 1)),
        ("IC IVAU", 24, Sys(1, 3, 7, 5, 1)),
        ("IC IALLU", 24, Sys(1, 0, 7, 5, 0)),
        ("IC IALLUIS", 24, Sys(1, 0, 7, 1, 0)),
        ("DC CVAU", 24, Sys(1, 3, 7, 11, 1)),
        ("DC CSW", 22, Sys(1, 0, 7, 10, 2)),
        ("DC CISW", 22, Sys(1, 0, 7, 14, 2)),
        ("DC ISW", 22, Sys(1, 0, 7, 6, 2)),
        ("TLBI VMALLE1", 25, Sys(1, 0, 8, 7, 0)),
        ("TLBI VAE1", 25, Sys(1, 0, 8, 7, 1)),
        ("TLBI ASIDE1", 25, Sys(1, 0, 8, 7, 2)),
        ("TLBI VAAE1", 25, Sys(1, 0, 8, 7, 3)),
        ("TLBI VALE1", 25, Sys(1, 0, 8, 7, 5)),
        ("TLBI VMALLE1IS", 25, Sys(1, 0, 8, 3, 0)),
        ("TLBI VAE1IS", 25, Sys(1, 0, 8, 3, 1)),
        ("TLBI VAALE1IS", 25, Sys(1, 0, 8, 3, 7)),
    ] {
        write(vm, name, Bit::Hcr(bit), sys);
    }
    // Zeroing needs Normal memory: the guest's has to be so by HCR_EL2.DC.
    vm.hcr |= 1 << 12;
    write(vm, "DC ZVA", Bit::Hcr(28), Sys(1, 3, 7, 4, 1));
    vm.hcr &= !(1 << 12);
}

/// TACR, TIDCP, TERR, APK, API.
pub(crate) fn others(vm: &mut Vm) {
    read(vm, "ACTLR_EL1", Bit::Hcr(21), Sys(3, 0, 1, 0, 1));
    read(vm, "an IMPLEMENTATION DEFINED register", Bit::Hcr(20), Sys(3, 0, 15, 0, 0));
    read(vm, "another IMPLEMENTATION DEFINED register", Bit::Hcr(20), Sys(3, 3, 11, 15, 7));
    write(vm, "an IMPLEMENTATION DEFINED instruction", Bit::Hcr(20), Sys(1, 0, 15, 0, 0));
    write(vm, "another IMPLEMENTATION DEFINED instruction", Bit::Hcr(20), Sys(1, 7, 11, 15, 7));
    // ID_AA64PFR0_EL1.RAS
    if Register::Pfr0.read() >> 28 & 15 != 0 {
        read(vm, "ERRIDR_EL1", Bit::Hcr(36), Sys(3, 0, 5, 3, 0));
    }
    // ID_AA64ISAR1_EL1.APA and API, ID_AA64ISAR2_EL1.APA3
    if Register::Isar1.read() & 0xff0 != 0 || rt::read_register!("S3_0_C0_C6_2") >> 12 & 15 != 0 {
        read(vm, "APIAKeyLo_EL1", Bit::NotHcr(40), Sys(3, 0, 2, 1, 0));
        let sctlr = El1::Sctlr.read();
        El1::Sctlr.write(sctlr | 1 << 31);
        // PACIA x0, x1
        trap(vm, "PACIA", Bit::NotHcr(41), 0xdac1_0020, PAC, 0);
        El1::Sctlr.write(sctlr);
    } else {
        println!("nest: traps: pointer authentication skipped: there is none");
    }
}

/// ICH_HCR_EL2: TC, TALL0, TALL1, TDIR; and SGIs, which always come.
pub(crate) fn interrupts(vm: &mut Vm) {
    let bit = |n| Bit::Set(Register::IchHcr, n);
    for (name, n, is_read, sys) in [
        ("ICC_PMR_EL1", 10, true, Sys(3, 0, 4, 6, 0)),
        ("ICC_CTLR_EL1", 10, true, Sys(3, 0, 12, 12, 4)),
        ("ICC_RPR_EL1", 10, true, Sys(3, 0, 12, 11, 3)),
        ("ICC_DIR_EL1", 10, false, Sys(3, 0, 12, 11, 1)),
        ("ICC_IAR0_EL1", 11, true, Sys(3, 0, 12, 8, 0)),
        ("ICC_EOIR0_EL1", 11, false, Sys(3, 0, 12, 8, 1)),
        ("ICC_HPPIR0_EL1", 11, true, Sys(3, 0, 12, 8, 2)),
        ("ICC_BPR0_EL1", 11, true, Sys(3, 0, 12, 8, 3)),
        ("ICC_AP0R0_EL1", 11, true, Sys(3, 0, 12, 8, 4)),
        ("ICC_IGRPEN0_EL1", 11, true, Sys(3, 0, 12, 12, 6)),
        ("ICC_IAR1_EL1", 12, true, Sys(3, 0, 12, 12, 0)),
        ("ICC_EOIR1_EL1", 12, false, Sys(3, 0, 12, 12, 1)),
        ("ICC_HPPIR1_EL1", 12, true, Sys(3, 0, 12, 12, 2)),
        ("ICC_BPR1_EL1", 12, true, Sys(3, 0, 12, 12, 3)),
        ("ICC_AP1R0_EL1", 12, true, Sys(3, 0, 12, 9, 0)),
        ("ICC_IGRPEN1_EL1", 12, true, Sys(3, 0, 12, 12, 7)),
    ] {
        if is_read {
            read(vm, name, bit(n), sys)
        } else {
            write(vm, name, bit(n), sys)
        }
        crate::lists::clear();
    }
    // ICH_VTR_EL2.TDS
    if Register::IchVtr.read() >> 19 & 1 != 0 {
        write(vm, "ICC_DIR_EL1", bit(14), Sys(3, 0, 12, 11, 1));
    } else {
        println!("nest: traps: ICH_HCR_EL2.TDIR skipped: ICH_VTR_EL2 has none");
    }
    super::sgis(vm);
    let before = Register::IccSre.read();
    Register::IccSre.write(before & !8);
    let is_fixed = Register::IccSre.read() & 8 != 0;
    Register::IccSre.write(before);
    if is_fixed {
        println!("nest: traps: ICC_SRE_EL2.Enable skipped: it reads as one");
    } else {
        read(vm, "ICC_SRE_EL1", Bit::Clear(Register::IccSre, 8), Sys(3, 0, 12, 12, 5));
    }
}
