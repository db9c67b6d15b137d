//! A VM's flash: its banks' frames, and the accesses to it that leave the guest.
//!
//! What is read of a bank that shows its array is mapped page by page, as it is touched; before anything is written, all
//! of it is taken back, a table at a time ([`Bank::shown`] says where they may be).

use super::Host;
use crate::addr::{Addr, Ipa, Size};
use crate::arm::esr::Access;
use crate::devices::FLASH_BANK;
use crate::devices::flash::Bank;
use crate::machine::Machine;
use crate::stage2::Refusal;
use crate::vm::Vm;

/// What flash says to an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// This is what a load gets; a store was done.
    Done(u64),
    /// It is mapped now: the guest tries again.
    Mapped,
    /// There is no frame for a table.
    Short,
    /// Such an access is not answered, or there is nothing so far behind.
    Refused,
}

impl Host {
    /// An access to `vm`'s flash that left the guest: to this IPA, which is so far inside a bank. `size` bytes, a power of
    /// two; nothing if it is not of one register.
    pub fn flash<M: Machine>(
        &self,
        m: &M,
        vm: &Vm,
        (ipa, bank, offset): (Addr<Ipa>, usize, u64),
        access: Access,
        size: Option<u8>,
        value: u64,
    ) -> Answer {
        let mut banks = vm.flash.lock();
        let Some(bank) = banks.get_mut(bank).filter(|bank| offset < bank.bytes()) else { return Answer::Refused };
        match (access, size) {
            // There is nothing in the guest's caches that the array had not.
            (Access::Maintain, _) => Answer::Done(0),
            (Access::Write, Some(size)) => {
                if !bank.ignores(value) {
                    self.hide(m, vm, bank, ipa);
                    bank.write(m, offset, size, value);
                }
                Answer::Done(0)
            }
            (Access::Read | Access::Execute, _) if bank.is_array() => self.show(m, vm, bank, ipa, offset),
            (Access::Read, Some(size)) => Answer::Done(bank.read(m, offset, size)),
            _ => Answer::Refused,
        }
    }

    /// Maps the page around `ipa`, which lies at `offset` in `bank`.
    fn show<M: Machine>(&self, m: &M, vm: &Vm, bank: &mut Bank, ipa: Addr<Ipa>, offset: u64) -> Answer {
        let page = offset & !(Size::Page.bytes() - 1);
        match vm.memory.lock().map_rom(m, &self.pool, ipa.align_down(Size::Page), bank.start() + page) {
            // Another vCPU may have been there first.
            Ok(()) | Err(Refusal::Occupied) => {}
            Err(_) => return Answer::Short,
        }
        let Bank { shown, .. } = bank;
        if shown.is_empty() {
            *shown = page..page;
        }
        *shown = shown.start.min(page)..shown.end.max(page + Size::Page.bytes());
        Answer::Mapped
    }

    /// Takes back what is mapped of `bank`, in which the access to `ipa` was: 32 tables at most.
    fn hide<M: Machine>(&self, m: &M, vm: &Vm, bank: &mut Bank, ipa: Addr<Ipa>) {
        let base = ipa.bits() & !(FLASH_BANK - 1);
        let shown = core::mem::take(&mut bank.shown);
        let mut memory = vm.memory.lock();
        for at in (shown.start & !(Size::Block.bytes() - 1)..shown.end).step_by(Size::Block.bytes() as usize) {
            memory.unmap_rom(m, &self.pool, Addr::new(base + at));
        }
    }
}
