//! Who is told that an interrupt waits: what one vCPU ends may have come again for another that it is routed to by then, and
//! sleeps.

use crate::exits::{here, leave, model};
use flatland::addr::{IntId, VcpuId};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::gic::{gicd, gicr, hcr};
use flatland::host::Here;
use flatland::hwstate::{lists, nested, refill};
use flatland::machine::Machine;
use flatland::next::Next;
use flatland::vcpu::Timer;
use flatland::vcpu::nested::{Guest, World, page};
use flatland::vm::request;
use harness::cpu::{Cpu, host, split};
use std::sync::atomic::Ordering::Relaxed;

/// An edge-triggered SPI.
const SPI: IntId = IntId(40);
/// The word of GICD_ISENABLER that has it.
const GICD_ISENABLER1: u64 = 0x104;
const STATE: u64 = 0b11 << 62;
const ACTIVE: u64 = 0b10 << 62;

fn write(here: Here<'_>, offset: u64, bytes: u8, value: u64) {
    // The second vCPU's accesses, whose lists are empty.
    let kicks = here.vm.vgic.lock().dist_write(VcpuId(1), offset, bytes, value);
    assert!(kicks.into_iter().count() <= 2);
}

fn pend(here: Here<'_>) {
    let _ = here.vm.vgic.lock().pend(VcpuId(0), SPI);
}

/// The distributor on, and the SPI enabled and routed to the first vCPU.
fn prepare(here: Here<'_>) {
    write(here, gicd::CTLR, 4, 3);
    write(here, gicd::ICFGR + 8, 4, 2 << 16);
    write(here, GICD_ISENABLER1, 4, 1 << 8);
}

/// The SPI goes to the second vCPU from now on, and comes.
fn comes_elsewhere(here: Here<'_>) {
    write(here, gicd::IROUTER + 8 * 40, 8, 1);
    pend(here);
    here.vm.slot(VcpuId(1)).unwrap().requests.store(0, Relaxed);
}

fn is_told(here: Here<'_>) -> bool {
    here.vm.slot(VcpuId(1)).unwrap().requests.load(Relaxed) & request::REFILL != 0
}

#[test]
fn what_a_vcpu_ended_before_it_sleeps_wakes_the_one_it_goes_to_now() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    prepare(here);
    pend(here);
    refill(here, &cpu, &mut vcpu);
    // Taken, come again for the other, ended, and to sleep.
    assert_ne!(cpu.lists.borrow().0[0] & STATE, 0, "it is in no list");
    cpu.lists.borrow_mut().0[0] ^= STATE;
    comes_elsewhere(here);
    cpu.lists.borrow_mut().0[0] &= !STATE;
    assert_eq!(leave(&cpu, here, &mut vcpu, ec::WFX, 0), Next::WaitForInterrupt);
    assert!(!lists::wakes(here, &cpu, &mut vcpu), "nothing is left for this one");
    assert!(is_told(here), "nobody told the other");
}

#[test]
fn an_end_that_no_list_knows_of_is_counted_once() {
    /// GICR_ISACTIVER0.
    const ISACTIVER: u64 = gicr::SGI_FRAME + 0x300;
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, true));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let kicks = here.vm.vgic.lock().redist_write(VcpuId(0), ISACTIVER, 4, 3 << 20);
    assert!(kicks.into_iter().count() <= 2);
    // One was ended that is in no list, and the next is to be told of: EOIcount, LRENPIE.
    cpu.lists.borrow_mut().1 = hcr::EN | hcr::LRENPIE | 1 << hcr::EOI_COUNT_SHIFT;
    let _ = lists::wakes(here, &cpu, &mut vcpu);
    assert_eq!(cpu.lists.borrow().1, hcr::EN, "its maintenance interrupt comes while it waits");
    let left = here.vm.vgic.lock().redist_read(VcpuId(0), ISACTIVER, 4);
    assert_eq!(left.count_ones(), 1);
    refill(here, &cpu, &mut vcpu);
    assert_eq!(here.vm.vgic.lock().redist_read(VcpuId(0), ISACTIVER, 4), left, "an end was counted twice");
}

