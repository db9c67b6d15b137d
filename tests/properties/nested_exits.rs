//! What a hypervisor's guest does and what comes of it: which exits are its hypervisor's, and what that finds when they come to its
//! EL2. The expectations are the Arm ARM's (D1.3, D19.2), said another way than the code does.

use crate::exits::{
    LEAF, VIRTUAL, begin, eret, here, leave, map_outer, model, outer_tables, ram, runs_guest, turn_on, write,
};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::{Kind, psr};
use flatland::arm::gic::Interface;
use flatland::devices::UART;
use flatland::exit::{self, nested::forward};
use flatland::frames::{Order, Use};
use flatland::hwstate::nested::{lists, timers, transition, traps};
use flatland::machine::Machine;
use flatland::next::Next;
use flatland::vcpu::Timer;
use flatland::vcpu::nested::{Guest, Own, World, page};
use harness::cpu::{Cpu, host, shown, split};

/// HCR_EL2.
const TWI: u64 = 1 << 13;
const TWE: u64 = 1 << 14;
const TSC: u64 = 1 << 19;
const TVM: u64 = 1 << 26;
const TGE: u64 = 1 << 27;
const HCD: u64 = 1 << 29;
const TRVM: u64 = 1 << 30;
const E2H: u64 = 1 << 34;
const NV: u64 = 1 << 42;
const NV1: u64 = 1 << 43;
/// SCTLR_ELx.SPAN.
const SPAN: u64 = 1 << 23;
const VBAR: u64 = 0x8000;

#[test]
fn an_exception_of_a_guest_comes_to_its_hypervisor_as_from_a_lower_level() {
    // The guest's PSTATE, and where in the vectors that is.
    let from = [
        (psr::EL0T, 0x400),
        (psr::EL1T, 0x400),
        (psr::EL1H, 0x400),
        (psr::AARCH32, 0x600),
        (psr::AARCH32 | psr::NZCV, 0x600),
        (psr::EL1H | psr::PAN, 0x400),
    ];
    let kinds = [(Kind::Sync, 0), (Kind::Irq, 0x80), (Kind::SError, 0x180)];
    for (pstate, group) in from {
        for (kind, offset) in kinds {
            for (vhe, tge, span) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
                let model = model();
                let cpu = Cpu::new(&model);
                let here = here(host(&model, true, true));
                let mut vcpu = here.slot.vcpu.lock();
                cpu.load(here, &vcpu);
                let (common, nested) = split(&mut vcpu);
                common.has_pan = true;
                (nested.world, nested.vhe) = (World::Guest(Guest::default()), vhe);
                nested.page.write(&cpu, page::HCR, if vhe { E2H } else { 0 } | if tge { TGE } else { 0 });
                nested.hypervisor_el1.set(El1::Vbar, VBAR);
                nested.hypervisor_el1.set(El1::Sctlr, if span { SPAN } else { 0 });
                (common.registers.pc, common.registers.pstate) = (0x1234, pstate);
                transition::exception(here, &cpu, common, nested, kind, None);
                let what = format!("{kind:?} from {pstate:#x}, E2H {vhe}, TGE {tge}, SPAN {span}");
                assert!(nested.guest().is_none(), "{what}");
                assert_eq!(common.registers.pc, VBAR + group + offset, "{what}");
                assert_eq!((cpu.get(El1::Elr), cpu.get(El1::Spsr)), (0x1234, pstate), "{what}");
                // SPAN is a host's alone: for another hypervisor PAN stays.
                let sets = vhe && tge && !span;
                let pan = if sets { psr::PAN } else { pstate & psr::PAN };
                let kept = pstate & psr::NZCV;
                assert_eq!(common.registers.pstate, kept | pan | psr::DAIF | psr::EL1H, "{what}");
            }
        }
    }
}

