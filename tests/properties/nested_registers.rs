//! The registers of a hypervisor's EL2 as it reads and writes them, with HCR_EL2.E2H and without: what it finds there, and what is on
//! the CPU meanwhile. The layouts are the Arm ARM's (D24.2), said by field.

use crate::exits::{here, model};
use crate::system_registers::{Encoding, VBAR, access, read, write};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::exit;
use flatland::machine::Machine;
use flatland::next::Next;
use flatland::vcpu::nested::{Guest, Nested, Own, World, page};
use harness::cpu::{Cpu, host, split};
use harness::model::Dice;

/// HCR_EL2.E2H.
const E2H: u64 = 1 << 34;
/// HCR_EL2.NV1.
const NV1: u64 = 1 << 43;

const CNTHCTL: Encoding = [3, 4, 14, 1, 0];
const TCR: Encoding = [3, 4, 2, 0, 2];
const CPTR: Encoding = [3, 4, 1, 1, 2];
const SCTLR: Encoding = [3, 4, 1, 0, 0];

/// EL2's registers that are EL1's on the CPU.
const PLACED: [(Encoding, El1); 11] = [
    (SCTLR, El1::Sctlr),
    (TCR, El1::Tcr),
    ([3, 4, 2, 0, 0], El1::Ttbr0),
    ([3, 4, 2, 0, 1], El1::Ttbr1),
    ([3, 4, 10, 2, 0], El1::Mair),
    ([3, 4, 10, 3, 0], El1::Amair),
    ([3, 4, 12, 0, 0], El1::Vbar),
    (CPTR, El1::Cpacr),
    ([3, 4, 13, 0, 1], El1::Contextidr),
    ([3, 4, 5, 1, 0], El1::Afsr0),
    ([3, 4, 5, 1, 1], El1::Afsr1),
];

/// ACTLR_EL2, MDCR_EL2, HSTR_EL2, HACR_EL2, HPFAR_EL2: nothing of EL1's corresponds.
const KEPT: [Encoding; 5] = [[3, 4, 1, 0, 1], [3, 4, 1, 1, 1], [3, 4, 1, 1, 3], [3, 4, 1, 1, 7], [3, 4, 6, 0, 4]];

/// A value that no other register is given.
fn value(n: usize) -> u64 {
    0x0123_4567_0000 + n as u64 * 0x1001
}

#[test]
fn each_register_of_virtual_el2_holds_what_is_written_to_it() {
    for vhe in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, false));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        let vcpu = &mut *vcpu;
        if vhe {
            split(vcpu).1.page.write(&cpu, page::HCR, E2H);
            // At the exit at which that is seen nothing is done: what trapped may mean something else now.
            vcpu.registers.esr = ec::ERET << 26 | 1 << 25;
            (vcpu.registers.pc, vcpu.registers.pstate) = (0x1000, psr::EL1H);
            assert_eq!(exit::handle(here, &cpu, vcpu), Next::Resume);
            assert!(split(vcpu).1.vhe && split(vcpu).1.guest().is_none());
            assert_eq!((vcpu.registers.pc, cpu.hcr() & (NV1 | E2H)), (0x1000, 0), "and the traps are those of a host");
        } else {
            assert_eq!(cpu.hcr() & NV1, NV1);
        }
        let all = || PLACED.iter().map(|(parts, _)| parts).chain(&KEPT).chain([&CNTHCTL]);
        for (n, parts) in all().enumerate() {
            assert!(write(here, &cpu, vcpu, *parts, value(n)), "{parts:?} may be written");
        }
        // An exception at `access` goes by VBAR_EL2, which it sets.
        cpu.set(El1::Vbar, VBAR);
        for (n, parts) in all().enumerate() {
            let expected = if vhe && *parts == [3, 4, 12, 0, 0] { VBAR } else { value(n) };
            assert_eq!(read(here, &cpu, vcpu, *parts), Some(expected), "{parts:?}, E2H {vhe}");
        }
        for (n, (parts, place)) in PLACED.iter().enumerate() {
            let expected = match place {
                El1::Vbar => VBAR,
                _ if vhe => value(n),
                // These follow from what they are without E2H: see below.
                El1::Sctlr | El1::Tcr | El1::Cpacr => continue,
                El1::Ttbr1 | El1::Contextidr => 0,
                _ => value(n),
            };
            assert_eq!(cpu.get(*place), expected, "{parts:?} on the CPU, E2H {vhe}");
        }
        let n = all().count() - 1;
        assert_eq!(cpu.get(El1::Cntkctl), if vhe { value(n) } else { 0 }, "CNTHCTL_EL2 on the CPU, E2H {vhe}");
    }
}

