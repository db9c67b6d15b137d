//! Four timers on one: EL1's virtual and physical, EL2's physical and, with E2H, virtual (Arm ARM D12).
//!
//! The CPU's virtual timer is the guest's own while that runs, and EL2's virtual one while a hypervisor with E2H does. What
//! is not on the CPU has a line that follows from its registers and the counter, and a deadline that ours watches.

use super::lists;
use crate::addr::IntId;
use crate::arm::el1::El1;
use crate::devices::{HYP_TIMER_INTID, HYP_VIRTUAL_TIMER_INTID, PHYSICAL_TIMER_INTID, VIRTUAL_TIMER_INTID};
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::nested::{Nested, World, page};
use crate::vcpu::timer::{ISTATUS, Timer};
use crate::vcpu::{Common, timer};
use crate::vgic::{Line, Vgic};

/// EL1's virtual timer as the page has it, by the physical counter, which says `now`.
fn page_virtual<M: Machine>(nested: &Nested, m: &M, now: u64) -> Timer {
    let count = now.wrapping_sub(nested.read(m, page::CNTVOFF));
    let Timer { ctl, cval } = nested.virtual_timer(m);
    // Its comparison is of unsigned numbers (Arm ARM D12.2.4): one that is far away does not wrap around.
    let cval = if count < cval { now.saturating_add(cval - count) } else { now.saturating_sub(count - cval) };
    Timer { ctl, cval }
}

/// EL1's physical timer.
fn physical<M: Machine>(nested: &Nested, vcpu: &Common, m: &M) -> Timer {
    match nested.world {
        World::Guest(_) => vcpu.cntp,
        World::Hypervisor => nested.physical_timer(m),
    }
}

/// Whose the CPU's virtual timer is.
const fn on_cpu(nested: &Nested) -> Option<IntId> {
    match nested.world {
        World::Guest(_) => Some(VIRTUAL_TIMER_INTID),
        World::Hypervisor if nested.vhe => Some(HYP_VIRTUAL_TIMER_INTID),
        World::Hypervisor => None,
    }
}

/// The timers that are not on the CPU, at counter value `now`.
fn others<M: Machine>(nested: &Nested, vcpu: &Common, m: &M, now: u64) -> [(IntId, Timer); 4] {
    let on_cpu = on_cpu(nested);
    let unless = |intid: IntId, timer: Timer| if on_cpu == Some(intid) { Timer::default() } else { timer };
    [
        (VIRTUAL_TIMER_INTID, unless(VIRTUAL_TIMER_INTID, page_virtual(nested, m, now))),
        (HYP_VIRTUAL_TIMER_INTID, unless(HYP_VIRTUAL_TIMER_INTID, nested.hv)),
        (HYP_TIMER_INTID, nested.hp),
        (PHYSICAL_TIMER_INTID, physical(nested, vcpu, m)),
    ]
}

/// Sets the lines of all timers of the loaded vCPU, and of its maintenance interrupt. The kicks are for it itself.
pub fn refresh<M: Machine>(vgic: &mut Vgic, vcpu: &mut Common, nested: &mut Nested, m: &M) {
    let now = m.now();
    let on_cpu = on_cpu(nested);
    let fires = on_cpu.is_some() && timer::is_firing_on_cpu(m);
    let mut lines = 0;
    let timers = others(nested, vcpu, m, now);
    for (intid, timer) in &timers {
        let high = if on_cpu == Some(*intid) { fires } else { timer.is_firing(now) };
        lines |= u16::from(high) << (intid.0 & 15);
    }
    if nested.guest().is_none() {
        // These two are memory to the hypervisor: it finds there what the interrupt is about.
        let [(_, virt), _, _, (_, phys)] = timers;
        set_istatus(nested, m, page::CNTV_CTL, virt.is_met(now));
        set_istatus(nested, m, page::CNTP_CTL, phys.is_met(now));
    }
    lines |= u16::from(lists::raises_maintenance(nested, m)) << (lists::MAINTENANCE.0 & 15);
    let mut changed = lines ^ nested.lines;
    while changed != 0 {
        let bit = changed.trailing_zeros();
        changed &= changed - 1;
        let line = if lines >> bit & 1 != 0 { Line::High } else { Line::Low };
        let _ = vgic.set_line(vcpu.id, IntId(16 + bit), line);
    }
    nested.lines = lines;
    if vcpu.timer_active && !fires {
        m.release(VIRTUAL_TIMER_INTID);
        vcpu.timer_active = false;
    }
}

/// Keeps ISTATUS of a timer's control register in the page.
#[inline(always)]
fn set_istatus<M: Machine>(nested: &Nested, m: &M, offset: u64, is_met: bool) {
    let ctl = nested.read(m, offset);
    let new = if is_met { ctl | ISTATUS } else { ctl & !ISTATUS };
    if new != ctl {
        nested.write(m, offset, new);
    }
}

/// The CPU's virtual timer is another's now: its interrupt may come.
pub fn changed<M: Machine>(m: &M, vcpu: &mut Common) {
    if core::mem::take(&mut vcpu.timer_active) {
        m.release(VIRTUAL_TIMER_INTID);
    }
}

/// When the first of the timers that are not on the CPU is going to fire, after `now`.
pub fn deadline<M: Machine>(vcpu: &Common, nested: &Nested, m: &M, now: u64) -> Option<u64> {
    let timers = others(nested, vcpu, m, now);
    timers.iter().filter(|(_, timer)| timer.is_armed() && timer.cval > now).map(|(_, timer)| timer.cval).min()
}

/// What to do after a timer has changed hands: nothing, if it does not fire earlier than our own timer is set to.
pub fn watch<M: Machine>(m: &M, vcpu: &Common, nested: &Nested) -> Next {
    let timers = others(nested, vcpu, m, m.now());
    if timers.iter().any(|(_, timer)| timer.is_armed() && timer.cval < nested.watched) {
        Next::Reschedule
    } else {
        Next::Resume
    }
}

/// When the CPU's virtual timer was to fire, for a vCPU that was taken off.
pub fn saved_deadline<M: Machine>(vcpu: &Common, nested: &Nested, m: &M) -> Option<u64> {
    let offset = match on_cpu(nested)? {
        VIRTUAL_TIMER_INTID => nested.read(m, page::CNTVOFF),
        _ => 0,
    };
    let timer = Timer::new(vcpu.saved.get(El1::CntvCtl), vcpu.saved.get(El1::CntvCval).wrapping_add(offset));
    timer.is_armed().then_some(timer.cval)
}