#[test]
fn the_vectors_say_whether_pan_stays() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = split(&mut vcpu).1;
    for (hcr, own) in [(0, 0), (0, SPAN), (TGE, SPAN), (E2H | TGE, 0), (E2H | TGE, SPAN), (E2H, SPAN)] {
        nested.vhe = hcr & E2H != 0;
        nested.page.write(&cpu, page::HCR, hcr);
        cpu.set(El1::Sctlr, own | 1);
        cpu.set(El1::Vbar, VBAR);
        let stays = hcr & (E2H | TGE) != E2H | TGE || own == SPAN;
        assert_eq!(nested.vectors(&cpu), (VBAR, 1 | if stays { SPAN } else { 0 }), "HCR_EL2 {hcr:#x}, SPAN {own:#x}");
    }
}

#[test]
fn an_exit_belongs_to_the_hypervisor_that_asked_for_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    // A conditional WFI: CV and COND are set.
    let cond = 1 << 24 | 0xe << 20;
    let (tde, breakpoint, svc) = (1 << 8, 0x30, 0x15);
    // Class, syndrome, HCR_EL2, MDCR_EL2.TDE, whether it is.
    let cases = [
        (ec::WFX, 0, TWI, 0, true),
        (ec::WFX, cond, TWI, 0, true),
        (ec::WFX, 1, TWI, 0, false),
        (ec::WFX, cond | 1, TWI, 0, false),
        (ec::WFX, 0, TWE, 0, false),
        (ec::WFX, cond, TWE, 0, false),
        (ec::WFX, 1, TWE, 0, true),
        (ec::WFX, cond | 1, TWE, 0, true),
        (ec::WFX, 0, TGE, 0, false),
        (ec::HVC64, 7, 0, 0, true),
        (ec::HVC64, 7, HCD, 0, false),
        (ec::SMC64, 7, 0, 0, false),
        (ec::SMC64, 7, TSC, 0, true),
        (ec::ERET, 0, 0, 0, false),
        (ec::ERET, 0, NV, 0, true),
        (breakpoint, 0, 0, 0, false),
        (breakpoint, 0, 0, tde, true),
        (breakpoint, 0, TGE, 0, true),
        (svc, 0, 0, 0, false),
        (svc, 0, TGE, 0, true),
        // FP, by CPTR_EL2.TFP, which is set below.
        (ec::FP, 0, 0, 0, true),
        (ec::FP, 0, TGE, 0, true),
    ];
    for (class, iss, hcr, mdcr, is_its) in cases {
        vcpu.registers.esr = class << 26 | 1 << 25 | iss;
        let nested = vcpu.nested_mut().unwrap();
        (nested.world, nested.vhe) = (World::Guest(Guest::default()), false);
        nested.page.write(&cpu, page::HCR, hcr);
        nested.set_own(&cpu, Own::Mdcr, mdcr);
        nested.set_own(&cpu, Own::Cptr, 1 << 10);
        let found = forward::belongs(&cpu, &vcpu, vcpu.nested().unwrap());
        assert_eq!(found, is_its, "class {class:#x}, ISS {iss:#x}, HCR_EL2 {hcr:#x}, MDCR_EL2 {mdcr:#x}");
    }
}

#[test]
fn a_guests_fp_traps_as_cptr_el2_says() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = split(&mut vcpu).1;
    let tfp = 1 << 10;
    // Other bits of the register are not about FP.
    for other in [0, 1 << 31, 1 << 28, !(3 << 20) & !tfp] {
        for fpen in 0..4 {
            nested.vhe = true;
            nested.set_own(&cpu, Own::Cptr, if fpen == 3 { tfp } else { 0 });
            nested.hypervisor_el1.set(El1::Cpacr, other | fpen << 20 | tfp);
            assert_eq!(traps::traps_fp(&cpu, nested), fpen != 3, "CPTR_EL2 {other:#x}, FPEN {fpen}");
        }
        for on in [0, tfp] {
            nested.vhe = false;
            nested.set_own(&cpu, Own::Cptr, other | on | 3 << 20);
            nested.hypervisor_el1.set(El1::Cpacr, if on == 0 { 0 } else { 3 << 20 });
            assert_eq!(traps::traps_fp(&cpu, nested), on != 0, "CPTR_EL2 {other:#x}, TFP {on:#x}");
        }
    }
}