#[test]
fn a_change_of_e2h_moves_the_registers_and_back() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    let (cntkctl, cval) = (0x3, 1234);
    for (n, (parts, _)) in PLACED.iter().enumerate() {
        assert!(write(here, &cpu, vcpu, *parts, value(n)));
    }
    assert!(write(here, &cpu, vcpu, CNTHCTL, 0x107));
    // CNTHV_CVAL_EL2 and CNTHV_CTL_EL2.
    assert!(write(here, &cpu, vcpu, [3, 4, 14, 3, 2], cval) && write(here, &cpu, vcpu, [3, 4, 14, 3, 1], 3));
    cpu.set(El1::Cntkctl, cntkctl);
    for round in 0..2 {
        let nested = split(vcpu).1;
        nested.page.write(&cpu, page::HCR, E2H);
        // What the hypervisor has is what it wrote, whoever set VBAR_EL1 in between.
        cpu.set(El1::Vbar, nested.own(&cpu, Own::Vbar));
        assert!(nested.follow_e2h(&cpu) && nested.vhe && !nested.follow_e2h(&cpu));
        for (n, (parts, place)) in PLACED.iter().enumerate() {
            if *place != El1::Vbar {
                assert_eq!(cpu.get(*place), value(n), "{parts:?} with E2H, round {round}");
            }
        }
        assert_eq!((cpu.get(El1::Cntkctl), nested.read(&cpu, page::CNTKCTL)), (0x107, cntkctl));
        assert_eq!((cpu.get(El1::CntvCval), cpu.get(El1::CntvCtl)), (cval, 3), "CNTHV is CNTV");
        nested.page.write(&cpu, page::HCR, 0);
        // ISTATUS is no part of what is kept.
        cpu.set(El1::CntvCtl, 7);
        assert!(nested.follow_e2h(&cpu) && !nested.vhe && !nested.follow_e2h(&cpu));
        assert_eq!((cpu.get(El1::Cntkctl), nested.own(&cpu, Own::Cnthctl)), (cntkctl, 0x107));
        assert_eq!((nested.hv.cval, nested.hv.ctl, cpu.get(El1::CntvCtl)), (cval, 3, 0));
        for (n, (parts, place)) in PLACED.iter().enumerate() {
            if *place != El1::Vbar {
                assert_eq!(read(here, &cpu, vcpu, *parts), Some(value(n)), "{parts:?} without, round {round}");
            }
        }
        assert_eq!((cpu.get(El1::Ttbr1), cpu.get(El1::Contextidr)), (0, 0));
    }
}

