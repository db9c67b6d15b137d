//! Stage-2 aborts: memory touched for the first time, devices, and what is neither.

use super::{Here, check_stuck};
use crate::addr::{Addr, Ipa, VcpuId};
use crate::arm::el1::El1;
use crate::arm::esr::{Abort, Access, Fault, Transfer};
use crate::arm::exception::psr;
use crate::arm::gic::{Version, gicr};
use crate::devices::{self, Region};
use crate::machine::Machine;
use crate::memory::Miss;
use crate::next::{Cause, Next};
use crate::vcpu::{self, Counter, Vcpu};
use crate::vgic::Vgic;
use crate::vm::{Gic, request};
use core::sync::atomic::Ordering;
use log::info;

/// GICC_DIR, in the second page of the CPU interface (IHI 0048B 4.4.17).
const GICC_DIR: u64 = 0x1000;

/// A load or store.
#[inline]
pub fn data<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    let syndrome = vcpu.registers.syndrome();
    let abort = Abort::decode(syndrome);
    if abort.fault == Fault::Translation
        && !abort.walk
        && let Some(ipa) = abort.ipa
        && let Some((region, offset)) = devices::at(ipa)
    {
        here.slot.count(Counter::Mmio);
        let Some(transfer) = Transfer::decode(syndrome) else {
            // Pairs, exclusives and write-back forms have no syndrome, and no driver uses them on a device.
            return refuse(here, m, vcpu, abort, ipa, "a device access without a syndrome");
        };
        return device(here, m, vcpu, region, offset, abort, ipa, transfer);
    }
    memory(here, m, vcpu, abort)
}

/// An instruction fetch.
pub fn fetch<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Next {
    let abort = Abort::decode(vcpu.registers.syndrome());
    memory(here, m, vcpu, abort)
}

/// RAM, or nothing.
fn memory<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, abort: Abort) -> Next {
    here.slot.count(Counter::Memory);
    let far = vcpu.registers.far;
    if !matches!(abort.fault, Fault::Translation | Fault::AccessFlag | Fault::Permission) {
        // The board's bus refused what we mapped, or a fault that stage 2 cannot have: the guest gets to know.
        let ipa = abort.ipa.unwrap_or(Addr::new(0));
        return refuse(here, m, vcpu, abort, ipa, "an abort from the board");
    }
    let ipa = match abort.ipa {
        Some(ipa) => ipa,
        // A permission fault: the hardware does not say where, the guest's own tables do. Where they deny the access, it
        // was a stage-1 fault reported as ours, or they changed meanwhile: it tries again (Cortex-A72 erratum 853709).
        None => match m.translate(far, abort.access, vcpu.registers.pstate & psr::MODE == psr::EL0T) {
            Some(ipa) => ipa,
            None => return Next::Resume,
        },
    };
    let result = here.vm.memory.lock().resolve(m, &here.host.pool, ipa, abort.access);
    match result {
        Ok(_) => Next::Resume,
        Err(Miss::Short) => Next::Stop(Cause::Crash("the board has no memory left for it")),
        Err(Miss::NotRam) => refuse(here, m, vcpu, abort, ipa, "nothing is there"),
        Err(Miss::Denied) => refuse(here, m, vcpu, abort, ipa, "the access is not allowed there"),
    }
}

/// Answers as a bus would: with an external abort, told once per place.
fn refuse<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu, abort: Abort, ipa: Addr<Ipa>, why: &str) -> Next {
    let pc = vcpu.registers.pc;
    if here.vm.told.lock().is_new(ipa.bits() & !0xfff | abort.access as u64) {
        info!("{}: {:?} of IPA {ipa} at {pc:#x}: {why}", here.vm.name, abort.access);
    }
    let far = vcpu.registers.far;
    let bytes = vcpu.registers.syndrome().instruction_bytes();
    // On a fault in the walk of its tables, this is "external abort on translation table walk" at an unknown level; the
    // plain one says as much to software.
    vcpu::external_abort(vcpu, m, abort.access, far, bytes);
    if abort.access == Access::Execute {
        return check_stuck(vcpu, pc);
    }
    vcpu.stuck = 0;
    Next::Resume
}

#[expect(clippy::too_many_arguments, reason = "one access, taken apart once")]
#[inline(always)]
fn device<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &mut Vcpu,
    region: Region,
    offset: u64,
    abort: Abort,
    ipa: Addr<Ipa>,
    transfer: Transfer,
) -> Next {
    let bytes = vcpu.registers.syndrome().instruction_bytes();
    let mut next = Next::Resume;
    if abort.access == Access::Write {
        let mut value = vcpu.registers.read(transfer.register);
        if transfer.bytes < 8 {
            value &= (1 << (u32::from(transfer.bytes) * 8)) - 1;
        }
        // SCTLR_EL1.EE: a big-endian guest's store arrives with its bytes as the register has them.
        if big_endian(m, vcpu) {
            value = swap(value, transfer.bytes);
        }
        if !here.write(m, vcpu, region, offset, transfer.bytes, value, &mut next) {
            return refuse(here, m, vcpu, abort, ipa, "no device is there");
        }
    } else {
        let Some(mut value) = here.read(m, vcpu, region, offset, transfer.bytes) else {
            return refuse(here, m, vcpu, abort, ipa, "no device is there");
        };
        if big_endian(m, vcpu) {
            value = swap(value, transfer.bytes);
        }
        vcpu.registers.write(transfer.register, transfer.extend(value));
    }
    vcpu.registers.step(bytes);
    next
}