#[test]
fn a_hypervisor_without_e2h_is_watched_until_its_first_guest() {
    let model = model();
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = split(&mut vcpu).1;
    let watched = NV1 | TVM | TRVM;
    for (vhe, settled, traps) in [(false, false, watched), (false, true, NV1), (true, false, 0), (true, true, 0)] {
        (nested.vhe, nested.settled) = (vhe, settled);
        let found = nested.traps_of_hypervisor(0x410f_d083);
        assert_eq!(found.hcr & watched, traps, "E2H {vhe}, settled {settled}");
        // PTW, TTLB, NV, AT, NV2.
        assert_eq!(found.hcr & !watched, 1 << 2 | 1 << 25 | 1 << 42 | 1 << 44 | 1 << 45);
        assert_eq!((found.vpidr, found.vncr), (0x410f_d083, nested.page.0.bits()));
    }
}

#[test]
fn an_hvc_that_its_hypervisor_forbids_is_undefined_to_a_guest() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let (common, nested) = split(&mut vcpu);
    (nested.world, nested.vhe) = (World::Guest(Guest::default()), false);
    nested.page.write(&cpu, page::HCR, HCD);
    cpu.set(El1::Vbar, VBAR);
    // PC is behind it.
    (common.registers.pc, common.registers.pstate) = (0x1004, psr::EL1H);
    common.registers.esr = ec::HVC64 << 26 | 1 << 25;
    assert_eq!(exit::handle(here, &cpu, &mut vcpu), Next::Resume);
    let (common, nested) = split(&mut vcpu);
    assert!(nested.guest().is_some(), "its hypervisor is not concerned");
    assert_eq!((common.registers.pc, cpu.get(El1::Elr)), (VBAR + 0x200, 0x1000));
    assert_eq!(cpu.get(El1::Esr) >> 26, 0, "an unknown reason");
}

#[test]
fn what_a_guest_left_in_its_interface_is_kept_when_it_was_lent_one() {
    for lends in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, true));
        let mut vcpu = here.slot.vcpu.lock();
        let (_, nested) = split(&mut vcpu);
        nested.world = World::Guest(Guest { lends_interface: lends, ..Guest::default() });
        nested.lists = 4;
        nested.lent = 3;
        nested.page.write(&cpu, page::ICH_VMCR, 0x5555);
        lists::put_guests_away(&cpu, nested);
        // What the model's CPU has is an interface after reset.
        let kept = if lends { Interface::default().vmcr } else { 0x5555 };
        assert_eq!((nested.lent, nested.page.read(&cpu, page::ICH_VMCR)), (if lends { 0 } else { 3 }, kept));
    }
}

#[test]
fn a_timer_in_the_page_is_compared_without_wrapping() {
    /// ENABLE; ISTATUS is bit 2.
    const ENABLE: u64 = 1;
    let far = u64::MAX;
    for offset in [0, 1 << 40, far - 5] {
        for (cval, count, met) in [
            (0, 0, true),
            (1000, 999, false),
            (1000, 1000, true),
            (far, 1000, false),
            (0, 1000, true),
            (999, far, true),
        ] {
            let model = model();
            let cpu = Cpu::new(&model);
            let here = here(host(&model, true, true));
            let mut vcpu = here.slot.vcpu.lock();
            let (common, nested) = split(&mut vcpu);
            (nested.world, nested.vhe) = (World::Hypervisor, false);
            nested.page.write(&cpu, page::CNTVOFF, offset);
            nested.page.write(&cpu, page::CNTV_CTL, ENABLE);
            nested.page.write(&cpu, page::CNTV_CVAL, cval);
            cpu.pace.set(0_u64.wrapping_add(offset).wrapping_add(count));
            timers::refresh(&mut here.vm.vgic.lock(), common, nested, &cpu);
            let status = nested.page.read(&cpu, page::CNTV_CTL) >> 2 & 1 != 0;
            assert_eq!(status, met, "{count} against {cval}, with an offset of {offset:#x}");
        }
    }
}