#[test]
fn without_e2h_translation_is_that_of_one_range() {
    let mut dice = Dice::new(7);
    for _ in 0..1000 {
        let tcr = dice.roll();
        let of = |value: u64, low: u32, bits: u32| value >> low & ((1 << bits) - 1);
        let el1 = Nested::as_el1(Own::Tcr, tcr);
        // T0SZ; IRGN0, ORGN0, SH0, TG0; then where they are another: PS, TBI, HA, HD, HPD, TBID.
        let moves = [
            (0, 0, 6),
            (8, 8, 2),
            (10, 10, 2),
            (12, 12, 2),
            (14, 14, 2),
            (16, 32, 3),
            (20, 37, 1),
            (21, 39, 1),
            (22, 40, 1),
            (24, 41, 1),
            (29, 51, 1),
        ];
        let mut rest = el1;
        for (from, to, bits) in moves {
            assert_eq!(of(el1, to, bits), of(tcr, from, bits), "TCR_EL2 {tcr:#x}, bits from {from}");
            rest &= !(((1 << bits) - 1) << to);
        }
        // EPD1, T1SZ for 48 bits, TG1 for 4 KiB: nobody walks there. Nothing else.
        assert_eq!(rest, 1 << 23 | 16 << 16 | 2 << 30, "TCR_EL2 {tcr:#x}");
        // The bits of SCTLR_EL2 that are one without E2H (D24.2.175).
        let ones = [4, 5, 11, 16, 18, 22, 23, 28, 29].map(|bit| 1_u64 << bit).iter().sum::<u64>();
        assert_eq!(Nested::as_el1(Own::Sctlr, tcr), tcr | ones);
        // FPEN by TFP; SVE and SME never trap to EL1.
        let fpen = if tcr >> 10 & 1 == 0 { 3 } else { 0 };
        assert_eq!(Nested::as_el1(Own::Cptr, tcr), fpen << 20 | 3 << 16 | 3 << 24);
    }
}

#[test]
fn what_of_el2_is_not_there_is_undefined_and_what_is_fixed_stays() {
    for vhe in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, false));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        let vcpu = &mut *vcpu;
        let nested = split(vcpu).1;
        nested.page.write(&cpu, page::HCR, if vhe { E2H } else { 0 });
        nested.follow_e2h(&cpu);
        // Three list registers that are empty: bits of ICH_ELRSR_EL2. UIE, so that ICH_MISR_EL2.U is set with En.
        nested.lists = 3;
        nested.page.write(&cpu, page::ICH_HCR, 3);
        // RVBAR_EL2, ICH_VTR_EL2, ICH_MISR_EL2, ICH_EISR_EL2, ICH_ELRSR_EL2.
        let read_only = [
            ([3, 4, 12, 0, 1], 0),
            ([3, 4, 12, 11, 1], cpu.interface_type()),
            ([3, 4, 12, 11, 2], 2),
            ([3, 4, 12, 11, 3], 0),
            ([3, 4, 12, 11, 5], 0b111),
        ];
        for (parts, expected) in read_only {
            assert_eq!(read(here, &cpu, vcpu, parts), Some(expected), "{parts:?}");
            assert!(!write(here, &cpu, vcpu, parts, 0), "{parts:?} is read-only");
        }
        // RMR_EL2, and ICC_SRE_EL2: system registers, for lower levels, too, and no bypass.
        for (parts, expected) in [([3, 4, 12, 0, 2], 0), ([3, 4, 12, 9, 5], 0b1111)] {
            assert!(write(here, &cpu, vcpu, parts, u64::MAX) && write(here, &cpu, vcpu, parts, 0), "{parts:?}");
            assert_eq!(read(here, &cpu, vcpu, parts), Some(expected), "{parts:?}");
        }
        // ZCR_EL2, SMCR_EL2, TRFCR_EL2; ICH_VTR_EL2's neighbour; a fourth register of a timer; of another op0.
        let hidden: [Encoding; 6] =
            [[3, 4, 1, 2, 0], [3, 4, 1, 2, 6], [3, 4, 1, 2, 1], [3, 4, 12, 11, 6], [3, 4, 14, 2, 3], [2, 4, 1, 0, 0]];
        // Those of EL1 by the names that a hypervisor with E2H has for them: CNTKCTL_EL12, CNTP_CTL_EL02, CNTV_CTL_EL02.
        let of_hosts: [Encoding; 3] = [[3, 5, 14, 1, 0], [3, 5, 14, 2, 1], [3, 5, 14, 3, 1]];
        for is_read in [false, true] {
            for parts in hidden {
                assert!(!access(here, &cpu, vcpu, parts, 3, is_read), "{parts:?}, read: {is_read}");
            }
            for parts in of_hosts {
                assert_eq!(access(here, &cpu, vcpu, parts, 3, is_read), vhe, "{parts:?}, read: {is_read}, E2H {vhe}");
            }
        }
    }
}

