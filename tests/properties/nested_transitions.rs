//! From a hypervisor to its guest and back: where an ERET leads, what is trapped of the guest, and whose timers, debug registers and
//! interrupt interface are on the CPU then. Expectations are those of the Arm ARM (D1.4, D12.2, J1.1) and of IHI 0069H 12.4.

use crate::exits::{VIRTUAL, begin, here, leave, model};
use flatland::addr::IntId;
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::arm::gic::gicr;
use flatland::exit;
use flatland::hwstate;
use flatland::hwstate::nested::{interfaces, lists, timers, traps};
use flatland::machine::Machine;
use flatland::next::Next;
use flatland::vcpu::Timer;
use flatland::vcpu::nested::{Guest, Nested, Own, World, page};
use flatland::vm::request;
use harness::cpu::{Cpu, host, split};
use harness::effort;
use harness::model::Dice;
use std::sync::atomic::Ordering;

/// HCR_EL2, by bit: VM, IMO, TGE, E2H.
const VM: u64 = 1;
const IMO: u64 = 1 << 4;
const TGE: u64 = 1 << 27;
const E2H: u64 = 1 << 34;
const NV2: u64 = 1 << 45;

const EL2T: u64 = 0b1000;
const EL2H: u64 = 0b1001;
const EL3H: u64 = 0b1101;

#[test]
fn an_eret_leads_where_the_architecture_lets_it() {
    let flags = psr::NZCV | psr::DAIF | psr::PAN;
    for aarch32 in [false, true] {
        for (e2h, tge) in [(false, false), (true, false), (false, true), (true, true)] {
            let modes = [psr::EL0T, psr::EL1T, psr::EL1H, EL2T, EL2H, EL3H, psr::AARCH32, psr::AARCH32 | 3, 0b0001];
            for mode in modes {
                let model = model();
                let cpu = Cpu::new(&model);
                let here = here(host(&model, true, aarch32));
                let mut vcpu = here.slot.vcpu.lock();
                let hcr = if e2h { E2H } else { 0 } | if tge { TGE } else { 0 };
                let nested = split(&mut vcpu).1;
                nested.page.write(&cpu, page::HCR, hcr);
                cpu.load(here, &vcpu);
                split(&mut vcpu).1.follow_e2h(&cpu);
                cpu.set(El1::Elr, 0x8888);
                cpu.set(El1::Spsr, flags | mode);
                (vcpu.registers.pc, vcpu.registers.pstate) = (0x4444, psr::EL1H);
                let what = format!("SPSR_EL2 mode {mode:#x}, E2H {e2h}, TGE {tge}, AArch32 {aarch32}");
                assert!(matches!(leave(&cpu, here, &mut vcpu, ec::ERET, 0), Next::Resume | Next::Reschedule), "{what}");
                assert_eq!(vcpu.registers.pc, 0x8888, "{what}");
                let is_host = e2h && tge;
                let is_known = match mode {
                    psr::EL0T | EL2T | EL2H => true,
                    // EL1 is not there under TGE.
                    psr::EL1T | psr::EL1H => !tge,
                    // 32 bits at EL0 alone, where there is such.
                    psr::AARCH32 => aarch32,
                    _ => false,
                };
                // EL0 under TGE without E2H has no EL1, and is no host's.
                let to_guest = is_known && !is_host && !matches!(mode, EL2T | EL2H);
                assert_eq!(split(&mut vcpu).1.guest().is_some(), to_guest, "{what}");
                let pstate = match mode {
                    // It stays at EL2, in an illegal state, which keeps the flags alone.
                    _ if !is_known => psr::NZCV | psr::DAIF | psr::EL1H | psr::IL,
                    EL2T => flags | psr::EL1T,
                    EL2H => flags | psr::EL1H,
                    _ => flags | mode,
                };
                assert_eq!(vcpu.registers.pstate, pstate, "{what}");
            }
        }
    }
}

