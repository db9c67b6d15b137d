//! The guest's interrupts: list registers, and what the hypervisor does with physical ones that end a guest's run.

use crate::l2::Vm;
use crate::registers::n_lists;
use rt::el2::Register;
use rt::gic::{self, EndMode};

/// ICH_LR: pending.
pub(crate) const PENDING: u64 = 1 << 62;
/// ICH_LR: active.
pub(crate) const ACTIVE: u64 = 1 << 63;
/// ICH_LR: the end deactivates the physical interrupt.
pub(crate) const HW: u64 = 1 << 61;
/// ICH_LR: group 1.
pub(crate) const GROUP1: u64 = 1 << 60;
/// ICH_LR: tell of the end.
pub(crate) const EOI: u64 = 1 << 41;
/// ICH_HCR_EL2: the virtual interface is on.
pub(crate) const EN: u64 = 1;

/// ICH_VMCR_EL2: group 1 on, every priority comes through.
pub(crate) const OPEN: u64 = 0xf8 << 24 | 2;

/// All list registers this program has names for.
pub(crate) const LISTS: [Register; 4] = [Register::IchLr0, Register::IchLr1, Register::IchLr2, Register::IchLr3];

/// The list registers there are.
pub(crate) fn lists() -> impl Iterator<Item = Register> {
    LISTS.into_iter().take(n_lists() as usize)
}

/// Sets up the interrupt controller of this CPU, and an empty virtual interface: ends drop the priority only, so that a
/// guest's end can do the rest.
pub(crate) fn begin() {
    gic::init_cpu();
    gic::set_end_mode(EndMode::DropOnly);
    clear();
}

/// Empties the virtual interface.
pub(crate) fn clear() {
    Register::IchHcr.write(EN);
    Register::IchVmcr.write(OPEN);
    Register::IchAp0r0.write(0);
    Register::IchAp1r0.write(0);
    for list in lists() {
        list.write(0);
    }
}

/// Turns the virtual interface off.
pub(crate) fn end() {
    clear();
    Register::IchHcr.write(0);
}

/// What a list register holds for a pending interrupt of group 1.
pub(crate) fn pending(intid: u32) -> u64 {
    PENDING | GROUP1 | 0xa0 << 48 | u64::from(intid)
}

/// Puts an interrupt into a free list register, unless it is in one already; returns whether there was one.
pub(crate) fn inject(value: u64) -> bool {
    if let Some(list) = lists().find(|list| list.read() as u32 == value as u32 && list.read() >> 62 != 0) {
        list.write(list.read() | value & PENDING);
        return true;
    }
    let free = lists().find(|list| list.read() >> 62 == 0);
    if let Some(list) = free {
        list.write(value);
    }
    free.is_some()
}

/// Acknowledges the physical interrupt that ended a run, and drops its priority; 1023 if there is none.
pub(crate) fn take() -> gic::Taken {
    let taken = gic::acknowledge();
    if taken.intid < 1020 {
        gic::end(taken);
    }
    taken
}

/// The same, and deactivates it.
pub(crate) fn finish() -> u32 {
    let taken = take();
    if taken.intid < 1020 {
        gic::deactivate(taken);
    }
    taken.intid
}

/// Hands a physical interrupt over to the guest: it stays active until the guest ends its own.
pub(crate) fn hand_over(taken: gic::Taken) {
    inject(pending(taken.intid) | HW | u64::from(taken.intid) << 32);
}

/// How many interrupts a guest has logged.
pub(crate) fn logged(vm: &Vm) -> u64 {
    vm.read(crate::l2::DATA)
}

/// The last interrupt a guest has logged.
pub(crate) fn last(vm: &Vm) -> u64 {
    vm.read(crate::l2::DATA + 8)
}