/// Where a timer is by the architecture, whoever it is read by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// EL2's physical and virtual.
    Hp,
    Hv,
    /// EL1's.
    P,
    V,
}

#[test]
fn a_hypervisors_timers_are_told_apart_by_their_names() {
    // CRm, op1: CNTHP, CNTHV; then by the names of EL1, and those of EL1's with E2H.
    let names = [
        (2, 4, Some(Whose::Hp), Some(Whose::Hp)),
        (3, 4, Some(Whose::Hv), Some(Whose::Hv)),
        (2, 3, Some(Whose::P), Some(Whose::Hp)),
        // With E2H it does not trap: it is EL2's and on the CPU.
        (3, 3, Some(Whose::V), None),
        (2, 5, None, Some(Whose::P)),
        (3, 5, None, Some(Whose::V)),
    ];
    const OFFSET: u64 = 300;
    for vhe in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, false));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        let vcpu = &mut *vcpu;
        let nested = split(vcpu).1;
        nested.page.write(&cpu, page::HCR, if vhe { E2H } else { 0 });
        nested.page.write(&cpu, page::CNTVOFF, OFFSET);
        nested.follow_e2h(&cpu);
        cpu.pass(1000);
        for (n, (crm, op1, plain, host)) in names.into_iter().enumerate() {
            let Some(whose) = (if vhe { host } else { plain }) else { continue };
            let what = format!("{whose:?} by op1 {op1}, CRm {crm}, E2H {vhe}");
            let name = |op2| [3, op1, 14, crm, op2];
            let now = if whose == Whose::V { 1000 - OFFSET } else { 1000 };
            // CVAL, CTL with IMASK, then TVAL.
            let cval = now + 50 + n as u64;
            assert!(write(here, &cpu, vcpu, name(2), cval), "{what}");
            assert!(write(here, &cpu, vcpu, name(1), 0b011), "{what}");
            let found = |vcpu: &mut _| {
                let nested = split(vcpu).1;
                match whose {
                    Whose::Hp => (nested.hp.cval, nested.hp.ctl),
                    Whose::Hv if vhe => (cpu.get(El1::CntvCval), cpu.get(El1::CntvCtl)),
                    Whose::Hv => (nested.hv.cval, nested.hv.ctl),
                    Whose::P => (nested.read(&cpu, page::CNTP_CVAL), nested.read(&cpu, page::CNTP_CTL)),
                    Whose::V => (nested.read(&cpu, page::CNTV_CVAL), nested.read(&cpu, page::CNTV_CTL)),
                }
            };
            assert_eq!(found(vcpu), (cval, 3), "{what}");
            assert_eq!(read(here, &cpu, vcpu, name(2)), Some(cval), "{what}");
            assert_eq!(read(here, &cpu, vcpu, name(0)), Some(50 + n as u64), "{what}");
            assert_eq!(read(here, &cpu, vcpu, name(1)), Some(3), "{what}");
            assert!(write(here, &cpu, vcpu, name(0), 0xffff_ffff), "{what}");
            assert_eq!(found(vcpu).0, now - 1, "{what}");
            assert_eq!(read(here, &cpu, vcpu, name(1)), Some(7), "{what}: its condition is met");
            // Off again.
            assert!(write(here, &cpu, vcpu, name(1), 0) && write(here, &cpu, vcpu, name(2), 0), "{what}");
        }
        if vhe {
            // CNTKCTL_EL12 is not CNTKCTL_EL1, which is CNTHCTL_EL2.
            assert!(write(here, &cpu, vcpu, [3, 5, 14, 1, 0], 0x2aa));
            assert_eq!(read(here, &cpu, vcpu, [3, 5, 14, 1, 0]), Some(0x2aa));
            assert_eq!((split(vcpu).1.read(&cpu, page::CNTKCTL), cpu.get(El1::Cntkctl)), (0x2aa, 0));
        }
    }
}