#[test]
fn what_a_hypervisor_traps_of_its_guest_is_trapped_by_the_hardware() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let nested = split(&mut vcpu).1;
    // PTW, VF, VI, VSE, DC, TWI, TWE, TID0 to TID3, TSC, TIDCP, TACR, TSW, TPCP, TPU, TTLB, TVM, TGE, TDZ, TRVM, CD, ID.
    let passed = [2, 6, 7, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 30, 32, 33];
    // NV, NV1, AT; and NV2 with its page.
    let nested_bits = [42, 43, 44, 45];
    nested.vhe = false;
    let frame = nested.page.0;
    for with_page in [false, true] {
        let guest = Guest { page: with_page.then_some(frame), ..Guest::default() };
        for bit in 0..64 {
            nested.page.write(&cpu, page::HCR, 1 << bit);
            let is_passed = passed.contains(&bit) || nested_bits.contains(&bit) && (with_page || 1 << bit != NV2);
            let expected = if is_passed { 1 << bit } else { 0 };
            assert_eq!(traps::traps(&cpu, nested, &guest).hcr, expected, "bit {bit}, page {with_page}");
        }
        nested.page.write(&cpu, page::HCR, 0);
        nested.set_own(&cpu, Own::Mdcr, u64::MAX);
        // TDE, TDA, TDOSA, TDRA: what is about debug.
        assert_eq!(traps::traps(&cpu, nested, &guest).mdcr, 0xf << 8);
        assert_eq!(traps::traps(&cpu, nested, &guest).vncr, if with_page { frame.bits() } else { 0 });
    }
    // CPTR_EL2.TCPAC, CNTHCTL_EL2.EL1PCTEN, which are elsewhere with E2H; VPIDR_EL2.
    let guest = Guest::default();
    nested.page.write(&cpu, page::VPIDR, 0x1234);
    for (vhe, tcpac, counts) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
        nested.vhe = vhe;
        let (cptr, enable) = (if tcpac { 1 << 31 } else { 0 }, u64::from(counts));
        let (shift, other) = if vhe { (10, 0) } else { (0, 10) };
        // Where it is not looked for it says the contrary.
        nested.set_own(&cpu, Own::Cptr, if vhe { !cptr } else { cptr });
        nested.set_own(&cpu, Own::Cnthctl, if vhe { u64::from(!counts) } else { enable });
        nested.hypervisor_el1.set(El1::Cpacr, if vhe { cptr } else { !cptr });
        nested.hypervisor_el1.set(El1::Cntkctl, enable << shift | u64::from(!counts) << other);
        let found = traps::traps(&cpu, nested, &guest);
        assert_eq!((found.cpacr, found.counter, found.vpidr), (tcpac, !counts, 0x1234), "E2H {vhe}");
    }
}

#[test]
fn a_list_register_of_a_guests_is_its_hypervisors_in_all_but_hardware() {
    let (pending, active, hw, eoi) = (1 << 62, 1 << 63, 1 << 61, 1 << 41);
    let mut dice = Dice::new(3);
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = split(&mut vcpu).1;
    nested.lists = 4;
    for _ in 0..effort(1000) {
        nested.world = World::Guest(Guest { lends_interface: true, ..Guest::default() });
        // INTID, priority, group; of hardware the physical one, else EOI.
        let lists: Vec<u64> = (0..4)
            .map(|n| {
                let state = dice.pick(&[0, pending, active, pending | active]);
                let rest = dice.pick(&[0, eoi, hw | (40 + n) << 32]);
                state | rest | dice.below(2) << 60 | dice.below(32) << 51 | (32 + n)
            })
            .collect();
        for (n, lr) in lists.iter().enumerate() {
            nested.page.write(&cpu, page::ICH_LR + n as u64 * 8, *lr);
        }
        nested.page.write(&cpu, page::ICH_HCR, u64::MAX);
        lists::lend(&cpu, nested);
        let control = cpu.lists.borrow().1;
        // En, UIE, LRENPIE, NPIE, VGrp0EIE to VGrp1DIE; TC, TALL0, TALL1, TDIR; EOIcount. Not TSEI, vSGIEOICount, DVIM.
        assert_eq!(control, 0xff | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 0x1f << 27);
        let used = lists.iter().rposition(|lr| lr >> 62 != 0).map_or(0, |at| at + 1);
        assert_eq!(nested.lent, used, "{lists:x?}");
        for (n, lr) in lists.iter().enumerate().take(used) {
            let expected = match lr {
                lr if lr >> 62 == 0 => 0,
                // Its end is ours to see; the interrupt behind it is the hypervisor's, not the board's.
                lr if lr & hw != 0 => lr & !(hw | 0x1fff << 32) | eoi,
                lr => *lr,
            };
            assert_eq!(cpu.lists.borrow().0[n], expected, "{lr:x}");
        }
        // What has no state on the CPU is nothing there, whatever was in it before.
        nested.page.write(&cpu, page::ICH_HCR, 1);
        lists::lend(&cpu, nested);
        // The guest takes, ends, or leaves each.
        let mut now = lists.clone();
        for (n, lr) in now.iter_mut().enumerate().take(used).filter(|(_, lr)| **lr >> 62 != 0) {
            let state = dice.pick(&[0, *lr & (pending | active), active]);
            *lr = *lr & !(pending | active) | state;
            let on_cpu = &mut cpu.lists.borrow_mut().0[n];
            *on_cpu = *on_cpu & !(pending | active) | state;
        }
        // It ended three that were in no list.
        cpu.lists.borrow_mut().1 |= 3 << 27;
        let mut vgic = here.vm.vgic.lock();
        let _ = lists::sync(&mut vgic, flatland::addr::VcpuId(0), nested, &cpu);
        for (n, lr) in now.iter().enumerate() {
            assert_eq!(nested.page.read(&cpu, page::ICH_LR + n as u64 * 8), *lr, "{n} of {lists:x?}");
        }
        assert_eq!(nested.page.read(&cpu, page::ICH_HCR), 1 | 3 << 27);
    }
}