#[test]
fn what_a_guests_guest_ended_wakes_the_one_it_goes_to_now() {
    type Look = fn(Here<'_>, &Cpu<'_>, &mut flatland::vcpu::Vcpu);
    let looks: [(&str, Look); 3] = [
        ("before it sleeps", |here, m, vcpu| assert!(!lists::wakes(here, m, vcpu))),
        ("as its lists are filled", |here, m, vcpu| refill(here, m, vcpu)),
        ("as its hypervisor gets the interface", |here, m, vcpu| {
            let (common, nested) = split(vcpu);
            nested::interfaces::take_back(here, m, common, nested);
        }),
    ];
    for (when, look) in looks {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = here(host(&model, true, true));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        prepare(here);
        // The hypervisor took it, dropped its priority, and gives it to its guest by a list register with HW.
        pend(here);
        refill(here, &cpu, &mut vcpu);
        cpu.lists.borrow_mut().0[0] ^= STATE;
        assert_eq!(cpu.lists.borrow().0[0] & STATE, ACTIVE);
        let (common, nested) = split(&mut vcpu);
        nested::interfaces::put_own_away(here, &cpu, common, nested);
        nested.world = World::Guest(Guest { lends_interface: true, ..Guest::default() });
        nested.lists = 4;
        let virtual_one = 0b01 << 62 | 1 << 61 | u64::from(SPI.0) << 32 | 50;
        nested.page.write(&cpu, page::ICH_LR, virtual_one);
        nested.page.write(&cpu, page::ICH_HCR, 1);
        nested::lists::lend(&cpu, nested);
        assert_ne!(cpu.lists.borrow().0[0] & STATE, 0, "it is in no list of the guest's");
        comes_elsewhere(here);
        cpu.lists.borrow_mut().0[0] &= !STATE;
        look(here, &cpu, &mut vcpu);
        assert!(is_told(here), "nobody told the other {when}");
    }
}

/// Who sleeps is woken when the first of its timers fires that will: the virtual one by its own counter, unless its interrupt is active
/// already; the physical one, which is emulated, unless it has fired.
#[test]
fn who_sleeps_is_woken_by_the_first_of_its_timers() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = here(host(&model, false, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.pass(10_000);
    let now = cpu.now();
    here.vm.offset.store(300, Relaxed);
    let (enabled, masked) = (1, 3);
    for (virt, is_active, phys, expected) in [
        (None, false, None, None),
        (Some((enabled, now + 500)), false, None, Some(now + 800)),
        (Some((enabled, now + 500)), true, None, None),
        (Some((masked, now + 500)), false, None, None),
        // It has come; the vCPU is woken at once.
        (Some((enabled, now - 500)), false, None, Some(now - 200)),
        (None, false, Some((enabled, now + 1)), Some(now + 1)),
        (None, false, Some((enabled, now)), None),
        (None, false, Some((enabled, now - 1)), None),
        (None, false, Some((masked, now + 1)), None),
        (Some((enabled, now + 500)), false, Some((enabled, now + 700)), Some(now + 700)),
        (Some((enabled, now + 500)), false, Some((enabled, now + 900)), Some(now + 800)),
        (Some((enabled, now + 500)), true, Some((enabled, now + 900)), Some(now + 900)),
    ] {
        let (ctl, cval) = virt.unwrap_or_default();
        vcpu.saved.set(El1::CntvCtl, ctl);
        vcpu.saved.set(El1::CntvCval, cval);
        vcpu.timer_active = is_active;
        let (ctl, cval) = phys.unwrap_or_default();
        vcpu.cntp = Timer { ctl, cval };
        let found = flatland::hwstate::timers::sleep_deadline(here.vm, &vcpu, &cpu);
        assert_eq!(found, expected, "{virt:?}, active {is_active}, {phys:?} at {now}");
    }
}
