//! A VM's memory as its virtio devices see it.

use super::Host;
use crate::addr::{Addr, Ipa};
use crate::devices::virtio::{Ram, Violation};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::vm::Vm;

/// A VM's memory, which a device reads and writes. The caller may hold the device's lock, but not the memory's.
pub(super) struct GuestRam<'a, M: Machine> {
    pub(super) host: &'a Host,
    pub(super) vm: &'a Vm,
    pub(super) m: &'a M,
}

impl From<Miss> for Violation {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Short | Miss::Again => Self::Short,
            Miss::NotRam | Miss::Denied | Miss::Lost => Self::Outside,
        }
    }
}

impl<M: Machine> Ram for GuestRam<'_, M> {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Violation> {
        Ok(self.vm.memory.lock().read(self.m, &self.host.pool, at, into)?)
    }

    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Violation> {
        self.vm.memory.lock().write(self.m, &self.host.pool, at, bytes)?;
        // What is written next tells of this: a driver on another CPU must not see the index of a used ring before what
        // it counts (virtio 1.2, 2.7.8).
        self.m.publish();
        Ok(())
    }
}