#[test]
fn the_end_of_a_guests_interrupt_ends_its_hypervisors() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    let vcpu_id = vcpu.id;
    let nested = split(&mut vcpu).1;
    nested.lists = 2;
    nested.world = World::Guest(Guest { lends_interface: true, ..Guest::default() });
    let mut vgic = here.vm.vgic.lock();
    // PPIs 20 and 21 are active.
    let _ = vgic.redist_write(vcpu_id, gicr::SGI_FRAME + 0x300, 4, 3 << 20);
    let is_active = |vgic: &flatland::vgic::Vgic| vgic.redist_read(vcpu_id, gicr::SGI_FRAME + 0x300, 4) >> 20;
    for (n, physical) in [(0, 20), (1, 21)] {
        nested.page.write(&cpu, page::ICH_LR + n * 8, 1 << 63 | 1 << 61 | physical << 32 | (40 + n));
    }
    nested.page.write(&cpu, page::ICH_HCR, 1);
    lists::lend(&cpu, nested);
    let _ = lists::sync(&mut vgic, vcpu_id, nested, &cpu);
    assert_eq!(is_active(&vgic), 3, "nothing has ended");
    cpu.lists.borrow_mut().0[1] &= !(3 << 62);
    let _ = lists::sync(&mut vgic, vcpu_id, nested, &cpu);
    assert_eq!(is_active(&vgic), 1, "the second has");
    // It tells of that once.
    assert_eq!(cpu.lists.borrow().0[1], 0);
}

/// What a guest ended has come again for another vCPU of its hypervisor's, which gets to know though the guest's world ends meanwhile.
#[test]
fn who_waits_for_what_a_guest_ended_gets_to_know_whatever_else_comes() {
    for is_due in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, false));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        begin(&cpu, here, &mut vcpu, VIRTUAL | IMO);
        let other = &here.vm.slots[1];
        {
            let mut vgic = here.vm.vgic.lock();
            // All of group 1 and on; SPI 33 is active here, on, and routed to the other vCPU, for which it is pending.
            for (offset, size, value) in
                [(0, 4, 3), (0x84, 4, 2), (0x104, 4, 2), (0x304, 4, 2), (0x6108, 8, 1), (0x204, 4, 2)]
            {
                let _ = vgic.dist_write(vcpu.id, offset, size, value);
            }
            let sgis = gicr::SGI_FRAME;
            for (offset, value) in [(0x80, 0xffff_ffff), (0x100, 8), (0x200, if is_due { 8 } else { 0 })] {
                let _ = vgic.redist_write(vcpu.id, sgis + offset, 4, value);
            }
        }
        let (common, nested) = split(&mut vcpu);
        common.interface.vmcr = 0xf8 << 24 | 2;
        nested.world = World::Guest(Guest { lends_interface: true, ..Guest::default() });
        nested.page.write(&cpu, page::ICH_LR, 1 << 63 | 1 << 61 | 33 << 32 | 40);
        nested.page.write(&cpu, page::ICH_HCR, 1);
        lists::lend(&cpu, nested);
        cpu.lists.borrow_mut().0[0] = 0;
        other.requests.store(0, Ordering::Relaxed);
        hwstate::refill(here, &cpu, &mut vcpu);
        assert_eq!(vcpu.nested().unwrap().guest().is_none(), is_due);
        assert!(other.requests.load(Ordering::Relaxed) != 0, "an interrupt is due: {is_due}");
    }
}

