//! Two virtual interrupt interfaces on one: the hypervisor's, which [`crate::vgic`] fills, and the one that it gives its
//! guest by its own ICH registers, which lie in its page (IHI 0069H 12.4).
//!
//! A list register of the hypervisor's that is tied to an interrupt of its own (HW) becomes one that tells us of its end, and
//! we end the hypervisor's interrupt then.

use crate::addr::{IntId, VcpuId};
use crate::arm::gic::{Interface, hcr};
use crate::machine::Machine;
use crate::next::Kicks;
use crate::vcpu::nested::{Nested, page};
use crate::vgic::Vgic;
use core::sync::atomic::Ordering::Relaxed;

/// `ICH_LR<n>_EL2`: State, HW, and without HW: EOI.
const STATE: u64 = 0b11 << 62;
const PENDING: u64 = 1 << 62;
const HW: u64 = 1 << 61;
const EOI: u64 = 1 << 41;
/// pINTID, bits 44:32.
const PHYSICAL: u64 = 0x1fff << 32;
/// EOIcount.
const COUNT: u64 = 0x1f << hcr::EOI_COUNT_SHIFT;
/// What conditions raise the maintenance interrupt.
const CONDITIONS: u64 = 0xfe;
/// What of ICH_HCR_EL2 a hypervisor may set for its guest: En, the conditions, TC, TALL0, TALL1, TDIR, EOIcount.
const ALLOWED: u64 = (hcr::EN | hcr::TC | hcr::TALL0 | hcr::TALL1 | hcr::TDIR) as u64 | CONDITIONS | COUNT;

/// Puts the guest's interface onto the CPU, if the hypervisor gives it one.
pub fn lend<M: Machine>(m: &M, nested: &mut Nested) {
    if !nested.lends_interface() {
        return;
    }
    m.load_interface(&nested.guest_interface(m));
    nested.lent = 0;
    let page = nested.page;
    for (n, lr) in nested.lr.iter_mut().enumerate().take(usize::from(nested.lists)) {
        *lr = in_hardware(page.read(m, page::ICH_LR + n as u64 * 8));
        if *lr != 0 {
            nested.lent = n + 1;
        }
    }
    let control = page.read(m, page::ICH_HCR) & ALLOWED;
    // It has 32 bits.
    m.write_lists(nested.lr.get(..nested.lent).unwrap_or(&[]), control as u32);
}

/// What the hardware gets for a list register of the hypervisor's. One that is done tells of its end no more.
const fn in_hardware(lr: u64) -> u64 {
    if lr & STATE == 0 {
        0
    } else if lr & HW != 0 {
        lr & !(HW | PHYSICAL) | EOI
    } else {
        lr
    }
}

/// Reads the guest's lists back into the page, and ends interrupts of the hypervisor's that were tied to those that are done.
/// The kicks are for this vCPU, which looks anyway, and for those to which such an interrupt goes by now.
pub fn sync<M: Machine>(vgic: &mut Vgic, vcpu: VcpuId, nested: &mut Nested, m: &M) -> Kicks {
    let mut kicks = Kicks::NONE;
    if !nested.lends_interface() {
        return kicks;
    }
    let (page, lent) = (nested.page, nested.lent);
    let Some(lr) = nested.lr.get_mut(..lent) else { return kicks };
    let control = u64::from(m.read_lists(lr));
    let mut changed = false;
    for (n, now) in lr.iter_mut().enumerate() {
        let offset = page::ICH_LR + n as u64 * 8;
        let was = page.read(m, offset);
        if was & STATE == 0 {
            continue;
        }
        page.write(m, offset, was & !STATE | *now & STATE);
        if *now & STATE == 0 {
            if was & HW != 0 {
                kicks |= vgic.deactivate(vcpu, (was & PHYSICAL) >> 32);
            }
            changed |= *now != 0;
            *now = 0;
        }
    }
    let kept = page.read(m, page::ICH_HCR) & !COUNT;
    page.write(m, page::ICH_HCR, kept | control & COUNT);
    // What was told once is in the page, and the hypervisor's maintenance interrupt follows from there.
    if changed || control & CONDITIONS != 0 && raises_maintenance(nested, m) {
        m.write_lists(nested.lr.get(..lent).unwrap_or(&[]), (control & !CONDITIONS) as u32);
    }
    kicks
}