fn big_endian<M: Machine>(m: &M, vcpu: &Vcpu) -> bool {
    // SCTLR_EL1.EE for EL1, E0E for EL0.
    let bit = if vcpu.registers.pstate & psr::MODE == psr::EL0T { 24 } else { 25 };
    m.get(El1::Sctlr) >> bit & 1 != 0
}

fn swap(value: u64, bytes: u8) -> u64 {
    value.swap_bytes() >> (64 - u32::from(bytes.clamp(1, 8)) * 8)
}

impl Here<'_> {
    /// Folds the lists, which have to be filled again before the vCPU runs.
    fn refresh<M: Machine>(self, vgic: &mut Vgic, vcpu: &mut Vcpu, m: &M) {
        let kicks = super::irq::refresh(vgic, vcpu, m);
        self.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
        self.host.kick(m, self.vm, kicks);
    }

    /// The vCPU whose redistributor is number `n`.
    fn frame(self, vgic: &Vgic, n: u16) -> Option<VcpuId> {
        (vgic.version() == Version::V3 && usize::from(n) < self.vm.slots.len()).then_some(VcpuId(n))
    }

    /// Reads a device register of the virtual board; nothing if no device is there.
    #[inline(always)]
    fn read<M: Machine>(self, m: &M, vcpu: &mut Vcpu, region: Region, offset: u64, bytes: u8) -> Option<u64> {
        match region {
            Region::Gicd => {
                let mut vgic = self.vm.vgic.lock();
                if Vgic::touches_state(offset) {
                    self.refresh(&mut vgic, vcpu, m);
                }
                Some(vgic.dist_read(vcpu.id, offset, bytes))
            }
            Region::Gicr(n) => {
                let mut vgic = self.vm.vgic.lock();
                let frame = self.frame(&vgic, n)?;
                if offset & gicr::SGI_FRAME != 0 {
                    self.refresh(&mut vgic, vcpu, m);
                }
                Some(vgic.redist_read(frame, offset, bytes))
            }
            Region::Uart => {
                let mut devices = self.vm.devices.lock();
                let value = devices.uart.read(offset, bytes);
                let line = devices.uart.line();
                drop(devices);
                self.host.line(m, self.vm, devices::UART_INTID, line.into());
                Some(value)
            }
            Region::Rtc => Some(self.vm.devices.lock().rtc.read(offset, bytes, self.host.seconds(m.now()))),
            Region::Virtio(_) => Some(devices::empty_slot(offset, bytes)),
            // GICC_DIR is write-only; the first page is the hardware's and does not come here.
            Region::Gicc => (self.vm.gic == Gic::V2 && offset == GICC_DIR).then_some(0),
        }
    }

    /// Writes a device register of the virtual board; false if no device is there.
    #[expect(clippy::too_many_arguments, reason = "one access, taken apart once")]
    fn write<M: Machine>(
        self,
        m: &M,
        vcpu: &mut Vcpu,
        region: Region,
        offset: u64,
        bytes: u8,
        value: u64,
        next: &mut Next,
    ) -> bool {
        match region {
            Region::Gicd => {
                let mut vgic = self.vm.vgic.lock();
                self.refresh(&mut vgic, vcpu, m);
                let kicks = vgic.dist_write(vcpu.id, offset, bytes, value);
                drop(vgic);
                self.host.kick(m, self.vm, kicks.without(vcpu.id));
            }
            Region::Gicr(n) => {
                let mut vgic = self.vm.vgic.lock();
                let Some(frame) = self.frame(&vgic, n) else { return false };
                self.refresh(&mut vgic, vcpu, m);
                let kicks = vgic.redist_write(frame, offset, bytes, value);
                drop(vgic);
                self.host.kick(m, self.vm, kicks.without(vcpu.id));
            }
            Region::Gicc => {
                if self.vm.gic != Gic::V2 || offset != GICC_DIR {
                    return false;
                }
                let mut vgic = self.vm.vgic.lock();
                self.refresh(&mut vgic, vcpu, m);
                let kicks = vgic.deactivate(vcpu.id, value);
                drop(vgic);
                self.host.kick(m, self.vm, kicks.without(vcpu.id));
            }
            Region::Uart => {
                *next = self.host.uart_write(m, self.vm, offset, bytes, value);
            }
            Region::Rtc => {
                let now = self.host.seconds(m.now());
                let mut devices = self.vm.devices.lock();
                devices.rtc.write(offset, bytes, value, now);
                devices.rtc.tick(now);
                let line = devices.rtc.line();
                drop(devices);
                self.host.line(m, self.vm, devices::RTC_INTID, line.into());
            }
            Region::Virtio(_) => {}
        }
        true
    }
}