#[test]
fn the_first_timer_that_is_not_on_the_cpu_is_the_deadline() {
    const NOW: u64 = 1000;
    const NEVER: u64 = u64::MAX;
    /// ENABLE, and with IMASK.
    const ON: u64 = 1;
    const MASKED: u64 = 3;
    // EL1's virtual, whose counter is 200 behind, EL2's virtual and physical, EL1's physical: control and compare value.
    let off = (0, 2000);
    let cases = [
        ([off, off, off, off], None),
        ([(ON, 1300), off, off, off], Some(1500)),
        ([off, (ON, 1500), off, off], Some(1500)),
        ([off, off, (ON, 1500), off], Some(1500)),
        ([off, off, off, (ON, 1500)], Some(1500)),
        ([(MASKED, 1300), (MASKED, 1300), (MASKED, 1300), (MASKED, 1300)], None),
        // What is over is no deadline, nor is what is over just now.
        ([(ON, 800), (ON, 1000), (ON, 1000), (ON, 999)], None),
        ([(ON, 801), (ON, 1000), off, off], Some(1001)),
        ([(ON, 3000), (ON, 1600), (ON, 1700), (ON, 1800)], Some(1600)),
        ([(ON, NEVER), off, off, off], Some(NEVER)),
    ];
    for (is_guest, vhe) in [(false, false), (false, true), (true, false), (true, true)] {
        for (n, (registers, deadline)) in cases.into_iter().enumerate() {
            let model = model();
            let cpu = Cpu::new(&model);
            let here = here(host(&model, true, false));
            let mut vcpu = here.slot.vcpu.lock();
            cpu.load(here, &vcpu);
            let (common, nested) = split(&mut vcpu);
            nested.world = if is_guest { World::Guest(Guest::default()) } else { World::Hypervisor };
            nested.vhe = vhe;
            let [virt, hv, hp, phys] = registers;
            // Of the CPU's own the hardware knows.
            nested.page.write(&cpu, page::CNTVOFF, 200);
            nested.page.write(&cpu, page::CNTV_CTL, if is_guest { ON } else { virt.0 });
            nested.page.write(&cpu, page::CNTV_CVAL, if is_guest { 1100 } else { virt.1 });
            nested.hv = if vhe && !is_guest { Timer { ctl: ON, cval: 1100 } } else { Timer { ctl: hv.0, cval: hv.1 } };
            nested.hp = Timer { ctl: hp.0, cval: hp.1 };
            // EL1's physical is in the page for the hypervisor alone.
            common.cntp = if is_guest { Timer { ctl: phys.0, cval: phys.1 } } else { Timer { ctl: ON, cval: 1050 } };
            nested.page.write(&cpu, page::CNTP_CTL, if is_guest { ON } else { phys.0 });
            nested.page.write(&cpu, page::CNTP_CVAL, if is_guest { 1050 } else { phys.1 });
            let left: Vec<_> = registers
                .into_iter()
                .enumerate()
                .filter(|(at, (ctl, _))| *ctl == ON && !(*at == 0 && is_guest) && !(*at == 1 && vhe && !is_guest))
                .map(|(at, (_, cval))| if at == 0 { cval.saturating_add(200) } else { cval })
                .collect();
            let expected = left.iter().copied().filter(|at| *at > NOW).min();
            if !is_guest && !vhe {
                assert_eq!(expected, deadline, "case {n} says so itself");
            }
            let what = format!("case {n}, guest {is_guest}, E2H {vhe}");
            assert_eq!(timers::deadline(common, nested, &cpu, NOW), expected, "{what}");
            // Our own timer need not be set anew if it is set to that or earlier.
            cpu.pass(NOW);
            for watched in [0, 1, 1000, 1001, 1499, 1500, 1501, 2500, NEVER] {
                nested.watched = watched;
                let next = if left.iter().any(|at| *at < watched) { Next::Reschedule } else { Next::Resume };
                assert_eq!(timers::watch(&cpu, common, nested), next, "{what}, watched until {watched}");
            }
        }
    }
}

