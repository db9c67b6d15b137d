//! Two virtual interrupt interfaces on one: the hypervisor's, which [`crate::vgic`] fills, and the one that it gives its
//! guest by its own ICH registers, which lie in its page (IHI 0069H 12.4).
//!
//! A list register of the hypervisor's that is tied to an interrupt of its own (HW) becomes one that tells us of its end, and
//! we end the hypervisor's interrupt then.

use crate::addr::{IntId, VcpuId};
use crate::arm::gic::{Interface, Version, gich, hcr};
use crate::machine::Machine;
use crate::next::Kicks;
use crate::vcpu::nested::{Nested, page};
use crate::vgic::Vgic;
use core::sync::atomic::Ordering::Relaxed;

/// What of a list register is looked at, by the version of the interrupt controller.
#[derive(Clone, Copy)]
struct Format {
    /// State: pending in its lower bit, active in its upper.
    state: u64,
    pending: u64,
    hw: u64,
    /// Without HW: the end raises a maintenance interrupt.
    eoi: u64,
    /// With HW: pINTID, and where it is.
    physical: u64,
    shift: u32,
}

/// `ICH_LR<n>_EL2` (IHI 0069H 12.4.8).
const V3: Format =
    Format { state: 0b11 << 62, pending: 1 << 62, hw: 1 << 61, eoi: 1 << 41, physical: 0x1fff << 32, shift: 32 };
/// `GICH_LR<n>` (IHI 0048B 5.3.8).
const V2: Format =
    Format { state: 0b11 << 28, pending: 1 << 28, hw: 1 << 31, eoi: 1 << 19, physical: 0x3ff << 10, shift: 10 };

/// Calls a function that is not to be in the way of others.
#[inline(never)]
fn apart<T>(call: impl FnOnce() -> T) -> T {
    call()
}

/// Calls a function for the format that a hypervisor has, with the format as a constant: this is on the way of each exit of a guest's guest.
macro_rules! by_format {
    ($nested:expr, $function:ident($($argument:expr),*)) => {
        match $nested.version {
            Version::V3 => $function(V3, $($argument),*),
            Version::V2 => apart(|| $function(V2, $($argument),*)),
        }
    };
}

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
    by_format!(nested, prepare(m, nested));
    let allowed = match nested.version {
        Version::V3 => ALLOWED,
        Version::V2 => u64::from(hcr::EN) | CONDITIONS | COUNT,
    };
    let control = nested.read(m, page::ICH_HCR) & allowed;
    // It has 32 bits.
    m.write_lists(nested.lr.get(..nested.lent).unwrap_or(&[]), control as u32);
}

/// Makes list registers for the hardware of the hypervisor's.
#[inline(always)]
fn prepare<M: Machine>(format: Format, m: &M, nested: &mut Nested) {
    nested.lent = 0;
    let page = nested.page;
    for (n, lr) in nested.lr.iter_mut().enumerate().take(usize::from(nested.lists)) {
        *lr = format.in_hardware(page.read(m, page::ICH_LR + n as u64 * 8));
        if *lr != 0 {
            nested.lent = n + 1;
        }
    }
}

impl Format {
    /// What the hardware gets for a list register of the hypervisor's. One that is done tells of its end no more.
    const fn in_hardware(&self, lr: u64) -> u64 {
        if lr & self.state == 0 {
            0
        } else if lr & self.hw != 0 {
            lr & !(self.hw | self.physical) | self.eoi
        } else {
            lr
        }
    }
}

/// Reads the guest's lists back into the page, and ends interrupts of the hypervisor's that were tied to those that are done.
/// The kicks are for this vCPU, which looks anyway, and for those to which such an interrupt goes by now.
pub fn sync<M: Machine>(vgic: &mut Vgic, vcpu: VcpuId, nested: &mut Nested, m: &M) -> Kicks {
    if nested.lends_interface() { by_format!(nested, read_back(vgic, vcpu, nested, m)) } else { Kicks::NONE }
}

