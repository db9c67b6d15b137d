//! What the board and its CPUs offer to VMs: found out at boot, the same for ever after.

use crate::addr::{Addr, CpuId, Pa, Size};
use crate::arm::idreg::IdRegs;
use crate::arm::speculation::Speculation;
use crate::arm::vmsa::{PaRange, VmidBits};
use crate::bundle::VmSpec;
use crate::devices::entropy::Seed;
use crate::machine::Machine;
use crate::sched::Frequency;
use crate::vcpu::Nested;
use crate::vm::Gic;

/// The CPU that looks after watchdogs, alarms and memory.
pub const HOUSEKEEPING_CPU: CpuId = CpuId(0);

/// How long work that can be done in parts goes on with interrupts masked, in microseconds: other VMs' timers, and CPUs that want
/// the same lock, wait meanwhile.
const LATE_US: u16 = 8;

/// What the board and its CPUs offer to VMs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How many CPUs run vCPUs.
    pub n_cpus: usize,
    /// The version of the interrupt controller, the board's and so the VMs'.
    pub gic: Gic,
    /// Where the hardware's virtual CPU interface of a GICv2 lies.
    pub gicv: Option<u64>,
    /// How many list registers a CPU has.
    pub lists: u8,
    /// How far stage 2 reaches.
    pub pa_range: PaRange,
    /// How many VMIDs there are.
    pub vmid_bits: VmidBits,
    /// The ID registers every guest sees.
    pub ids: IdRegs,
    /// Those that a VM sees which starts at EL2 with the help of FEAT_NV2; nothing if the CPUs have not got that.
    pub nested_ids: Option<IdRegs>,
    /// The same for one whose EL2 runs at EL0.
    pub el0_ids: IdRegs,
    /// MIDR_EL1.
    pub midr: u64,
    /// How it stands with attacks by speculation.
    pub speculation: Speculation,
    /// The system counter's.
    pub frequency: Frequency,
    /// Bytes of RAM that the hypervisor keeps for itself.
    pub own_bytes: u64,
    /// A number that guests cannot guess, as far as the board has one.
    pub seed: u64,
    /// What the board knows that nobody can guess.
    pub entropy: Seed,
    /// Where the bundle lies, and where its first byte is in physical memory.
    pub images: (&'static [u8], Addr<Pa>),
}

impl Facts {
    /// Whether the EL2 of such a VM, which starts there, runs at EL0.
    pub const fn runs_at_el0(&self, vm: &VmSpec<'_>) -> bool {
        self.nested_ids.is_none() || vm.by_traps
    }

    /// The ID registers that a VM sees which starts at EL2.
    #[inline(always)]
    pub const fn ids_of(&self, nested: &Nested) -> Option<&IdRegs> {
        match nested.el0() {
            None => self.nested_ids.as_ref(),
            Some(_) => Some(&self.el0_ids),
        }
    }

    /// The frame that `bytes`, a page's worth, are in the bundle; nothing if they lie elsewhere, or not as a page does.
    pub fn image_frame(&self, bytes: &[u8]) -> Option<Addr<Pa>> {
        let (images, start) = self.images;
        // Where the bytes lie in the bundle says where they are in physical memory.
        let offset = bytes.as_ptr().addr().wrapping_sub(images.as_ptr().addr());
        let is_inside = offset <= images.len().checked_sub(bytes.len())?;
        let frame = Addr::new(start.bits().checked_add(offset as u64).filter(|_| is_inside)?);
        frame.is_aligned(Size::Page).then_some(frame)
    }

    /// How many vCPUs a VM may have.
    pub const fn max_vcpus(&self) -> u16 {
        match self.gic {
            Gic::V2 => 8,
            Gic::V3 => 16,
        }
    }

    /// Seconds since the board was turned on, at counter value `now`.
    pub fn seconds(&self, now: u64) -> u64 {
        now / u64::from(self.frequency.hz()).max(1)
    }

    /// Milliseconds since the board was turned on.
    pub fn millis(&self, now: u64) -> u64 {
        self.frequency.nanos(now) / 1_000_000
    }

    /// Counter ticks of `ms` milliseconds.
    pub fn ticks_of_ms(&self, ms: u64) -> u64 {
        self.frequency.ticks(ms.saturating_mul(1_000_000))
    }

    /// For work that can be done in parts, and begins now.
    pub(super) fn late<'m, M: Machine>(&self, m: &'m M) -> Late<'m, M> {
        Late { m, until: m.now().saturating_add(self.frequency.ticks_of_us(LATE_US)) }
    }
}

/// When work that can be done in parts is to let others in.
pub(super) struct Late<'m, M: Machine> {
    m: &'m M,
    /// By the system counter.
    until: u64,
}

impl<M: Machine> Late<'_, M> {
    /// Whether it is: it has taken long, or an interrupt waits.
    pub(super) fn is_now(&self) -> bool {
        self.m.is_interrupt_pending() || self.m.now() >= self.until
    }
}