#[test]
fn a_vcpu_that_was_taken_off_wakes_for_the_timer_it_had_on_the_cpu() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    let (common, nested) = split(&mut vcpu);
    nested.page.write(&cpu, page::CNTVOFF, 300);
    common.saved.set(El1::CntvCval, 1000);
    for (is_guest, vhe, deadline) in
        [(true, false, Some(1300)), (true, true, Some(1300)), (false, true, Some(1000)), (false, false, None)]
    {
        nested.world = if is_guest { World::Guest(Guest::default()) } else { World::Hypervisor };
        nested.vhe = vhe;
        // ENABLE, IMASK, ISTATUS.
        for (ctl, is_armed) in [(1, true), (5, true), (0, false), (3, false), (7, false), (4, false)] {
            common.saved.set(El1::CntvCtl, ctl);
            let found = timers::saved_deadline(common, nested, &cpu);
            assert_eq!(found, deadline.filter(|_| is_armed), "guest {is_guest}, E2H {vhe}, control {ctl}");
        }
    }
}

#[test]
fn a_hypervisor_whose_guest_has_the_interface_is_interrupted_by_what_its_own_lets_through() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let (common, nested) = split(&mut vcpu);
    nested.page.write(&cpu, page::HCR, IMO | VM);
    let mut vgic = here.vm.vgic.lock();
    // Group 1 is on, SGI 3 is of it, enabled and at priority 0x80.
    let _ = vgic.dist_write(common.id, 0, 4, 3);
    for (offset, value) in [(0x80, 0xffff_ffff), (0x100, 8), (0x400, 0x8080_8080)] {
        let _ = vgic.redist_write(common.id, gicr::SGI_FRAME + offset, 4, value);
    }
    // ICH_VMCR_EL2: VPMR, VENG1.
    for (mask, enables) in [(0xf8, 2), (0x88, 2), (0x80, 2), (0xf8, 1), (0, 0)] {
        common.interface.vmcr = mask << 24 | enables;
        let _ = vgic.redist_write(common.id, gicr::SGI_FRAME + 0x280, 4, 8);
        assert!(!interfaces::is_due_beside_guest(&vgic, common));
        let _ = vgic.redist_write(common.id, gicr::SGI_FRAME + 0x200, 4, 8);
        let is_due = mask > 0x80 && enables & 2 != 0;
        assert_eq!(interfaces::is_due_beside_guest(&vgic, common), is_due, "priority mask {mask:#x}, {enables}");
    }
    assert_eq!(IntId(3).0, 3);
}

#[test]
fn debug_exceptions_are_in_force_for_the_world_that_they_come_from() {
    /// MDSCR_EL1.KDE and MDE; MDCR_EL2.TDE.
    const KDE: u64 = 1 << 13;
    const MDE: u64 = 1 << 15;
    const TDE: u64 = 1 << 8;
    // To EL2 go debug exceptions with TDE or TGE; from EL2 they are only taken there.
    let cases = [
        (false, 0, 0, false),
        (false, TDE, 0, true),
        (false, 0, TGE | E2H, true),
        (true, 0, 0, true),
        (true, TDE, 0, true),
    ];
    for (to_guest, mdcr, hcr, in_force) in cases {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, false));
        let mut vcpu = here.slot.vcpu.lock();
        let (common, nested) = split(&mut vcpu);
        common.debug.mdscr = MDE | KDE;
        common.debug.os_lock = false;
        nested.page.write(&cpu, page::HCR, hcr);
        cpu.load(here, &vcpu);
        let nested = split(&mut vcpu).1;
        nested.follow_e2h(&cpu);
        cpu.armed.set(None);
        let what = format!("guest {to_guest}, MDCR_EL2 {mdcr:#x}, HCR_EL2 {hcr:#x}");
        if to_guest {
            nested.set_own(&cpu, Own::Mdcr, mdcr);
            cpu.set(El1::Spsr, psr::EL1H);
            let _ = leave(&cpu, here, &mut vcpu, ec::ERET, 0);
            assert!(split(&mut vcpu).1.guest().is_some());
        } else {
            // MSR MDCR_EL2, X3.
            vcpu.registers.x[3] = mdcr;
            vcpu.registers.esr = ec::SYSREG << 26 | 1 << 25 | 3 << 20 | 1 << 17 | 4 << 14 | 1 << 10 | 3 << 5 | 1 << 1;
            assert_eq!(exit::handle(here, &cpu, &mut vcpu), Next::Resume);
        }
        assert_eq!(cpu.get(El1::Mdscr) & MDE != 0, in_force, "{what}");
        assert_eq!(cpu.armed.get(), in_force.then_some(!to_guest), "{what}");
    }
}