#[test]
fn without_e2h_el1s_names_are_the_guests() {
    // Offsets of the registers that HCR_EL2.TVM traps (D8.11.3).
    let places = [
        ([3, 0, 1, 0, 0], 0x110),
        ([3, 0, 2, 0, 0], 0x200),
        ([3, 0, 2, 0, 1], 0x210),
        ([3, 0, 2, 0, 2], 0x120),
        ([3, 0, 5, 1, 0], 0x128),
        ([3, 0, 5, 1, 1], 0x130),
        ([3, 0, 5, 2, 0], 0x138),
        ([3, 0, 6, 0, 0], 0x220),
        ([3, 0, 10, 2, 0], 0x140),
        ([3, 0, 10, 3, 0], 0x148),
        ([3, 0, 13, 0, 1], 0x108),
    ];
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    for (n, (parts, _)) in places.into_iter().enumerate() {
        assert!(write(here, &cpu, vcpu, parts, value(n)), "{parts:?}");
    }
    for (n, (parts, offset)) in places.into_iter().enumerate() {
        assert_eq!(split(vcpu).1.read(&cpu, offset), value(n), "{parts:?}");
        assert_eq!(read(here, &cpu, vcpu, parts), Some(value(n)), "{parts:?}");
    }
}

/// Whatever was in the page, after a reset there is in it what registers of EL1 and EL2 have then, and else nothing.
#[test]
fn a_page_is_reset_with_all_that_is_in_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = split(&mut vcpu).1;
    (0..512).for_each(|n| nested.write(&cpu, n * 8, 0xdead_0000 + n));
    nested.reset_page(&cpu, 0x410f_d083, 0x8000_0003);
    for offset in (0..4096).step_by(8) {
        // VPIDR_EL2, VMPIDR_EL2, SCTLR_EL1; SCTLR_EL2, CPTR_EL2, CurrentEL, MIDR_EL1, MPIDR_EL1.
        let expected = match offset {
            0x88 | page::MIDR => 0x410f_d083,
            0x50 | page::MPIDR => 0x8000_0003,
            0x110 => 0x30d0_0800,
            0xc00 => 0x30c5_0830,
            0xc38 => 0x33ff,
            page::CURRENT_EL => 8,
            _ => 0,
        };
        assert_eq!(nested.read(&cpu, offset), expected, "{offset:#x}");
    }
}

/// Who takes an exception at EL1 from EL1 is told that it was EL2: a hypervisor, which runs there, and a guest that its hypervisor has believe
/// so (HCR_EL2.NV without NV1, or with NV2 and a page for it).
#[test]
fn el1_is_told_that_it_is_el2_where_it_takes_itself_for_that() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = split(&mut vcpu).1;
    let page = nested.page.0;
    for bits in 0..16_u64 {
        let [nv, nv1, nv2, has_page] = [0, 1, 2, 3].map(|n| bits >> n & 1 != 0);
        let hcr = u64::from(nv) << 42 | u64::from(nv1) << 43 | u64::from(nv2) << 45;
        nested.write(&cpu, page::HCR, hcr);
        nested.world = World::Guest(Guest { page: has_page.then_some(page), ..Guest::default() });
        let expected = nv && (!nv1 || nv2 && has_page);
        assert_eq!(nested.reports_el2(&cpu), expected, "NV {nv}, NV1 {nv1}, NV2 {nv2}, a page {has_page}");
        nested.world = World::Hypervisor;
        assert!(nested.reports_el2(&cpu));
    }
}