#[inline(always)]
fn read_back<M: Machine>(format: Format, vgic: &mut Vgic, vcpu: VcpuId, nested: &mut Nested, m: &M) -> Kicks {
    let mut kicks = Kicks::NONE;
    let (page, lent, state) = (nested.page, nested.lent, format.state);
    let Some(lr) = nested.lr.get_mut(..lent) else { return kicks };
    let control = u64::from(m.read_lists(lr));
    let mut changed = false;
    for (n, now) in lr.iter_mut().enumerate() {
        let offset = page::ICH_LR + n as u64 * 8;
        let was = page.read(m, offset);
        if was & state == 0 {
            continue;
        }
        page.write(m, offset, was & !state | *now & state);
        if *now & state == 0 {
            if was & format.hw != 0 {
                kicks |= vgic.deactivate(vcpu, (was & format.physical) >> format.shift);
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
    let pending = by_format!(nested, pending());
    lists(nested, m).any(|lr| lr & pending != 0)
}

#[inline(always)]
const fn pending(format: Format) -> u64 {
    format.pending
}

#[inline(always)]
fn lists<'n, M: Machine>(nested: &Nested, m: &'n M) -> impl Iterator<Item = u64> + 'n {
    const FIRST: usize = page::ICH_LR as usize >> 3;
    let words = m.frame(nested.page.0).get(FIRST..FIRST + usize::from(nested.lists));
    words.unwrap_or_default().iter().map(|word| word.load(Relaxed))
}

/// ICH_EISR_EL2: lists that are done and were to tell of it.
pub fn eisr<M: Machine>(nested: &Nested, m: &M) -> u64 {
    by_format!(nested, done(nested, m))
}

#[inline(always)]
fn done<M: Machine>(format: Format, nested: &Nested, m: &M) -> u64 {
    let Format { state, hw, eoi, .. } = format;
    let done = |lr: u64| lr & (state | hw) == 0 && lr & eoi != 0;
    lists(nested, m).enumerate().fold(0, |bits, (n, lr)| bits | u64::from(done(lr)) << n)
}

/// ICH_ELRSR_EL2: lists that are free.
pub fn elrsr<M: Machine>(nested: &Nested, m: &M) -> u64 {
    by_format!(nested, free(nested, m))
}

#[inline(always)]
fn free<M: Machine>(format: Format, nested: &Nested, m: &M) -> u64 {
    let Format { state, hw, eoi, .. } = format;
    let free = |lr: u64| lr & state == 0 && lr & (hw | eoi) != eoi;
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
    let (valid, pending) = by_format!(nested, count(nested, m));
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

/// How many of the hypervisor's lists hold something, and whether one of them is pending and not active.
#[inline(always)]
fn count<M: Machine>(format: Format, nested: &Nested, m: &M) -> (u32, bool) {
    let (mut valid, mut pending) = (0, false);
    for lr in lists(nested, m) {
        valid += u32::from(lr & format.state != 0);
        pending |= lr & format.state == format.pending;
    }
    (valid, pending)
}

/// The hypervisor's interrupts for what we find out ourselves.
pub const MAINTENANCE: IntId = crate::devices::MAINTENANCE_INTID;

/// Whether its line has to be set anew, as the registers in the page have changed.
pub fn changes_maintenance<M: Machine>(nested: &Nested, m: &M) -> bool {
    raises_maintenance(nested, m) != (nested.lines >> (MAINTENANCE.0 & 15) & 1 != 0)
}

/// Where the register at `offset` of GICH is in the page, if it is there (IHI 0048B 5.3).
const fn place_of_gich(nested: &Nested, offset: u64) -> Option<u64> {
    Some(match offset {
        gich::HCR => page::ICH_HCR,
        gich::VMCR => page::ICH_VMCR,
        gich::APR => page::ICH_AP1R,
        gich::LR.. if offset < gich::LR + 4 * nested.lists as u64 => page::ICH_LR + (offset - gich::LR) * 2,
        _ => return None,
    })
}

/// What the hypervisor reads at `offset` of its GICH, which is a multiple of 4.
pub fn read_gich<M: Machine>(nested: &Nested, m: &M, offset: u64) -> u64 {
    match (place_of_gich(nested, offset), offset) {
        (Some(place), _) => nested.read(m, place),
        (None, gich::VTR) => m.interface_type(),
        (None, gich::MISR) => misr(nested, m),
        (None, gich::EISR0) => eisr(nested, m),
        (None, gich::ELRSR0) => elrsr(nested, m),
        // There are less than 32 list registers.
        _ => 0,
    }
}

/// Writes 32 bits there.
pub fn write_gich<M: Machine>(nested: &Nested, m: &M, offset: u64, value: u64) {
    if let Some(place) = place_of_gich(nested, offset) {
        nested.write(m, place, value);
    }
}