#[test]
fn a_guest_has_a_stage_2_of_its_hypervisors_where_that_turns_it_on() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let own = cpu.hcr();
    for hcr in [0, VM, IMO, VM | IMO, 1 << 31, VM | 1 << 31] {
        let nested = split(&mut vcpu).1;
        nested.page.write(&cpu, page::HCR, hcr);
        nested.page.write(&cpu, page::VTCR, 32 | 1 << 6 | 2 << 16);
        cpu.set(El1::Spsr, psr::EL1H);
        here.slot.requests.store(0, Ordering::Relaxed);
        assert!(matches!(leave(&cpu, here, &mut vcpu, ec::ERET, 0), Next::Resume | Next::Reschedule));
        let guest = split(&mut vcpu).1.guest().expect("it runs");
        assert_eq!((guest.shadow.is_some(), guest.lends_interface), (hcr & VM != 0, hcr & IMO != 0), "{hcr:#x}");
        // The hypervisor's lists have to be filled again where they stay.
        let refills = here.slot.requests.swap(0, Ordering::Relaxed) & request::REFILL != 0;
        assert_eq!(refills, hcr & IMO == 0, "{hcr:#x}");
        // HVC is its hypervisor's.
        assert_eq!(leave(&cpu, here, &mut vcpu, ec::HVC64, 0), Next::Resume);
        assert!(split(&mut vcpu).1.guest().is_none());
        // TVM and TRVM were to see it set E2H.
        assert_eq!(cpu.hcr(), own & !(1 << 26 | 1 << 30), "{hcr:#x}");
    }
}

#[test]
fn an_interface_is_kept_with_all_its_active_priorities() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    let nested = split(&mut vcpu).1;
    // ICH_VTR_EL2.PREbits says how many there are of each: those beyond are not touched.
    for (bits, n) in [(4, 1), (5, 2), (6, 4), (7, 4)] {
        cpu.vtr.set(bits << 26);
        keeps_so_many(&cpu, nested, n);
    }
}

fn keeps_so_many(cpu: &Cpu<'_>, nested: &Nested, n: usize) {
    let offsets = |n: u64| [page::ICH_AP0R + n * 8, page::ICH_AP1R + n * 8];
    for at in 0..4 {
        for (group, offset) in offsets(at).into_iter().enumerate() {
            nested.page.write(cpu, offset, 0x100 * (group as u64 + 1) + at);
        }
    }
    nested.page.write(cpu, page::ICH_VMCR, 0x1234);
    let mut interface = nested.guest_interface(cpu);
    assert_eq!(interface.vmcr, 0x1234);
    for at in 0..4 {
        let expected = if at < n { [0x100 + at as u32, 0x200 + at as u32] } else { [0; 2] };
        assert_eq!([interface.ap0r[at], interface.ap1r[at]], expected, "{at}");
    }
    for at in 0..4 {
        (interface.ap0r[at], interface.ap1r[at]) = (0x500 + at as u32, 0x600 + at as u32);
    }
    interface.vmcr = 0x4321;
    nested.keep_interface(cpu, &interface);
    assert_eq!(nested.page.read(cpu, page::ICH_VMCR), 0x4321);
    for at in 0..4 {
        let expected = if at < n as u64 { [0x500 + at, 0x600 + at] } else { [0x100 + at, 0x200 + at] };
        assert_eq!(offsets(at).map(|offset| nested.page.read(cpu, offset)), expected, "{at}");
    }
}