/// Takes the guest's interface, which was synchronised, off the CPU.
pub fn put_guests_away<M: Machine>(m: &M, nested: &mut Nested) {
    if !nested.lends_interface() {
        return;
    }
    // All that there is of it is written.
    let mut interface = Interface::default();
    m.save_interface(&mut interface, core::mem::take(&mut nested.lent));
    nested.keep_interface(m, &interface);
}

/// Whether something waits in the lists that the hypervisor gives its guest.
pub fn is_pending<M: Machine>(nested: &Nested, m: &M) -> bool {
    lists(nested, m).any(|lr| lr & PENDING != 0)
}

fn lists<'n, M: Machine>(nested: &Nested, m: &'n M) -> impl Iterator<Item = u64> + 'n {
    let words = m.frame(nested.page.0).iter().skip(const { page::ICH_LR as usize >> 3 });
    words.take(usize::from(nested.lists)).map(|word| word.load(Relaxed))
}

/// ICH_EISR_EL2: lists that are done and were to tell of it.
pub fn eisr<M: Machine>(nested: &Nested, m: &M) -> u64 {
    let done = |lr: u64| lr & (STATE | HW) == 0 && lr & EOI != 0;
    lists(nested, m).enumerate().fold(0, |bits, (n, lr)| bits | u64::from(done(lr)) << n)
}

/// ICH_ELRSR_EL2: lists that are free.
pub fn elrsr<M: Machine>(nested: &Nested, m: &M) -> u64 {
    let free = |lr: u64| lr & STATE == 0 && lr & (HW | EOI) != EOI;
    lists(nested, m).enumerate().fold(0, |bits, (n, lr)| bits | u64::from(free(lr)) << n)
}

/// Whether the hypervisor's maintenance interrupt is raised.
pub fn raises_maintenance<M: Machine>(nested: &Nested, m: &M) -> bool {
    nested.read(m, page::ICH_HCR) & u64::from(hcr::EN) != 0 && misr(nested, m) != 0
}

/// ICH_MISR_EL2: what would raise the hypervisor's maintenance interrupt, which ICH_HCR_EL2.En lets through (IHI 0069H 12.4.7).
pub fn misr<M: Machine>(nested: &Nested, m: &M) -> u64 {
    let control = nested.read(m, page::ICH_HCR);
    if control & CONDITIONS == 0 {
        return u64::from(eisr(nested, m) != 0);
    }
    let vmcr = nested.read(m, page::ICH_VMCR);
    let (mut valid, mut pending) = (0, false);
    for lr in lists(nested, m) {
        valid += u32::from(lr & STATE != 0);
        pending |= lr & STATE == PENDING;
    }
    let is = |bit: u32, condition: bool| control & u64::from(bit) != 0 && condition;
    let [group0, group1] = [vmcr & 1 != 0, vmcr & 2 != 0];
    let reasons = [
        eisr(nested, m) != 0,
        is(hcr::UIE, valid <= 1),
        is(hcr::LRENPIE, control & COUNT != 0),
        is(hcr::NPIE, !pending),
        is(hcr::VGRP0EIE, group0),
        is(hcr::VGRP0DIE, !group0),
        is(hcr::VGRP0EIE << 2, group1),
        is(hcr::VGRP0DIE << 2, !group1),
    ];
    reasons.iter().enumerate().fold(0, |bits, (n, is)| bits | u64::from(*is) << n)
}

/// The hypervisor's interrupts for what we find out ourselves.
pub const MAINTENANCE: IntId = crate::devices::MAINTENANCE_INTID;