#[test]
fn each_timer_has_its_line_and_so_has_the_maintenance_interrupt() {
    let fires = Timer { ctl: 1, cval: 0 };
    // Each alone, then all: virtual, EL2's, EL2's virtual, physical, maintenance; INTIDs 27, 26, 28, 30, 25.
    for on in [1, 2, 4, 8, 16, 31, 0_u16] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, true));
        let mut vcpu = here.slot.vcpu.lock();
        let (common, nested) = split(&mut vcpu);
        let timer = |bit: u16| if on & bit != 0 { fires } else { Timer::default() };
        nested.world = World::Hypervisor;
        nested.page.write(&cpu, page::CNTV_CTL, timer(1).ctl);
        (nested.hp, nested.hv) = (timer(2), timer(4));
        nested.page.write(&cpu, page::CNTP_CTL, timer(8).ctl);
        // En and UIE, and nothing in the lists.
        nested.page.write(&cpu, page::ICH_HCR, if on & 16 != 0 { 3 } else { 1 });
        let lines = [27, 26, 28, 30, 25].into_iter().enumerate();
        let lines = lines.fold(0, |lines, (bit, intid)| lines | (on >> bit & 1) << (intid - 16));
        timers::refresh(&mut here.vm.vgic.lock(), common, nested, &cpu);
        assert_eq!(nested.lines, lines, "{on:#b}");
    }
}

/// A guest's guest that comes to a device of ours, as its hypervisor maps it there, has it as the hypervisor would.
#[test]
fn a_guests_guest_reaches_a_device_of_ours_that_is_mapped_to_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    begin(&cpu, here, &mut vcpu, VIRTUAL);
    outer_tables(&cpu, here);
    map_outer(&cpu, here, 5, UART, 3);
    eret(&cpu, here, &mut vcpu, 0x1000, psr::EL1H);
    assert!(runs_guest(&vcpu));
    let _ = shown(here.host);
    for byte in *b"x\n" {
        vcpu.registers.x[1] = byte.into();
        (vcpu.registers.far, vcpu.registers.hpfar) = (5 << 12, 5 << 4);
        let pc = vcpu.registers.pc;
        // ISV, 4 bytes of W1, written; a translation fault at level 3, or 1, as it is filled or was not.
        let iss = 1 << 24 | 2 << 22 | 1 << 16 | 1 << 6 | 0b0111;
        assert_eq!(leave(&cpu, here, &mut vcpu, ec::DABT_LOWER, iss), Next::Resume);
        assert!(runs_guest(&vcpu), "its hypervisor is not asked");
        assert_eq!(vcpu.registers.pc, pc + 4);
    }
    assert_eq!(shown(here.host), "x\n");
}

/// AT while there is no memory for a table on the way says that a table is missing, in the walk of stage 1: whoever asks asks again.
#[test]
fn an_address_that_no_memory_can_be_had_for_is_not_there_just_now() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    begin(&cpu, here, &mut vcpu, VIRTUAL);
    outer_tables(&cpu, here);
    for n in 0..3 {
        map_outer(&cpu, here, n, ram(20 + n), 3);
    }
    write(&cpu, here, ram(20), 1 << 12 | 3);
    write(&cpu, here, ram(21), 2 << 12 | 3);
    write(&cpu, here, ram(22) + 8 * 5, 5 << 12 | LEAF);
    map_outer(&cpu, here, 5, ram(9), 3);
    // The guest's stage 1 is on: it ran before.
    eret(&cpu, here, &mut vcpu, 0x1000, psr::EL1H);
    turn_on(&cpu, 0);
    let _ = leave(&cpu, here, &mut vcpu, ec::HVC64, 0);
    assert!(!runs_guest(&vcpu));
    while let Some(frame) = here.host.pool.lock().take(Order::PAGE, here.vm.id, Use::Hypervisor) {
        std::mem::forget(frame);
    }
    vcpu.registers.x[0] = 5 << 12;
    // AT S12E1R.
    let iss = 1 << 20 | 4 << 17 | 4 << 14 | 7 << 10 | 8 << 1;
    assert_eq!(leave(&cpu, here, &mut vcpu, ec::SYSREG, iss), Next::Resume);
    let par = cpu.get(El1::Par);
    // F, FST of a translation fault, PTW, S.
    assert_eq!((par & 1, par >> 3 & 0xf, par >> 8 & 3), (1, 1, 3), "{par:#x}");
}