#[test]
fn what_both_worlds_share_is_found_by_the_other_and_timers_stay_apart() {
    for vhe in [false, true] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, false));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        let nested = split(&mut vcpu).1;
        nested.page.write(&cpu, page::HCR, if vhe { E2H } else { 0 });
        nested.follow_e2h(&cpu);
        let shared = [El1::SpEl0, El1::TpidrEl0, El1::TpidrroEl0, El1::TpidrEl1, El1::Par, El1::Csselr];
        for (n, register) in shared.into_iter().enumerate() {
            cpu.set(register, 0x100 + n as u64);
        }
        cpu.set(El1::Ttbr0, 0x1000);
        // EL2's virtual timer, which is on the CPU with E2H; and CNTKCTL_EL1, or CNTHCTL_EL2 in its place.
        cpu.set(El1::CntvCval, 77);
        cpu.set(El1::CntvCtl, 3);
        cpu.set(El1::Cntkctl, 0x3);
        nested.page.write(&cpu, page::CNTV_CVAL, 99);
        nested.page.write(&cpu, page::TTBR0, 0x2000);
        cpu.set(El1::Spsr, psr::EL1H);
        let _ = leave(&cpu, here, &mut vcpu, ec::ERET, 0);
        assert!(split(&mut vcpu).1.guest().is_some());
        assert_eq!((cpu.get(El1::Ttbr0), cpu.get(El1::CntvCval)), (0x2000, 99), "E2H {vhe}");
        for (n, register) in shared.into_iter().enumerate() {
            assert_eq!(cpu.get(register), 0x100 + n as u64, "{register:?}, E2H {vhe}");
            cpu.set(register, 0x200 + n as u64);
        }
        let kernel = cpu.get(El1::Cntkctl);
        assert_eq!(kernel == 0x3, !vhe, "without E2H it is the guest's in any case");
        cpu.set(El1::Cntkctl, 0x101);
        cpu.set(El1::Ttbr0, 0x3000);
        cpu.set(El1::CntvCtl, 1);
        let _ = leave(&cpu, here, &mut vcpu, ec::HVC64, 0);
        let nested = split(&mut vcpu).1;
        assert!(nested.guest().is_none());
        for (n, register) in shared.into_iter().enumerate() {
            assert_eq!(cpu.get(register), 0x200 + n as u64, "{register:?} back, E2H {vhe}");
        }
        assert_eq!(cpu.get(El1::Ttbr0), 0x1000, "E2H {vhe}");
        assert_eq!((nested.page.read(&cpu, page::TTBR0), nested.page.read(&cpu, page::CNTV_CTL) & 1), (0x3000, 1));
        let timer = if vhe { (77, 3) } else { (cpu.get(El1::CntvCval), 0) };
        assert_eq!((cpu.get(El1::CntvCval), cpu.get(El1::CntvCtl)), timer, "E2H {vhe}");
        assert_eq!(cpu.get(El1::Cntkctl), if vhe { 0x3 } else { 0x101 }, "E2H {vhe}");
    }
}

/// The line of the timer that is on the CPU follows from that, and from nothing else.
#[test]
fn the_line_of_the_timer_on_the_cpu_is_what_the_cpu_says() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    begin(&cpu, here, &mut vcpu, VIRTUAL);
    let (common, nested) = split(&mut vcpu);
    let mut vgic = here.vm.vgic.lock();
    // INTIDs 27 and 28.
    for (world, vhe, line) in [
        (World::Guest(Guest::default()), false, 1 << 11),
        (World::Guest(Guest::default()), true, 1 << 11),
        (World::Hypervisor, true, 1 << 12),
    ] {
        (nested.world, nested.vhe) = (world, vhe);
        for (ctl, is_high) in [(0, false), (1, false), (5, true), (7, false), (4, false), (5, true)] {
            cpu.set(El1::CntvCtl, ctl);
            timers::refresh(&mut vgic, common, nested, &cpu);
            assert_eq!(nested.lines & (1 << 11 | 1 << 12), if is_high { line } else { 0 }, "E2H {vhe}, {ctl:#b}");
        }
    }
}
